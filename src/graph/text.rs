//! The printed form of a computation, for people and for the reviewed files under `graphs/`.
//!
//! One node a line, `%7 = f32[4,8] add(%3, %6)  # encoder/layer.0`; the bodies of loops are printed after the
//! computation that uses them, so that the whole reads from the outside in.

use std::fmt;
use std::sync::Arc;

use super::{Computation, Node, NodeId, Op, ValueShape};

impl fmt::Display for Computation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inner: Vec<Arc<Computation>> = Vec::new();
        writeln!(f, "{}({}) -> ({}) {{", self.name, self.parameters.len(), list(&self.outputs))?;
        for (i, node) in self.nodes.iter().enumerate() {
            write!(f, "  {} = {} {}", NodeId(i as u32), node.shape, node.op.name())?;
            match &node.op {
                Op::Parameter { index, name, .. } => write!(f, "({index}) {name:?}")?,
                Op::Constant(value) => {
                    let values = value.to_f64();
                    let shown: Vec<String> = values.iter().take(8).map(|x| x.to_string()).collect();
                    write!(f, "({}{})", shown.join(", "), if values.len() > 8 { ", …" } else { "" })?;
                }
                _ => write!(f, "({})", list(&node.inputs))?,
            }
            write_attributes(f, node)?;
            if let Op::While { condition, body } = &node.op {
                inner.extend([condition.clone(), body.clone()]);
            }
            match &*node.scope {
                "" => writeln!(f)?,
                scope => writeln!(f, "  # {scope}")?,
            }
        }
        writeln!(f, "}}")?;
        inner.iter().try_for_each(|computation| write!(f, "\n{computation}"))
    }
}

fn write_attributes(f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
    match &node.op {
        Op::Iota { dimension, .. } | Op::Concatenate { dimension } => write!(f, ", dimension={dimension}"),
        Op::Compare { direction } => write!(f, ", direction={direction:?}"),
        Op::Transpose { permutation } => write!(f, ", permutation={permutation:?}"),
        Op::Broadcast { broadcast_dimensions, .. } => write!(f, ", dimensions={broadcast_dimensions:?}"),
        Op::Slice { starts, limits, strides } => {
            write!(f, ", starts={starts:?}, limits={limits:?}, strides={strides:?}")
        }
        Op::Pad { low, high, interior } => write!(f, ", low={low:?}, high={high:?}, interior={interior:?}"),
        Op::Reduce { reduction, dimensions } => write!(f, ", {reduction:?} over {dimensions:?}"),
        Op::DotGeneral { dimensions: d, .. } => write!(
            f,
            ", batch={:?}x{:?}, contracting={:?}x{:?}",
            d.lhs_batch, d.rhs_batch, d.lhs_contracting, d.rhs_contracting
        ),
        Op::Gather(d) => write!(
            f,
            ", offset={:?}, collapsed={:?}, map={:?}, vector={}, sizes={:?}",
            d.offset_dims, d.collapsed_slice_dims, d.start_index_map, d.index_vector_dim, d.slice_sizes
        ),
        Op::ScatterAdd(d) => write!(
            f,
            ", window={:?}, inserted={:?}, map={:?}, vector={}",
            d.update_window_dims, d.inserted_window_dims, d.scatter_dims_to_operand_dims, d.index_vector_dim
        ),
        Op::While { condition, body } => write!(f, ", condition={}, body={}", condition.name, body.name),
        Op::GetTupleElement { index } => write!(f, ", index={index}"),
        Op::AllReduce { reduction } => write!(f, ", {reduction:?}"),
        Op::AllGather { dimension, replicas } | Op::ReduceScatter { dimension, replicas } => {
            write!(f, ", dimension={dimension}, replicas={replicas}")
        }
        // Their shapes, operands and names say everything.
        Op::Parameter { .. }
        | Op::Constant(_)
        | Op::Unary(_)
        | Op::Convert { .. }
        | Op::BitcastConvert { .. }
        | Op::Binary(_)
        | Op::Select
        | Op::Reshape { .. }
        | Op::DynamicSlice { .. }
        | Op::DynamicUpdateSlice
        | Op::OptimizationBarrier
        | Op::StopGradient
        | Op::ReplicaId => Ok(()),
    }
}

fn list(ids: &[NodeId]) -> String {
    ids.iter().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for ValueShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueShape::Array(shape) => write!(f, "{shape}"),
            ValueShape::Tuple(shapes) => {
                let shapes: Vec<String> = shapes.iter().map(|s| s.to_string()).collect();
                write!(f, "({})", shapes.join(", "))
            }
        }
    }
}
