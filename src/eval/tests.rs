//! Compares the evaluator with results computed by hand or by Rust's own arithmetic. `tests/it/gradients.rs` and
//! `tests/plugin/backend.rs` cover the other operations.

use crate::eval::*;
use crate::graph::{DotDimensions, GatherDimensions, Graph, Reduction, ScatterDimensions, Tensor};
use crate::rng::{Key, threefry2x32};
use crate::shape::DType;

/// Evaluates `build` on parameters with the values `arguments`.
fn outputs(arguments: &[HostTensor], build: impl for<'g> FnOnce(&[Tensor<'g>]) -> Vec<Tensor<'g>>) -> Vec<Value> {
    let graph = Graph::new("test");
    let parameters: Vec<Tensor> =
        arguments.iter().enumerate().map(|(i, x)| graph.parameter(format!("p{i}"), x.shape().clone())).collect();
    evaluate(&graph.finish(&build(&parameters)), arguments).unwrap()
}

fn output(arguments: &[HostTensor], build: impl for<'g> FnOnce(&[Tensor<'g>]) -> Tensor<'g>) -> HostTensor {
    outputs(arguments, |x| vec![build(x)]).swap_remove(0).to_host()
}

#[test]
fn integers_wrap_in_their_width() {
    let x = HostTensor::new([3], &[u32::MAX, 0x8000_0001, 7]);
    let y = HostTensor::new([3], &[2u32, 0x8000_0001, 9]);
    let found = outputs(&[x, y], |p| vec![p[0] + p[1], p[0] * p[1], p[0] - p[1], p[0] / p[1], -p[1], p[0].not()]);
    let expected: [[u32; 3]; 6] = [
        [1, 2, 16],
        [u32::MAX - 1, 0x8000_0001u32.wrapping_mul(0x8000_0001), 63],
        [u32::MAX - 2, 0, u32::MAX - 1],
        [u32::MAX / 2, 1, 0],
        [u32::MAX - 1, 0x7fff_ffff, 9u32.wrapping_neg()],
        [0, 0x7fff_fffe, !7],
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.to_host().to_vec::<u32>().unwrap(), expected);
    }
    let big = HostTensor::new([1], &[0x9e37_79b9_7f4a_7c15u64]);
    let squared = output(&[big], |p| p[0] * p[0]);
    assert_eq!(squared.to_vec::<u64>().unwrap(), [0x9e37_79b9_7f4a_7c15u64.wrapping_mul(0x9e37_79b9_7f4a_7c15)]);
    let least = HostTensor::new([2], &[i32::MIN, -7]);
    let found =
        outputs(&[least], |p| vec![p[0].abs(), p[0] / p[0].filled(2.0), p[0].rem(p[0].filled(4.0)), p[0].sign()]);
    let found: Vec<Vec<i32>> = found.iter().map(|v| v.to_host().to_vec().unwrap()).collect();
    assert_eq!(found, [[i32::MIN, 7], [i32::MIN / 2, -3], [0, -3], [-1, -1]]);
}

#[test]
fn division_by_zero_and_overlong_shifts_follow_hlo() {
    let x = HostTensor::new([4], &[-5i32, 5, -5, 5]);
    let y = HostTensor::new([4], &[0i32, 31, 32, -1]);
    let found = outputs(&[x, y], |p| {
        let zero = p[0].filled(0.0);
        vec![p[0] / zero, p[0].rem(zero), p[0].shift_left(p[1]), p[0].shift_right_logical(p[1])]
    });
    let found: Vec<Vec<i32>> = found.iter().map(|v| v.to_host().to_vec().unwrap()).collect();
    assert_eq!(found, [[-1, -1, -1, -1], [-5, 5, -5, 5], [-5, i32::MIN, 0, 0], [-5, 0, 0, 0]]);
}

/// Threefry-2x32 in graph operations, the generator of dropout masks, has the bits of `rng`.
#[test]
fn threefry_in_a_graph_equals_threefry_in_rust() {
    fn rotate_left(x: Tensor<'_>, by: u32) -> Tensor<'_> {
        x.shift_left(x.filled(by as f64)).or(x.shift_right_logical(x.filled((32 - by) as f64)))
    }
    let mut stream = Key::new(3).stream();
    let [k0, k1, c0, c1]: [Vec<u32>; 4] = std::array::from_fn(|_| (0..100).map(|_| stream.next_u64() as u32).collect());
    let arguments = [&k0, &k1, &c0, &c1].map(|x| HostTensor::new([100], x));
    let found = outputs(&arguments, |p| {
        let parity = p[0].filled(0x1bd1_1bda as f64);
        let schedule = [p[0], p[1], parity.xor(p[0]).xor(p[1])];
        let (mut x, mut y) = (p[2] + schedule[0], p[3] + schedule[1]);
        for group in 0..5 {
            for rotation in [[13, 15, 26, 6], [17, 29, 16, 24]][group % 2] {
                x = x + y;
                y = rotate_left(y, rotation).xor(x);
            }
            x = x + schedule[(group + 1) % 3];
            y = y + schedule[(group + 2) % 3] + (group + 1) as f64;
        }
        vec![x, y]
    });
    let found: Vec<Vec<u32>> = found.iter().map(|v| v.to_host().to_vec().unwrap()).collect();
    for i in 0..100 {
        assert_eq!((found[0][i], found[1][i]), threefry2x32((k0[i], k1[i]), (c0[i], c1[i])));
    }
}

#[test]
fn bitcast_rounds_to_the_declared_type() {
    let x = HostTensor::new([3], &[1.0f32, -2.5, 1e-40]);
    let bits = output(std::slice::from_ref(&x), |p| p[0].bitcast_convert(DType::U32));
    assert_eq!(bits.to_vec::<u32>().unwrap(), [1.0f32, -2.5, 1e-40].map(f32::to_bits));
    assert_eq!(output(&[bits], |p| p[0].bitcast_convert(DType::F32)), x);
}

#[test]
fn floats_are_rounded_only_by_to_host() {
    let third = outputs(&[HostTensor::scalar(1.0f32)], |p| vec![(p[0] / 3.0).convert(DType::BF16)]);
    assert_eq!(third[0].to_f64(), [1.0 / 3.0]);
    assert_eq!(third[0].to_host().to_f64(), [half::bf16::from_f64(1.0 / 3.0).to_f64()]);
}

#[test]
fn conversions_truncate_saturate_and_wrap() {
    let x = HostTensor::new([4], &[-1.9f32, 1.9, 3e10, f32::NAN]);
    let found = outputs(&[x], |p| vec![p[0].convert(DType::S32), p[0].convert(DType::Pred)]);
    assert_eq!(found[0].to_f64(), [-1.0, 1.0, i32::MAX as f64, 0.0]);
    assert_eq!(found[1].to_f64(), [1.0, 1.0, 1.0, 1.0]);
    let x = HostTensor::new([2], &[-1i32, 300]);
    let found = outputs(&[x], |p| vec![p[0].convert(DType::U8), p[0].convert(DType::U64), p[0].convert(DType::F32)]);
    assert_eq!(found[0].to_f64(), [255.0, 44.0]);
    assert_eq!(found[1].to_host().to_vec::<u64>().unwrap(), [u64::MAX, 300]);
    assert_eq!(found[2].to_f64(), [-1.0, 300.0]);
}

#[test]
fn extrema_propagate_nan_and_empty_reductions_are_the_identity() {
    let x = HostTensor::new([2], &[f32::NAN, 1.0]);
    let found =
        outputs(&[x], |p| vec![p[0].maximum(p[0].filled(2.0)), p[0].reduce_max(&[0]), p[0].minimum(p[0].filled(0.0))]);
    assert!(found[0].to_f64()[0].is_nan() && found[1].scalar().is_nan() && found[2].to_f64()[0].is_nan());
    assert_eq!(found[0].to_f64()[1], 2.0);
    let none = HostTensor::zeros(Shape::new(DType::S32, [2, 0]));
    let found = outputs(&[none], |p| {
        [Reduction::Sum, Reduction::Max, Reduction::Min, Reduction::And, Reduction::Or]
            .map(|r| p[0].reduce(r, &[1]))
            .to_vec()
    });
    let expected = [0, i32::MIN, i32::MAX, -1, 0];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.to_host().to_vec::<i32>().unwrap(), [expected, expected]);
    }
}

#[test]
fn pad_slice_concatenate_and_transpose_move_elements() {
    let x = HostTensor::new([2, 3], &[1i32, 2, 3, 4, 5, 6]);
    let padded =
        output(std::slice::from_ref(&x), |p| p[0].pad(p[0].graph().scalar(9.0, DType::S32), &[1, 0], &[0, 1], &[0, 1]));
    assert_eq!(padded.shape().dims, [3, 6]);
    #[rustfmt::skip]
    assert_eq!(padded.to_vec::<i32>().unwrap(), [9, 9, 9, 9, 9, 9,  1, 9, 2, 9, 3, 9,  4, 9, 5, 9, 6, 9]);
    let sliced = output(std::slice::from_ref(&x), |p| p[0].slice(&[0, 0], &[2, 3], &[1, 2]));
    assert_eq!(sliced.to_vec::<i32>().unwrap(), [1, 3, 4, 6]);
    let joined = output(std::slice::from_ref(&x), |p| p[0].graph().concatenate(&[p[0], p[0].slice_in(1, 0, 1)], 1));
    assert_eq!(joined.to_vec::<i32>().unwrap(), [1, 2, 3, 1, 4, 5, 6, 4]);
    let transposed = output(&[x], |p| p[0].transpose(&[1, 0]));
    assert_eq!(transposed.to_vec::<i32>().unwrap(), [1, 4, 2, 5, 3, 6]);
}

#[test]
fn dynamic_starts_are_clamped() {
    let x = HostTensor::new([5], &[0i32, 1, 2, 3, 4]);
    for (start, slice) in [(-3, [0, 1, 2]), (1, [1, 2, 3]), (4, [2, 3, 4])] {
        let found = outputs(&[x.clone(), HostTensor::scalar(start)], |p| {
            let taken = p[0].dynamic_slice(&[p[1]], &[3]);
            vec![taken, p[0].dynamic_update_slice(taken * 10.0, &[p[1]])]
        });
        assert_eq!(found[0].to_host().to_vec::<i32>().unwrap(), slice);
        let expected: Vec<i32> = (0..5).map(|i| if slice.contains(&i) { 10 * i } else { i }).collect();
        assert_eq!(found[1].to_host().to_vec::<i32>().unwrap(), expected);
    }
}

#[test]
fn gather_clamps_and_scatter_drops_out_of_bounds_indices() {
    let table = HostTensor::new([3, 2], &[0.0f32, 1.0, 10.0, 11.0, 20.0, 21.0]);
    let rows = HostTensor::new([4], &[2i32, -1, 7, 1]);
    let found = output(&[table.clone(), rows.clone()], |p| p[0].take_rows(p[1]));
    assert_eq!(found.to_f64(), [20.0, 21.0, 0.0, 1.0, 20.0, 21.0, 10.0, 11.0]);
    let updates = HostTensor::new([4, 2], &[1.0f32, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0]);
    let found = output(&[table, rows, updates], |p| {
        let dimensions = ScatterDimensions {
            update_window_dims: vec![1],
            inserted_window_dims: vec![0],
            scatter_dims_to_operand_dims: vec![0],
            index_vector_dim: 1,
        };
        p[0].scatter_add(p[1], p[2], dimensions)
    });
    assert_eq!(found.to_f64(), [0.0, 1.0, 14.0, 16.0, 21.0, 22.0]);
}

#[test]
fn gather_reads_windows_at_index_vectors() {
    // x[i, j] = 10 i + j; windows of 1 × 2 at the columns of the indices, (row, column) = (2, 0), (0, 1).
    let x = HostTensor::new([3, 3], &[0i32, 1, 2, 10, 11, 12, 20, 21, 22]);
    let at = HostTensor::new([2, 2], &[2i32, 0, 0, 1]);
    let dimensions = GatherDimensions {
        offset_dims: vec![0],
        collapsed_slice_dims: vec![0],
        start_index_map: vec![0, 1],
        index_vector_dim: 0,
        slice_sizes: vec![1, 2],
    };
    let found = output(&[x, at], |p| p[0].gather(p[1], dimensions));
    assert_eq!(found.shape().dims, [2, 2]);
    assert_eq!(found.to_vec::<i32>().unwrap(), [20, 1, 21, 2]);
}

#[test]
fn dot_pairs_batch_and_contracting_dimensions() {
    let mut stream = Key::new(9).stream();
    let mut draw = |n: usize| (0..n).map(|_| stream.below(10) as i32).collect::<Vec<i32>>();
    let (x, y) = (draw(2 * 3 * 4), draw(4 * 2 * 5));
    let dimensions =
        DotDimensions { lhs_batch: vec![0], rhs_batch: vec![1], lhs_contracting: vec![2], rhs_contracting: vec![0] };
    let arguments = [HostTensor::new([2, 3, 4], &x), HostTensor::new([4, 2, 5], &y)];
    let found = output(&arguments, |p| p[0].dot_general(p[1], dimensions, DType::S32));
    assert_eq!(found.shape().dims, [2, 3, 5]);
    let found = found.to_vec::<i32>().unwrap();
    for (b, m, n) in (0..2).flat_map(|b| (0..3).flat_map(move |m| (0..5).map(move |n| (b, m, n)))) {
        let expected: i32 = (0..4).map(|k| x[(b * 3 + m) * 4 + k] * y[(k * 2 + b) * 5 + n]).sum();
        assert_eq!(found[(b * 3 + m) * 5 + n], expected);
    }
}

/// Returns a loop that counts to each replica's bound and sums `step(counter)`.
fn counting(step: impl for<'b> Fn(Tensor<'b>) -> Tensor<'b>) -> Computation {
    let graph = Graph::new("count");
    let bound = graph.parameter("bound", Shape::scalar(DType::S32));
    let zero = graph.scalar(0.0, DType::S32);
    let state = graph.while_loop(
        "count",
        &[zero, bound, zero],
        |_, s| s[0].lt(s[1]),
        |_, s| vec![s[0] + 1.0, s[1], s[2] + step(s[0])],
    );
    graph.finish(&[state[2]])
}

fn bounds(each: &[i32]) -> Vec<Vec<Value>> {
    each.iter().map(|&bound| vec![Value::from(&HostTensor::scalar(bound))]).collect()
}

#[test]
fn loop_runs_until_its_condition_is_false() {
    let sums = evaluate_replicas(&counting(|i| i * i), &bounds(&[5, 0, 3])).unwrap();
    assert_eq!(sums.iter().map(|outputs| outputs[0].scalar()).collect::<Vec<_>>(), [30.0, 0.0, 5.0]);
}

#[test]
fn loop_with_collectives_requires_equal_iterations() {
    let summed = counting(|i| i.all_reduce(Reduction::Sum));
    let sums = evaluate_replicas(&summed, &bounds(&[4, 4])).unwrap();
    assert_eq!(sums.iter().map(|outputs| outputs[0].scalar()).collect::<Vec<_>>(), [12.0, 12.0]);
    let e = evaluate_replicas(&summed, &bounds(&[4, 2])).unwrap_err();
    assert_eq!(e, EvalError::Divergence { body: "count.body".to_string(), iteration: 2 });
}

#[test]
fn collectives_combine_all_replicas() {
    let graph = Graph::new("collectives");
    let x = graph.parameter("x", Shape::new(DType::F32, [4]));
    let id = graph.replica_id().convert(DType::F32);
    let outputs = [x.all_reduce(Reduction::Max), x.reduce_scatter(0, 2), x.all_gather(0, 2), id];
    let computation = graph.finish(&outputs);
    let arguments: Vec<Vec<Value>> =
        [[1.0f32, 2.0, 3.0, 4.0], [8.0, 7.0, -6.0, 5.0]].map(|x| vec![Value::from(&HostTensor::new([4], &x))]).to_vec();
    let found = evaluate_replicas(&computation, &arguments).unwrap();
    let gathered = vec![1.0, 2.0, 3.0, 4.0, 8.0, 7.0, -6.0, 5.0];
    for (r, shard) in [vec![9.0, 9.0], vec![-3.0, 9.0]].into_iter().enumerate() {
        let found: Vec<Vec<f64>> = found[r].iter().map(Value::to_f64).collect();
        assert_eq!(found, [vec![8.0, 7.0, 3.0, 5.0], shard, gathered.clone(), vec![r as f64]]);
    }
    let e = evaluate_replicas(&computation, &arguments[..1]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "reduce-scatter in computation collectives requires 2 replicas, got 1: evaluate with arguments for 2 replicas"
    );
}

#[test]
fn argument_errors_name_computation_and_parameter() {
    let graph = Graph::new("sum");
    let x = graph.parameter("x", Shape::new(DType::F32, [2]));
    let computation = graph.finish(&[x.sum()]);
    let e = evaluate(&computation, &[]).unwrap_err();
    assert_eq!(e.to_string(), "computation sum requires 1 arguments, got 0: pass one for each parameter, in order");
    let e = evaluate(&computation, &[HostTensor::new([3], &[0.0f32; 3])]).unwrap_err();
    assert_eq!(
        e.to_string(),
        "argument 0 (\"x\") of computation sum requires f32[2], got f32[3]: pass a tensor of that shape"
    );
}
