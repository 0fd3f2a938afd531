//! Cases of operations that move, reduce and contract elements: shapes, reductions, dots, indexing.

use lambert::graph::{DotDimensions, GatherDimensions, Reduction, ScatterDimensions, Tensor};
use lambert::shape::{DType, HostTensor};

use super::{Case, any_bits, case, uniform, values, whole_numbers};

pub fn cases() -> Vec<Case> {
    let mut cases = vec![reduce_predicates(), reduce_bits(), dynamic_slices().golden(), gathers().golden()];
    cases.push(transposed_index_vectors());
    for dtype in [DType::F32, DType::BF16, DType::S32, DType::U64, DType::Pred] {
        cases.push(shapes(dtype));
    }
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64, DType::S32, DType::U32] {
        cases.push(reduce_numbers(dtype));
    }
    for (dtype, result) in [
        (DType::F32, DType::F32),
        (DType::BF16, DType::F32),
        (DType::F16, DType::F32),
        (DType::BF16, DType::BF16),
        (DType::F64, DType::F64),
        (DType::S32, DType::S32),
    ] {
        cases.push(dots(dtype, result));
    }
    for dtype in [DType::F32, DType::BF16, DType::S32, DType::U32] {
        cases.push(scatter_adds(dtype));
    }
    for case in &mut cases {
        case.golden |= case.name.ends_with("/f32");
    }
    cases
}

fn shapes(dtype: DType) -> Case {
    let x = match dtype {
        DType::Pred | DType::S32 | DType::U64 => any_bits(21, dtype, &[2, 3, 4]),
        _ => uniform(21, dtype, &[2, 3, 4], -2.0, 2.0),
    };
    case(format!("shape/{dtype}"), vec![x], |g, x| {
        let x = x[0];
        let zero = g.scalar(0.0, dtype);
        vec![
            x.reshape(&[6, 4]),
            x.reshape(&[24]).reshape(&[1, 24, 1]),
            x.transpose(&[2, 0, 1]),
            x.broadcast(&[5, 2, 3, 4], &[1, 2, 3]),
            g.concatenate(&[x, x.slice_in(1, 0, 2)], 1),
            x.slice(&[0, 1, 0], &[2, 3, 4], &[1, 2, 3]),
            x.pad(zero, &[0, 1, 2], &[1, 0, 0], &[0, 2, 1]),
        ]
    })
}

/// Uses whole numbers for bf16, whose sums are exact: devices add bf16 in bf16, which would require too large a tolerance.
/// (A model converts to f32 first.)
fn reduce_numbers(dtype: DType) -> Case {
    let numbers = if dtype == DType::BF16 { whole_numbers } else { uniform };
    let x = numbers(22, dtype, &[3, 4, 5], if dtype == DType::U32 { 0.0 } else { -9.0 }, 9.0);
    case(format!("reduce/{dtype}"), vec![x], |_, x| {
        let x = x[0];
        vec![
            x.reduce_sum(&[0, 2]),
            x.sum(),
            x.reduce_max(&[1]),
            x.reduce(Reduction::Min, &[0, 1]),
            x.reduce_max(&[2]) + x.reduce_sum(&[2]),
        ]
    })
}

fn reduce_predicates() -> Case {
    case("reduce/pred", vec![any_bits(23, DType::Pred, &[5, 2])], |_, x| {
        vec![x[0].reduce(Reduction::And, &[1]), x[0].reduce(Reduction::Or, &[1])]
    })
}

fn reduce_bits() -> Case {
    case("reduce/bits", vec![any_bits(24, DType::U32, &[5, 2]), any_bits(25, DType::S32, &[5, 2])], |_, x| {
        let both = |i: usize| [x[i].reduce(Reduction::And, &[1]), x[i].reduce(Reduction::Or, &[0])];
        [both(0), both(1)].concat()
    })
}

/// Rows × weight and its transpose, the two batched products of attention, a weight gradient, and weight × rows.
fn dots(dtype: DType, result: DType) -> Case {
    let arguments = vec![
        uniform(26, dtype, &[3, 4, 8], -3.0, 3.0),
        uniform(27, dtype, &[8, 5], -3.0, 3.0),
        uniform(28, dtype, &[3, 7, 8], -3.0, 3.0),
        uniform(29, dtype, &[3, 4, 7], -3.0, 3.0),
        uniform(30, dtype, &[6, 8], -3.0, 3.0),
    ];
    let name = if dtype == result { format!("dot/{dtype}") } else { format!("dot/{dtype}-to-{result}") };
    let case = case(name, arguments, |_, x| {
        let (rows, weight, keys, probabilities, transposed) = (x[0], x[1], x[2], x[3], x[4]);
        let dot = |lhs: Tensor<'_>, rhs, contracting: [&[usize]; 2], batch: &[usize]| {
            let dimensions = DotDimensions {
                lhs_batch: batch.to_vec(),
                rhs_batch: batch.to_vec(),
                lhs_contracting: contracting[0].to_vec(),
                rhs_contracting: contracting[1].to_vec(),
            };
            lhs.dot_general(rhs, dimensions, result).id()
        };
        let mut outputs = vec![
            dot(rows, weight, [&[2], &[0]], &[]),
            dot(rows, transposed, [&[2], &[1]], &[]),
            dot(rows, keys, [&[2], &[2]], &[0]),
            dot(probabilities, keys, [&[2], &[1]], &[0]),
            dot(rows, probabilities, [&[0, 1], &[0, 1]], &[]),
            dot(transposed, rows, [&[1], &[2]], &[]),
        ];
        // XLA:CPU (jaxlib 0.11.2) compiles this dot from bf16 to f32 but cannot run it: the left operand is a transposed
        // matrix and the right one has two free dimensions. The models have no such dot.
        if (dtype, result) != (DType::BF16, DType::F32) {
            outputs.push(dot(weight, rows, [&[0], &[2]], &[]));
        }
        outputs.into_iter().map(|id| rows.graph().tensor(id)).collect()
    });
    Case { golden: dtype == DType::BF16 && result == DType::F32, ..case }
}

/// Starts in bounds, below and above; the last two are clamped.
fn dynamic_slices() -> Case {
    let mut arguments = vec![uniform(29, DType::F32, &[4, 6], -2.0, 2.0), uniform(30, DType::F32, &[2, 3], -2.0, 2.0)];
    arguments.extend([1, -5, 100].map(HostTensor::scalar::<i32>));
    case("dynamic-slice", arguments, |_, x| {
        let (inside, below, above) = (x[2], x[3], x[4]);
        let starts = [[inside, inside], [below, inside], [inside, above], [above, below]];
        let slices = starts.iter().map(|starts| x[0].dynamic_slice(starts, &[2, 3]));
        let updates = starts.iter().map(|starts| x[0].dynamic_update_slice(x[1], starts));
        slices.chain(updates).collect()
    })
}

/// Rows of a table and windows of an array. Out-of-bounds indices are clamped so that the window fits.
fn gathers() -> Case {
    let arguments = vec![
        uniform(31, DType::F32, &[5, 3], -2.0, 2.0),
        values(DType::S32, &[4.0, 0.0, -3.0, 2.0, 9.0]),
        HostTensor::new([2, 2], &[3i32, 1, 7, -2]),
        values(DType::U32, &[1.0, 4.0, 4_000_000_000.0]),
    ];
    case("gather", arguments, |_, x| {
        let windows = GatherDimensions {
            offset_dims: vec![0, 2],
            collapsed_slice_dims: vec![],
            start_index_map: vec![0, 1],
            index_vector_dim: 1,
            slice_sizes: vec![2, 2],
        };
        vec![x[0].take_rows(x[1]), x[0].gather(x[2], windows), x[0].take_rows(x[3])]
    })
}

/// Index vectors along the first dimension instead of the last.
fn transposed_index_vectors() -> Case {
    let arguments = vec![
        uniform(32, DType::F32, &[4, 5], -2.0, 2.0),
        HostTensor::new([2, 3], &[3i32, 0, 1, 4, 2, 2]),
        uniform(33, DType::F32, &[3], -2.0, 2.0),
    ];
    case("gather/transposed", arguments, |_, x| {
        let elements = GatherDimensions {
            offset_dims: vec![],
            collapsed_slice_dims: vec![0, 1],
            start_index_map: vec![0, 1],
            index_vector_dim: 0,
            slice_sizes: vec![1, 1],
        };
        let into_elements = ScatterDimensions {
            update_window_dims: vec![],
            inserted_window_dims: vec![0, 1],
            scatter_dims_to_operand_dims: vec![0, 1],
            index_vector_dim: 0,
        };
        vec![x[0].gather(x[1], elements), x[0].scatter_add(x[1], x[2], into_elements)]
    })
}

/// Rows added to a table, one of them twice, two out of bounds and dropped. Windows that are partly out of bounds are
/// dropped entirely.
fn scatter_adds(dtype: DType) -> Case {
    let low = if dtype == DType::U32 { 0.0 } else { -8.0 };
    let arguments = vec![
        uniform(34, dtype, &[5, 3], low, 8.0),
        values(DType::S32, &[4.0, 1.0, 4.0, -1.0, 5.0]),
        uniform(35, dtype, &[5, 3], low, 8.0),
        HostTensor::new([3, 2], &[3i32, 1, 4, 0, 0, 1]),
        uniform(36, dtype, &[3, 2, 2], low, 8.0),
    ];
    case(format!("scatter-add/{dtype}"), arguments, |_, x| {
        let rows = ScatterDimensions {
            update_window_dims: vec![1],
            inserted_window_dims: vec![0],
            scatter_dims_to_operand_dims: vec![0],
            index_vector_dim: 1,
        };
        let windows = ScatterDimensions {
            update_window_dims: vec![1, 2],
            inserted_window_dims: vec![],
            scatter_dims_to_operand_dims: vec![0, 1],
            index_vector_dim: 1,
        };
        vec![x[0].scatter_add(x[1], x[2], rows), x[0].scatter_add(x[3], x[4], windows)]
    })
}
