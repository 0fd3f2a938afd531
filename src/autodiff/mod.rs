//! Reverse-mode differentiation: *gradients* are asked for, *cotangents* are what flows.
//!
//! [`gradients`] runs while the graph is built. It walks the nodes from the loss backwards and appends, for every node
//! that lies between a requested tensor and the loss, the nodes that carry the loss's derivative from the node's result
//! to its operands (`vjp.rs`, one rule an operation). The result is an ordinary graph: it is printed, evaluated, lowered
//! and differentiated again like any other.
//!
//! A cotangent has its value's dimensions. Its type may differ: a dot of bf16 operands hands back what it accumulated in
//! f32, and where the operand was converted from an f32 weight, the weight's gradient is never rounded.
//!
//! Two kinds of forward value are told apart. A *kept* value is the forward pass's own node, held in memory until the
//! backward pass has read it. A *recomputed* one, made under [`Graph::recomputed`], is built again for the backward pass
//! from what enters its region; see [`ForwardValues`].

mod vjp;

use std::collections::HashMap;
use std::sync::Arc;

use crate::graph::{Graph, NodeId, Op, Recomputed, Tensor};
use crate::shape::Shape;

/// The derivatives of the scalar `loss` with respect to each tensor of `wrt`, of that tensor's shape and type.
///
/// A tensor that the loss does not depend on (or only through operations whose derivative is zero) has the gradient
/// zero. Over several replicas the loss differentiated is the sum of the replicas' losses; see the collectives' rules.
///
/// # Panics
/// These are faults of the caller's graph, never of a user: a loss that is not a floating-point scalar, a tensor of `wrt`
/// that is not floating-point, a `while` between the two.
#[track_caller]
pub fn gradients<'g>(loss: Tensor<'g>, wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    let graph = loss.graph();
    let Backward { depends, constant } = Backward::survey(loss, wrt);
    let mut forward =
        ForwardValues { graph, constant, begun: HashMap::new(), copies: HashMap::new(), inputs: HashMap::new() };
    // Of each array that a node yields: one, or the elements of a tuple.
    let mut cotangents: HashMap<(NodeId, usize), Tensor<'g>> = HashMap::new();
    cotangents.insert((loss.id(), 0), loss.filled(1.0));

    for id in (0..depends.len()).rev().map(|i| NodeId(i as u32)) {
        let node = graph.node(id);
        let found: Vec<Option<Tensor<'g>>> =
            (0..node.shape.arrays().len()).map(|element| cotangents.get(&(id, element)).copied()).collect();
        let reached = found.iter().any(Option::is_some);
        if !reached || !node.inputs.iter().any(|input| depends[input.index()]) {
            continue;
        }
        graph.in_scope(backward_scope(&node.scope), || {
            // A conversion takes a cotangent as it comes; every other rule computes in its node's type.
            let typed = |(ct, shape): (Option<Tensor<'g>>, &Shape)| match node.op {
                Op::Convert { .. } => ct,
                _ => ct.map(|ct| ct.convert(shape.dtype)),
            };
            let of_results = found.into_iter().zip(node.shape.arrays()).map(typed).collect();
            let element = if let Op::GetTupleElement { index } = node.op { index } else { 0 };
            let mut rule = vjp::Rule { id, node: &node, of_results, forward: &mut forward };
            for (i, (&input, contribution)) in node.inputs.iter().zip(rule.cotangents()).enumerate() {
                let Some(contribution) = contribution.filter(|_| depends[input.index()]) else { continue };
                let (found, required) = (contribution.shape(), graph.node(input).shape.arrays()[element].clone());
                assert!(
                    found.dims == required.dims && found.dtype.is_float(),
                    "the derivative of {id} = {} for operand {i} requires {required}, got {found}",
                    node.op.name()
                );
                let sum = cotangents.entry((input, element));
                sum.and_modify(|others| *others = wider(*others, contribution)).or_insert(contribution);
            }
        });
    }
    let cotangent = |t: &Tensor<'g>| cotangents.get(&(t.id(), 0)).copied();
    wrt.iter().map(|t| cotangent(t).map_or_else(|| t.filled(0.0), |ct| ct.convert(t.dtype()))).collect()
}

/// The sum of two cotangents of one value, in the wider of their types.
fn wider<'g>(a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
    if a.dtype().size() >= b.dtype().size() { a + b.convert(a.dtype()) } else { a.convert(b.dtype()) + b }
}

/// The scope of the nodes that differentiate a node of scope `forward`.
fn backward_scope(forward: &str) -> Arc<str> {
    match forward {
        "" => "gradients".into(),
        scope => format!("gradients/{scope}").into(),
    }
}

/// What the backward walk must know of every node up to the loss, by node index.
struct Backward {
    /// It is a requested tensor or computed from one, and a derivative can flow through it.
    depends: Vec<bool>,
    /// It is made from constants alone.
    constant: Vec<bool>,
}

impl Backward {
    #[track_caller]
    fn survey<'g>(loss: Tensor<'g>, wrt: &[Tensor<'g>]) -> Backward {
        let shape = loss.shape();
        assert!(shape.dtype.is_float() && shape.rank() == 0, "a loss must be a floating-point scalar, got {shape}");
        let len = loss.id().index() + 1;
        let mut depends = vec![false; len];
        for tensor in wrt {
            assert!(tensor.dtype().is_float(), "a gradient is with respect to floating-point numbers, got {tensor:?}");
            assert!(std::ptr::eq(tensor.graph(), loss.graph()), "{tensor:?} belongs to another graph than the loss");
            if let Some(requested) = depends.get_mut(tensor.id().index()) {
                *requested = true;
            }
        }
        let mut constant = vec![false; len];
        for i in 0..len {
            let node = loss.graph().node(NodeId(i as u32));
            let differentiable = node.shape.arrays().iter().any(|shape| shape.dtype.is_float());
            depends[i] |= differentiable && node.inputs.iter().any(|input| depends[input.index()]);
            constant[i] =
                !matches!(node.op, Op::Parameter { .. }) && node.inputs.iter().all(|input| constant[input.index()]);
        }
        Backward { depends, constant }
    }
}

/// Forward values as the backward pass reads them.
///
/// What a rule asks for is the forward node itself, unless that node lies in a recomputed region. Then it is a copy,
/// made on first demand together with the region's nodes it rests on. What enters the region from outside is kept, and
/// enters the copy through an [`Op::OptimizationBarrier`], one for each region and value: or the compiler would find
/// copy and original equal and merge them. The barrier also waits for the cotangent with which the backward walk came to
/// the region: or the compiler could make the copies of all regions early and hold them, which is what they are to
/// avoid. A value made from constants alone is used as it is: it has no input that a barrier could hide.
struct ForwardValues<'g> {
    graph: &'g Graph,
    constant: Vec<bool>,
    /// The first cotangent that a value of the region was read for.
    begun: HashMap<Recomputed, Tensor<'g>>,
    copies: HashMap<NodeId, Tensor<'g>>,
    inputs: HashMap<(Recomputed, NodeId), Tensor<'g>>,
}

impl<'g> ForwardValues<'g> {
    /// The value of `id` for the derivative of a node that lies in `reader` and has the cotangent `cotangent`.
    fn read(&mut self, id: NodeId, reader: Option<Recomputed>, cotangent: Tensor<'g>) -> Tensor<'g> {
        // What a region reads from another is an input of its own, hence kept: recomputation never cascades.
        match reader.or(self.graph.node(id).recomputed) {
            Some(region) => {
                self.begun.entry(region).or_insert(cotangent);
                self.recompute(id, region)
            }
            None => self.graph.tensor(id),
        }
    }

    fn recompute(&mut self, id: NodeId, region: Recomputed) -> Tensor<'g> {
        let graph = self.graph;
        if self.constant[id.index()] {
            return graph.tensor(id);
        }
        let node = graph.node(id);
        if node.recomputed != Some(region) || matches!(node.op, Op::Parameter { .. }) {
            let begun = self.begun[&region];
            return *self.inputs.entry((region, id)).or_insert_with(|| graph.tensor(id).not_before(begun));
        }
        if let Some(&copy) = self.copies.get(&id) {
            return copy;
        }
        let inputs = node.inputs.iter().map(|&input| self.recompute(input, region).id()).collect();
        let copy = graph.in_scope(backward_scope(&node.scope), || graph.add_ids(node.op, inputs));
        self.copies.insert(id, copy);
        copy
    }
}

// That every rule's values are right is shown in `tests/gradients.rs`; here, of which types they are.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DotDimensions;
    use crate::shape::DType;

    #[test]
    fn the_backward_dots_keep_operand_and_accumulation_types() {
        let graph = Graph::new("mixed");
        let x = graph.parameter("x", Shape::new(DType::BF16, [2, 8, 4]));
        let w = graph.parameter("w", Shape::new(DType::BF16, [4, 16]));
        let found = gradients(x.matmul(w, DType::F32).tanh().sum(), &[x, w]);
        assert_eq!([found[0].shape(), found[1].shape()], [x.shape(), w.shape()]);
        let computation = graph.finish(&found);
        let mut dots = 0;
        for node in computation.nodes.iter().filter(|node| matches!(node.op, Op::DotGeneral { .. })) {
            dots += 1;
            assert!(matches!(node.op, Op::DotGeneral { dtype: DType::F32, .. }));
            assert!(node.inputs.iter().all(|&input| computation.array_shape(input).dtype == DType::BF16));
        }
        assert_eq!(dots, 3, "one forward, two backward");
        // Gradients of activations [..., K] and of weights [K, N] come out of the dots as they are needed.
        assert!(!computation.nodes.iter().any(|node| matches!(node.op, Op::Transpose { .. })));
    }

    #[test]
    fn the_gradient_of_a_weight_that_was_rounded_is_not() {
        let graph = Graph::new("master_weights");
        let x = graph.parameter("x", Shape::new(DType::BF16, [2, 8, 4]));
        // [out, in], as linear layers keep it.
        let w = graph.parameter("w", Shape::new(DType::F32, [16, 4]));
        let by_rows = DotDimensions { lhs_contracting: vec![2], rhs_contracting: vec![1], ..Default::default() };
        let y = x.dot_general(w.convert(DType::BF16), by_rows, DType::F32);
        let gradient = gradients(y.tanh().sum(), &[w])[0];
        let computation = graph.finish(&[gradient]);
        let made_by = &computation.nodes[computation.outputs[0].index()];
        assert!(matches!(made_by.op, Op::DotGeneral { dtype: DType::F32, .. }), "rounded or transposed: {made_by:?}");
    }
}
