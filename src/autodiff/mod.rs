//! Reverse-mode differentiation. Callers ask for *gradients*; the backward pass propagates *cotangents*.
//!
//! [`gradients`] runs while the graph is built. It walks the nodes from the loss backwards. For every node between a
//! requested tensor and the loss it appends nodes that compute the cotangents of the operands from that of the result,
//! by the rules in [`vjp`]. The result is an ordinary graph that can be printed, evaluated, lowered and differentiated.
//!
//! A cotangent has the dimensions of its value, but may have another type. A dot rounds the cotangent of a bf16 activation
//! to bf16, but not that of a bf16 weight: it is the f32 accumulation. So the gradient of an f32 weight that is converted to
//! bf16 for a matmul is never rounded.
//!
//! The backward pass reads two kinds of forward values. A *kept* value is the node of the forward pass, which stays in
//! memory until the backward pass has read it. A *recomputed* value, built under [`Graph::recomputed`], is computed again
//! in the backward pass from the inputs of its region (activation checkpointing).
//!
//! The backward pass of a scan is a scan in the opposite direction (`scan.rs`). What it reads of the forward iterations becomes
//! stacked outputs of the forward scan (`residuals.rs`).

mod convolution;
mod residuals;
mod scan;
pub mod vjp;

use std::collections::HashMap;
use std::sync::Arc;

use crate::graph::{Graph, NodeId, Op, Recomputed, Tensor};
use crate::shape::Shape;

/// Appends the gradients of the scalar `loss` with respect to each tensor of `wrt`, in that tensor's shape and type.
///
/// The gradient is zero for a tensor that the loss does not depend on, or depends on only through operations whose
/// derivative is zero. On several replicas the differentiated loss is the sum of the replicas' losses; see the rules of
/// the collectives in [`vjp`].
///
/// # Panics
/// If `loss` is not a floating-point scalar, a tensor of `wrt` is not floating-point, or a `while` lies between the two.
/// These are bugs in the code that builds the graph.
#[track_caller]
pub fn gradients<'g>(loss: Tensor<'g>, wrt: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    let shape = loss.shape();
    assert!(shape.dtype.is_float() && shape.rank() == 0, "the loss must be a floating-point scalar, got {shape}");
    let found = cotangents(loss.graph(), &[(loss, loss.filled(1.0))], wrt, wrt);
    wrt.iter().zip(found).map(|(t, ct)| ct.map_or_else(|| t.filled(0.0), |ct| ct.convert(t.dtype()))).collect()
}

/// Appends the cotangents of `wrt` from those of results, given as (result, cotangent) pairs. A cotangent has any floating-point
/// type; None is zero. Those of `wrt` that are among `weights` count as weights.
#[track_caller]
fn cotangents<'g>(
    graph: &'g Graph,
    results: &[(Tensor<'g>, Tensor<'g>)],
    wrt: &[Tensor<'g>],
    weights: &[Tensor<'g>],
) -> Vec<Option<Tensor<'g>>> {
    let Backward { depends, constant, weight } = Backward::survey(graph, results, wrt, weights);
    let mut forward = ForwardValues {
        graph,
        constant,
        weight,
        first_cotangent: HashMap::new(),
        copies: HashMap::new(),
        inputs: HashMap::new(),
    };
    // By node and, for a tuple, by element.
    let mut cotangents: HashMap<(NodeId, usize), Tensor<'g>> = HashMap::new();
    for &(result, cotangent) in results {
        let sum = cotangents.entry((result.id(), 0));
        sum.and_modify(|others| *others = wider(*others, cotangent)).or_insert(cotangent);
    }

    for id in (0..depends.len()).rev().map(|i| NodeId(i as u32)) {
        let node = graph.node(id);
        let found: Vec<Option<Tensor<'g>>> =
            (0..node.shape.arrays().len()).map(|element| cotangents.get(&(id, element)).copied()).collect();
        let reached = found.iter().any(Option::is_some);
        if !reached || !node.inputs.iter().any(|input| depends[input.index()]) {
            continue;
        }
        graph.in_scope(backward_scope(&node.scope), || {
            // These pass on a cotangent of any type, for weights also those that move elements, so that the gradients of rounded
            // weights are not rounded. Every other rule computes in the type of its node.
            let typed = |(ct, shape): (Option<Tensor<'g>>, &Shape)| match node.op {
                Op::Convert { .. } | Op::Scan(_) | Op::GetTupleElement { .. } => ct,
                Op::Concatenate { .. } | Op::Reshape { .. } if forward.weight[id.index()] => ct,
                _ => ct.map(|ct| ct.convert(shape.dtype)),
            };
            let of_results = found.into_iter().zip(node.shape.arrays()).map(typed).collect();
            let element = if let Op::GetTupleElement { index } = node.op { index } else { 0 };
            let mut rule = vjp::Rule { id, node: &node, of_results, depends: &depends, forward: &mut forward };
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
    wrt.iter().map(|t| cotangents.get(&(t.id(), 0)).copied()).collect()
}

/// Adds two cotangents of one value in the wider of their types.
fn wider<'g>(a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
    if a.dtype().size() >= b.dtype().size() { a + b.convert(a.dtype()) } else { a.convert(b.dtype()) + b }
}

/// Returns the scope of the nodes that differentiate a node of scope `forward`.
fn backward_scope(forward: &str) -> Arc<str> {
    match forward {
        "" => "gradients".into(),
        scope => format!("gradients/{scope}").into(),
    }
}

/// Properties of every node up to the last result, by node index.
struct Backward {
    /// The node is a requested tensor or computed from one, and has a derivative.
    depends: Vec<bool>,
    /// The node is computed from constants alone.
    constant: Vec<bool>,
    /// The node is a weight, or computed from weights and constants alone: a weight, as the model reads it.
    weight: Vec<bool>,
}

impl Backward {
    #[track_caller]
    fn survey<'g>(
        graph: &'g Graph,
        results: &[(Tensor<'g>, Tensor<'g>)],
        wrt: &[Tensor<'g>],
        weights: &[Tensor<'g>],
    ) -> Backward {
        let len = results.iter().map(|(result, _)| result.id().index() + 1).max().unwrap_or(0);
        let marked = |tensors: &[Tensor<'g>]| {
            let mut marks = vec![false; len];
            for tensor in tensors {
                assert!(tensor.dtype().is_float(), "gradients require floating-point tensors, got {tensor:?}");
                assert!(std::ptr::eq(tensor.graph(), graph), "{tensor:?} and the loss belong to different graphs");
                if let Some(mark) = marks.get_mut(tensor.id().index()) {
                    *mark = true;
                }
            }
            marks
        };
        let (mut depends, mut constant, mut weight) = (marked(wrt), vec![false; len], marked(weights));
        for i in 0..len {
            let node = graph.node(NodeId(i as u32));
            let differentiable = node.shape.arrays().iter().any(|shape| shape.dtype.is_float());
            depends[i] |= differentiable && node.inputs.iter().any(|input| depends[input.index()]);
            constant[i] =
                !matches!(node.op, Op::Parameter { .. }) && node.inputs.iter().all(|input| constant[input.index()]);
            weight[i] |= node.inputs.iter().any(|input| weight[input.index()])
                && node.inputs.iter().all(|input| weight[input.index()] || constant[input.index()]);
        }
        Backward { depends, constant, weight }
    }
}

/// The forward values that the backward pass reads.
///
/// A rule reads the forward node itself, unless that node lies in a recomputed region. Then it reads a copy, built on
/// first use together with the nodes of the region that it depends on. Inputs of the region from outside are kept; they
/// enter the copy through an [`Op::OptimizationBarrier`], one for each region and value, because XLA would otherwise
/// find copy and original equal and merge them. The barrier also depends on the first cotangent that reached the region:
/// otherwise XLA could compute the copies of all regions early and hold them in memory. A value computed from constants
/// alone is used directly, as it has no input that a barrier could hide.
struct ForwardValues<'g> {
    graph: &'g Graph,
    constant: Vec<bool>,
    weight: Vec<bool>,
    /// The cotangent for which a value of the region was first read.
    first_cotangent: HashMap<Recomputed, Tensor<'g>>,
    copies: HashMap<NodeId, Tensor<'g>>,
    inputs: HashMap<(Recomputed, NodeId), Tensor<'g>>,
}

impl<'g> ForwardValues<'g> {
    /// Returns the value of `id` for the derivative of a node in the region `reader` with cotangent `cotangent`.
    fn read(&mut self, id: NodeId, reader: Option<Recomputed>, cotangent: Tensor<'g>) -> Tensor<'g> {
        // A value that a region reads from another region is an input, hence kept: recomputation never cascades.
        match reader.or(self.graph.node(id).recomputed) {
            Some(region) => {
                self.first_cotangent.entry(region).or_insert(cotangent);
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
            let cotangent = self.first_cotangent[&region];
            return *self
                .inputs
                .entry((region, id))
                .or_insert_with(|| graph.tensor(id).optimization_barrier_after(cotangent));
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

// The values of every rule are tested in `tests/it/gradients.rs`, the types here.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DotDimensions;
    use crate::shape::DType;

    #[test]
    fn backward_dots_keep_operand_and_accumulation_types() {
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
        // The dots produce the gradients of activations [..., K] and weights [K, N] without a transposition.
        assert!(!computation.nodes.iter().any(|node| matches!(node.op, Op::Transpose { .. })));
    }

    #[test]
    fn dots_round_cotangents_of_activations_but_not_gradients_of_weights() {
        let graph = Graph::new("rounded");
        let x = graph.parameter("x", Shape::new(DType::BF16, [8, 4]));
        let [v, w] = ["v", "w"].map(|name| graph.parameter(name, Shape::new(DType::F32, [4, 4])));
        // A scaled weight is a weight.
        let product = |x: Tensor<'_>, w: Tensor<'_>| x.matmul((w * 0.5).convert(DType::BF16), DType::F32).id();
        let hidden = graph.tensor(product(x, v)).tanh().convert(DType::BF16);
        let loss = graph.tensor(product(hidden, w)).tanh().sum();
        let computation = graph.finish(&gradients(loss, &[v, w]));
        let dots: Vec<usize> = (0..computation.nodes.len())
            .filter(|&i| matches!(computation.nodes[i].op, Op::DotGeneral { .. }))
            .collect();
        let rounded = |dot: &&usize| {
            let users = computation.nodes.iter().filter(|node| node.inputs.contains(&NodeId(**dot as u32)));
            users.clone().count() > 0 && users.clone().all(|node| matches!(node.op, Op::Convert { dtype: DType::BF16 }))
        };
        // Backward: w, hidden, v. The forward products are read in f32, and the gradients are results.
        assert_eq!((dots.len(), dots.iter().filter(rounded).count()), (5, 1));
        // The gradients are f32 products, scaled.
        for &output in &computation.outputs {
            let scaled = &computation.node(output).inputs;
            assert!(scaled.iter().any(|&x| matches!(computation.node(x).op, Op::DotGeneral { dtype: DType::F32, .. })));
        }
    }

    #[test]
    fn gradients_of_joined_weights_are_not_rounded() {
        let graph = Graph::new("joined");
        let x = graph.parameter("x", Shape::new(DType::BF16, [8, 4]));
        let weights = ["v", "w"].map(|name| graph.parameter(name, Shape::new(DType::F32, [4, 4])));
        let joined = graph.concatenate(&weights.map(|weight| weight.convert(DType::BF16)), 1);
        let loss = x.matmul(joined, DType::F32).tanh().sum();
        let computation = graph.finish(&gradients(loss, &weights));
        for &output in &computation.outputs {
            assert!(matches!(computation.node(output).op, Op::Slice { .. }), "rounded: {:?}", computation.node(output));
        }
    }

    #[test]
    fn gradient_of_a_weight_rounded_to_bf16_is_not_rounded() {
        let graph = Graph::new("master_weights");
        let x = graph.parameter("x", Shape::new(DType::BF16, [2, 8, 4]));
        // [out, in], the layout of linear layers.
        let w = graph.parameter("w", Shape::new(DType::F32, [16, 4]));
        let by_rows = DotDimensions { lhs_contracting: vec![2], rhs_contracting: vec![1], ..Default::default() };
        let y = x.dot_general(w.convert(DType::BF16), by_rows, DType::F32);
        let gradient = gradients(y.tanh().sum(), &[w])[0];
        let computation = graph.finish(&[gradient]);
        let producer = &computation.nodes[computation.outputs[0].index()];
        assert!(matches!(producer.op, Op::DotGeneral { dtype: DType::F32, .. }), "rounded or transposed: {producer:?}");
    }
}
