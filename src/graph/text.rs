//! The printed form of a computation, for readers and for the golden files under `graphs/`.
//!
//! Each node is one line, `%7 = f32[4,8] add(%3, %6)  # encoder/layer.0`. The body of a loop follows the computation
//! that uses it.

use std::fmt;
use std::sync::Arc;

use super::window::Windows;
use super::{
    Comparison, Composite, Computation, DotDimensions, GatherDimensions, Node, NodeId, Op, Reduction, Scan,
    ScatterDimensions, ValueShape,
};

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
            match &node.op {
                Op::While { condition, body } => inner.extend([condition.clone(), body.clone()]),
                Op::Scan(scan) => inner.push(scan.body.clone()),
                Op::Composite(composite) => inner.push(composite.definition.clone()),
                _ => {}
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
        Op::Compare { direction } => write!(f, ", direction={direction}"),
        Op::Transpose { permutation } => write!(f, ", permutation={permutation:?}"),
        Op::Broadcast { broadcast_dimensions, .. } => write!(f, ", dimensions={broadcast_dimensions:?}"),
        Op::Slice { starts, limits, strides } => {
            write!(f, ", starts={starts:?}, limits={limits:?}, strides={strides:?}")
        }
        Op::Pad { low, high, interior } => write!(f, ", low={low:?}, high={high:?}, interior={interior:?}"),
        Op::Reduce { reduction, dimensions } => write!(f, ", {reduction} over {dimensions:?}"),
        Op::DotGeneral { dimensions, .. } => write!(f, ", {dimensions}"),
        Op::Gather(dimensions) => write!(f, ", {dimensions}"),
        Op::ScatterAdd(dimensions) => write!(f, ", {dimensions}"),
        Op::Convolution(convolution) => write!(f, ", {convolution}"),
        Op::ReduceWindow { reduction, window } => write!(f, ", {reduction}, window={{{}}}", Windows(window)),
        Op::SelectAndScatter { window } => write!(f, ", window={{{}}}", Windows(window)),
        Op::Reverse { dimensions } => write!(f, ", dimensions={dimensions:?}"),
        Op::While { condition, body } => write!(f, ", condition={}, body={}", condition.name, body.name),
        Op::Scan(Scan { body, carried, stacked, length, reverse }) => {
            write!(f, ", carried={carried}, stacked={stacked}, length={length}, reverse={reverse}, body={}", body.name)
        }
        Op::Composite(Composite { definition, kernel, .. }) => {
            write!(f, ", definition={}", definition.name)?;
            kernel.as_ref().map_or(Ok(()), |kernel| write!(f, ", kernel={:?}", kernel.target))
        }
        Op::GetTupleElement { index } => write!(f, ", index={index}"),
        Op::AllReduce { reduction } => write!(f, ", {reduction}"),
        Op::AllGather { dimension, replicas } | Op::ReduceScatter { dimension, replicas } => {
            write!(f, ", dimension={dimension}, replicas={replicas}")
        }
        // Opcode, shape and operands are the whole operation.
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

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Comparison::Eq => "Eq",
            Comparison::Ne => "Ne",
            Comparison::Lt => "Lt",
            Comparison::Le => "Le",
            Comparison::Gt => "Gt",
            Comparison::Ge => "Ge",
        })
    }
}

impl fmt::Display for Reduction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reduction::Sum => "Sum",
            Reduction::Max => "Max",
            Reduction::Min => "Min",
            Reduction::And => "And",
            Reduction::Or => "Or",
        })
    }
}

impl fmt::Display for DotDimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch={:?}x{:?}, ", self.lhs_batch, self.rhs_batch)?;
        write!(f, "contracting={:?}x{:?}", self.lhs_contracting, self.rhs_contracting)
    }
}

impl fmt::Display for GatherDimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset={:?}, collapsed={:?}, ", self.offset_dims, self.collapsed_slice_dims)?;
        write!(f, "map={:?}, vector={}, ", self.start_index_map, self.index_vector_dim)?;
        write!(f, "sizes={:?}", self.slice_sizes)
    }
}

impl fmt::Display for ScatterDimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "window={:?}, inserted={:?}, ", self.update_window_dims, self.inserted_window_dims)?;
        write!(f, "map={:?}, vector={}", self.scatter_dims_to_operand_dims, self.index_vector_dim)
    }
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
