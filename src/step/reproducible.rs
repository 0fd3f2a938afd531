//! Sums whose bits do not depend on the order of addition, for devices that add in the order in which threads arrive.
//!
//! A GPU computes a scatter that adds with atomic operations, so f32 rounding differs from run to run. Rounding each update
//! first, to a multiple of one small unit, makes all sums exact in f64, and exact sums have no order (Demmel and Nguyen,
//! "Fast reproducible floating-point summation", 2013):
//!
//! ```text
//! p = the largest power of two ≤ max |x|        b = log₂ of the number of updates, rounded up, at least 2
//! c = 1.5 · 2ᵇ · p                              (x + c) − c = x to a multiple of 2ᵇ⁻⁵² · p
//! ```
//! 2ᵇ updates below 2p add up to less than 2⁵³ units, which f64 holds exactly. The unit depends on the largest update of the
//! tensor: of 32,768 updates it is at least 2³⁷ times smaller than that one. Updates down to 2⁻¹³ of the largest keep the 24
//! bits of f32, smaller ones fewer, and those below 2⁻³⁸ become zero.
//!
//! The cost: one maximum over the updates, and sums of 8 bytes instead of 4 until they are converted. For the word embeddings of
//! BERT-Large (30,522 × 1,024) and a micro-batch of 32,768 tokens, the kernels compiled for an H200 move 1.4 GB instead of 0.3,
//! 0.2 ms at the published bandwidth. XLA's own deterministic scatter sorts all 33.5 million elements by comparisons, which
//! takes more than a hundred passes over 0.4 GB.

use std::sync::Arc;

use crate::graph::{Composite, Computation, Graph, Op, Scan, ScatterDimensions, Tensor};
use crate::shape::DType;

/// The bits of the exponent of an f32. An f32 with these bits alone is a power of two.
const EXPONENT: f64 = 0x7f80_0000_u32 as f64;

/// Returns `computation` with every scatter of f32 numbers, also those in loops, in a form that gives the same bits in any order
/// of addition.
pub(super) fn with_reproducible_scatters(computation: &Computation) -> Computation {
    let graph = Graph::new(computation.name.clone());
    let mut values: Vec<Tensor<'_>> = Vec::with_capacity(computation.nodes.len());
    for node in &computation.nodes {
        let inputs: Vec<Tensor<'_>> = node.inputs.iter().map(|input| values[input.index()]).collect();
        let value = graph.in_scope(node.scope.clone(), || match (&node.op, inputs.as_slice()) {
            (Op::Parameter { name, shape, .. }, _) => graph.parameter(name.clone(), shape.clone()),
            (Op::ScatterAdd(dimensions), &[operand, indices, updates]) if updates.dtype() == DType::F32 => {
                scatter(operand, indices, updates, dimensions)
            }
            (Op::While { condition, body }, _) => {
                let body = Arc::new(with_reproducible_scatters(body));
                graph.add(Op::While { condition: condition.clone(), body }, &inputs)
            }
            (Op::Scan(scan), _) => {
                let body = Arc::new(with_reproducible_scatters(&scan.body));
                graph.add(Op::Scan(Scan { body, ..scan.clone() }), &inputs)
            }
            (Op::Composite(composite), _) => {
                let definition = Arc::new(with_reproducible_scatters(&composite.definition));
                graph.add(Op::Composite(Composite { definition, ..composite.clone() }), &inputs)
            }
            (op, _) => graph.add(op.clone(), &inputs),
        });
        values.push(value);
    }
    let outputs: Vec<Tensor<'_>> = computation.outputs.iter().map(|output| values[output.index()]).collect();
    graph.finish(&outputs)
}

/// Appends `operand` + the sums of `updates` (both f32), which are exact before their one rounding to f32.
fn scatter<'g>(
    operand: Tensor<'g>,
    indices: Tensor<'g>,
    updates: Tensor<'g>,
    dimensions: &ScatterDimensions,
) -> Tensor<'g> {
    let graph = operand.graph();
    let all: Vec<usize> = (0..updates.dims().len()).collect();
    let bits = updates.abs().reduce_max(&all).bitcast_convert(DType::U32);
    let power = bits.and(bits.filled(EXPONENT)).bitcast_convert(DType::F32).convert(DType::F64);
    let count = indices.shape().elements().next_power_of_two().max(4);
    let c = (power * (1.5 * count as f64)).broadcast_like(updates, &[]);
    let rounded = (updates.convert(DType::F64) + c) - c;
    let zeros = graph.full(0.0, operand.shape().with_dtype(DType::F64));
    operand + zeros.scatter_add(indices, rounded, dimensions.clone()).convert(DType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::evaluate;
    use crate::rng::Key;
    use crate::shape::{HostTensor, Shape};

    /// A table of 3 rows with the gradient of 64 lookups, in a loop of one iteration.
    fn computation() -> Computation {
        let graph = Graph::new("scatter");
        let ids = graph.parameter("ids", Shape::new(DType::S32, [64]));
        let updates = graph.parameter("updates", Shape::new(DType::F32, [64, 2]));
        let zeros = graph.full(1.0, Shape::new(DType::F32, [3, 2]));
        let dimensions = ScatterDimensions {
            update_window_dims: vec![1],
            inserted_window_dims: vec![0],
            scatter_dims_to_operand_dims: vec![0],
            index_vector_dim: 1,
        };
        let state = [graph.scalar(0.0, DType::S32), ids, updates, zeros];
        let looped = graph.while_loop(
            "loop",
            &state,
            |_, state| state[0].lt(state[0].filled(1.0)),
            |_, state| {
                vec![state[0] + 1.0, state[1], state[2], state[3].scatter_add(state[1], state[2], dimensions.clone())]
            },
        );
        graph.finish(&looped[3..])
    }

    /// Returns the sums of updates of very different sizes, in the order of `order`.
    fn sums(computation: &Computation, order: &[usize]) -> Vec<f64> {
        let mut draws = Key::new(3).stream();
        let rows: Vec<(f64, [f64; 2])> = (0..order.len())
            .map(|i| (f64::from((i % 3) as u32), [0; 2].map(|_| draws.normal() * 2f64.powi((i % 20) as i32 - 10))))
            .collect();
        let ids: Vec<f64> = order.iter().map(|&i| rows[i].0).collect();
        let updates: Vec<f64> = order.iter().flat_map(|&i| rows[i].1).collect();
        let arguments = [
            HostTensor::from_f64(Shape::new(DType::S32, [order.len()]), &ids),
            HostTensor::from_f64(Shape::new(DType::F32, [order.len(), 2]), &updates),
        ];
        evaluate(computation, &arguments).unwrap()[0].to_f64()
    }

    #[test]
    fn sums_of_scatters_do_not_depend_on_the_order_of_the_updates() {
        let plain = computation();
        let reproducible = with_reproducible_scatters(&plain);
        assert_eq!(reproducible.parameter_shapes(), plain.parameter_shapes());
        let forward: Vec<usize> = (0..64).collect();
        let backward: Vec<usize> = forward.iter().rev().copied().collect();
        let expected = sums(&reproducible, &forward);
        assert_eq!(sums(&reproducible, &backward), expected);
        for (sum, plain) in expected.iter().zip(sums(&plain, &forward)) {
            assert!((sum - plain).abs() <= 1e-5 * plain.abs().max(1.0), "{sum} is not {plain}");
        }
    }

    #[test]
    fn zeros_and_numbers_that_are_not_finite_keep_their_meaning() {
        let reproducible = with_reproducible_scatters(&computation());
        let with = |x: f64| {
            let ids = HostTensor::from_f64(Shape::new(DType::S32, [64]), &[2.0; 64]);
            let updates = HostTensor::from_f64(Shape::new(DType::F32, [64, 2]), &[x; 128]);
            evaluate(&reproducible, &[ids, updates]).unwrap()[0].to_f64()
        };
        assert_eq!(with(0.0), [1.0; 6]);
        assert_eq!(with(0.5), [1.0, 1.0, 1.0, 1.0, 33.0, 33.0]);
        for x in [f64::NAN, f64::INFINITY] {
            assert!(with(x)[4..].iter().all(|sum| !sum.is_finite()), "{x}");
        }
    }
}
