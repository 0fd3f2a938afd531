//! The operations that HLO does not have, as those that it has.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::{Computation, Graph, NodeId, Op, Scan, ScanInputs, ScanOutputs, Tensor};
use crate::shape::{DType, HostTensor, Shape};

/// Returns `computation` with the operations of HLO alone, also in its loops: a scan becomes an [`Op::While`] that slices its
/// stacked operands and writes its outputs into stacked arrays, and a composite without a kernel becomes its definition.
pub fn expanded(computation: &Computation) -> Cow<'_, Computation> {
    if !is_expandable(computation) {
        return Cow::Borrowed(computation);
    }
    let graph = Graph::new(computation.name.clone());
    let parameter = |&id: &NodeId| match &computation.node(id).op {
        Op::Parameter { name, shape, .. } => graph.parameter(name.clone(), shape.clone()),
        op => unreachable!("{} is listed among the parameters", op.name()),
    };
    let parameters: Vec<Tensor<'_>> = computation.parameters.iter().map(parameter).collect();
    Cow::Owned(graph.finish(&replay(computation, &graph, &parameters, &"".into())))
}

impl Graph {
    /// Appends the nodes of `computation`, whose parameters are `arguments`, in the present scope, and returns its outputs.
    pub fn inlined<'g>(&'g self, computation: &Computation, arguments: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        replay(computation, self, arguments, &self.scope_of_next())
    }
}

fn is_expandable(computation: &Computation) -> bool {
    computation.nodes.iter().any(|node| match &node.op {
        Op::Scan(_) => true,
        Op::Composite(composite) => composite.kernel.is_none(),
        Op::While { condition, body } => is_expandable(condition) || is_expandable(body),
        _ => false,
    })
}

/// Appends the nodes of `computation`, whose parameters are `arguments`, and returns its outputs. Nodes without a scope are in the
/// scope `outer`.
fn replay<'g>(
    computation: &Computation,
    graph: &'g Graph,
    arguments: &[Tensor<'g>],
    outer: &Arc<str>,
) -> Vec<Tensor<'g>> {
    let mut values: Vec<Tensor<'g>> = Vec::with_capacity(computation.nodes.len());
    let mut results: HashMap<NodeId, Vec<Tensor<'g>>> = HashMap::new();
    for (i, node) in computation.nodes.iter().enumerate() {
        let inputs: Vec<Tensor<'g>> = node.inputs.iter().map(|input| values[input.index()]).collect();
        let scope = if node.scope.is_empty() { outer } else { &node.scope };
        let value = graph.in_scope(scope.clone(), || match &node.op {
            Op::Parameter { index, .. } => arguments[*index],
            Op::Scan(scan) => {
                let (tuple, elements) = as_loop(scan, graph, &inputs);
                results.insert(NodeId(i as u32), elements);
                tuple
            }
            Op::Composite(composite) if composite.kernel.is_none() => {
                let elements = replay(&composite.definition, graph, &inputs, scope);
                let first = elements[0];
                results.insert(NodeId(i as u32), elements);
                first
            }
            Op::GetTupleElement { index } if results.contains_key(&node.inputs[0]) => results[&node.inputs[0]][*index],
            Op::While { condition, body } => {
                let [condition, body] = [condition, body].map(|inner| Arc::new(expanded(inner).into_owned()));
                graph.add(Op::While { condition, body }, &inputs)
            }
            op => graph.add(op.clone(), &inputs),
        });
        values.push(value);
    }
    computation.outputs.iter().map(|output| values[output.index()]).collect()
}

/// Appends a scan as a loop, and returns the loop and the results of the scan.
///
/// The state of the loop is (iteration; operands; stacked outputs).
fn as_loop<'g>(scan: &Scan, graph: &'g Graph, operands: &[Tensor<'g>]) -> (Tensor<'g>, Vec<Tensor<'g>>) {
    let slices: Vec<Shape> = scan.outputs(&scan.body.output_shapes()).stacked.into_iter().cloned().collect();
    let mut initial = vec![graph.scalar(0.0, DType::S32)];
    initial.extend(operands);
    initial.extend(scan.stacked_shapes(&slices).into_iter().map(|shape| graph.full(0.0, shape)));
    let first_output = 1 + operands.len();
    let last = graph.while_loop(
        &scan.body.name,
        &initial,
        |_, state| state[0].lt(state[0].filled(scan.length as f64)),
        |graph, state| {
            let number = if scan.reverse { (scan.length - 1) as f64 - state[0] } else { state[0] };
            let starts = |rank: usize| {
                let zero = graph.constant(HostTensor::scalar(0i32));
                [vec![number], vec![zero; rank]].concat()
            };
            let mut inputs = scan.inputs(&state[1..first_output]);
            let (constants, stacked) = (inputs.constants.clone(), inputs.stacked.clone());
            for tensor in &mut inputs.stacked {
                let dims = tensor.dims();
                let slice = [&[1], &dims[1..]].concat();
                *tensor = tensor.dynamic_slice(&starts(slice.len() - 1), &slice).reshape(&dims[1..]);
            }
            let mut results = scan.outputs(&replay(&scan.body, graph, &inputs.all(), &"".into()));
            for (slice, &stacked) in results.stacked.iter_mut().zip(&state[first_output..]) {
                let update = slice.reshape(&[&[1], &slice.dims()[..]].concat());
                *slice = stacked.dynamic_update_slice(update, &starts(slice.dims().len()));
            }
            let kept = ScanInputs { constants, carried: results.carried, stacked };
            [vec![state[0] + 1.0], kept.all(), results.stacked].concat()
        },
    );
    let carried = scan.inputs(&last[1..first_output]).carried;
    (last[0], ScanOutputs { carried, stacked: last[first_output..].to_vec() }.all())
}
