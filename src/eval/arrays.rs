//! The evaluation of operations that move, reduce and contract elements.

use rayon::prelude::*;

use super::elementwise::maximum;
use super::value::{Data, Value, positions, wrap};
use crate::graph::{DotDimensions, GatherDimensions, Reduction, ScatterDimensions};
use crate::shape::{DType, Shape};

pub(super) fn iota(shape: &Shape, dimension: usize) -> Value {
    let mut strides = vec![0; shape.rank()];
    strides[dimension] = 1;
    let indices = positions(&shape.dims, &strides, 0);
    let data = match shape.dtype.is_float() {
        true => Data::Float(indices.map(|i| i as f64).collect()),
        false => Data::Integer(indices.map(|i| wrap(shape.dtype, i as i128)).collect()),
    };
    Value::new(shape.clone(), data)
}

pub(super) fn transpose(x: &Value, permutation: &[usize]) -> Value {
    let strides = x.shape().strides();
    let dims: Vec<usize> = permutation.iter().map(|&d| x.shape().dims[d]).collect();
    let strides: Vec<usize> = permutation.iter().map(|&d| strides[d]).collect();
    x.take(&dims, positions(&dims, &strides, 0))
}

pub(super) fn broadcast(x: &Value, dims: &[usize], broadcast_dimensions: &[usize]) -> Value {
    let mut strides = vec![0; dims.len()];
    for (&d, stride) in broadcast_dimensions.iter().zip(x.shape().strides()) {
        strides[d] = stride;
    }
    x.take(dims, positions(dims, &strides, 0))
}

/// Returns the elements at `starts + index · steps`, for all indices within `dims`.
pub(super) fn slice(x: &Value, starts: &[usize], steps: &[usize], dims: &[usize]) -> Value {
    let (strides, offset) = window(x.shape(), starts, steps);
    x.take(dims, positions(dims, &strides, offset))
}

/// Overwrites the elements at `starts + index · steps` by `values`.
pub(super) fn update(x: &mut Value, values: &Value, starts: &[usize], steps: &[usize]) {
    let (strides, offset) = window(x.shape(), starts, steps);
    x.put(positions(&values.shape().dims, &strides, offset), values);
}

fn window(shape: &Shape, starts: &[usize], steps: &[usize]) -> (Vec<usize>, usize) {
    let strides = shape.strides();
    let offset = starts.iter().zip(&strides).map(|(a, b)| a * b).sum();
    (steps.iter().zip(&strides).map(|(a, b)| a * b).collect(), offset)
}

/// Clamps `starts` as HLO does, so that a window of `sizes` fits into `dims`.
pub(super) fn clamp_starts(starts: &[&Value], dims: &[usize], sizes: &[usize]) -> Vec<usize> {
    let last = dims.iter().zip(sizes).map(|(d, s)| (d - s) as i128);
    starts.iter().zip(last).map(|(start, last)| start.integer().clamp(0, last) as usize).collect()
}

pub(super) fn concatenate(operands: &[&Value], dimension: usize, shape: &Shape) -> Value {
    let mut result = Value::zeros(shape.clone());
    let mut starts = vec![0; shape.rank()];
    for operand in operands {
        update(&mut result, operand, &starts, &vec![1; shape.rank()]);
        starts[dimension] += operand.shape().dims[dimension];
    }
    result
}

pub(super) fn pad(x: &Value, value: &Value, low: &[usize], interior: &[usize], shape: &Shape) -> Value {
    let mut result = broadcast(value, &shape.dims, &[]);
    let steps: Vec<usize> = interior.iter().map(|gap| gap + 1).collect();
    update(&mut result, x, low, &steps);
    result
}

pub(super) fn reduce(x: &Value, reduction: Reduction, dimensions: &[usize], shape: &Shape) -> Value {
    // The result's strides, 0 along reduced dimensions: the position to which each element contributes.
    let mut kept = shape.strides().into_iter();
    let strides: Vec<usize> =
        (0..x.shape().rank()).map(|d| if dimensions.contains(&d) { 0 } else { kept.next().unwrap_or(0) }).collect();
    fold_into(x, reduction, positions(&x.shape().dims, &strides, 0), shape)
}

/// Reduces the elements of `x`, in order, into those of a result at the positions `to`, which begins as the identity of the reduction.
pub(super) fn fold_into(x: &Value, reduction: Reduction, to: impl Iterator<Item = usize>, shape: &Shape) -> Value {
    fn fold<T: Copy>(n: usize, start: T, to: impl Iterator<Item = usize>, x: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
        let mut result = vec![start; n];
        to.zip(x).for_each(|(i, &x)| result[i] = f(result[i], x));
        result
    }
    let (n, dtype) = (shape.elements(), shape.dtype);
    let data = match x.data() {
        Data::Float(x) => Data::Float(match reduction {
            Reduction::Max => fold(n, f64::NEG_INFINITY, to, x, maximum),
            Reduction::Min => fold(n, f64::INFINITY, to, x, |a, b| -maximum(-a, -b)),
            // The shape rule excludes logical reductions of floats.
            Reduction::Sum | Reduction::And | Reduction::Or => fold(n, 0.0, to, x, |a, b| a + b),
        }),
        Data::Integer(x) => Data::Integer(match reduction {
            Reduction::Sum => fold(n, 0, to, x, |a, b| wrap(dtype, a + b)),
            Reduction::Max => fold(n, if dtype == DType::S32 { i32::MIN as i128 } else { 0 }, to, x, i128::max),
            Reduction::Min => {
                let greatest = if dtype == DType::S32 { i32::MAX as i128 } else { wrap(dtype, -1) };
                fold(n, greatest, to, x, i128::min)
            }
            Reduction::And => fold(n, wrap(dtype, -1), to, x, |a, b| a & b),
            Reduction::Or => fold(n, 0, to, x, |a, b| a | b),
        }),
    };
    Value::new(shape.clone(), data)
}

pub(super) fn dot(x: &Value, y: &Value, d: &DotDimensions, shape: &Shape) -> Value {
    // A batch of matrix products [B, M, K] · [B, K, N].
    let free = |v: &Value, batch: &[usize], contracting: &[usize]| -> Vec<usize> {
        (0..v.shape().rank()).filter(|i| !batch.contains(i) && !contracting.contains(i)).collect()
    };
    let x_free = free(x, &d.lhs_batch, &d.lhs_contracting);
    let y_free = free(y, &d.rhs_batch, &d.rhs_contracting);
    let size = |v: &Value, dims: &[usize]| -> usize { dims.iter().map(|&i| v.shape().dims[i]).product() };
    let sizes = [size(x, &x_free), size(x, &d.lhs_contracting), size(y, &y_free)];
    let x = transpose(x, &[&d.lhs_batch[..], &x_free, &d.lhs_contracting].concat());
    let y = transpose(y, &[&d.rhs_batch[..], &d.rhs_contracting, &y_free].concat());
    let n = shape.elements();
    let data = match (x.data(), y.data()) {
        (Data::Float(x), Data::Float(y)) => Data::Float(products(n, x, y, sizes, 0.0, |sum, a, b| sum + a * b)),
        (Data::Integer(x), Data::Integer(y)) => {
            let multiply_add = |sum: i128, a: i128, b: i128| wrap(shape.dtype, sum.wrapping_add(a.wrapping_mul(b)));
            Data::Integer(products(n, x, y, sizes, 0, multiply_add))
        }
        _ => unreachable!("the shape rule of dot requires operands of one type"),
    };
    Value::new(shape.clone(), data)
}

/// Returns the products [B, M, K] · [B, K, N] → [B, M, N]. Each sum runs over k in order.
fn products<T: Copy + Send + Sync>(
    elements: usize,
    x: &[T],
    y: &[T],
    [m, k, n]: [usize; 3],
    zero: T,
    multiply_add: impl Fn(T, T, T) -> T + Sync,
) -> Vec<T> {
    let mut result = vec![zero; elements];
    result.par_chunks_mut(n.max(1)).enumerate().for_each(|(row, sums)| {
        let batch = row / m;
        for i in 0..k {
            let a = x[row * k + i];
            let bs = &y[(batch * k + i) * n..][..n];
            sums.iter_mut().zip(bs).for_each(|(sum, &b)| *sum = multiply_add(*sum, a, b));
        }
    });
    result
}

pub(super) fn gather(operand: &Value, indices: &Value, d: &GatherDimensions, shape: &Shape) -> Value {
    let last: Vec<i128> =
        d.start_index_map.iter().map(|&i| (operand.shape().dims[i] - d.slice_sizes[i]) as i128).collect();
    let operand_strides = operand.shape().strides();
    let (batch, offset) = split(shape, &d.offset_dims);
    let inner: Vec<usize> = (0..operand.shape().rank()).filter(|i| !d.collapsed_slice_dims.contains(i)).collect();
    let inner_strides: Vec<usize> = inner.iter().map(|&i| operand_strides[i]).collect();
    let from: Vec<usize> = positions(&offset.dims, &inner_strides, 0).collect();
    let to: Vec<usize> = positions(&offset.dims, &offset.strides, 0).collect();
    // The operand's position for each element of the result.
    let mut source = vec![0; shape.elements()];
    for (corner, vector) in positions(&batch.dims, &batch.strides, 0).zip(index_vectors(indices, d.index_vector_dim)) {
        let components = vector.iter().zip(&last).map(|(&i, &last)| i.clamp(0, last) as usize);
        let start: usize = components.zip(&d.start_index_map).map(|(i, &dim)| i * operand_strides[dim]).sum();
        from.iter().zip(&to).for_each(|(from, to)| source[corner + to] = start + from);
    }
    operand.take(&shape.dims, source.into_iter())
}

pub(super) fn scatter_add(operand: &Value, indices: &Value, updates: &Value, d: &ScatterDimensions) -> Value {
    let mut result = operand.clone();
    let operand_shape = operand.shape();
    let operand_strides = operand_shape.strides();
    let (batch, window) = split(updates.shape(), &d.update_window_dims);
    let inner: Vec<usize> = (0..operand_shape.rank()).filter(|i| !d.inserted_window_dims.contains(i)).collect();
    let mut sizes = vec![1; operand_shape.rank()];
    inner.iter().zip(&window.dims).for_each(|(&i, &n)| sizes[i] = n);
    let inner_strides: Vec<usize> = inner.iter().map(|&i| operand_strides[i]).collect();
    let to: Vec<usize> = positions(&window.dims, &inner_strides, 0).collect();
    let from: Vec<usize> = positions(&window.dims, &window.strides, 0).collect();
    for (corner, vector) in positions(&batch.dims, &batch.strides, 0).zip(index_vectors(indices, d.index_vector_dim)) {
        let map = || vector.iter().zip(&d.scatter_dims_to_operand_dims);
        // A window that is partly out of bounds is dropped.
        if map().all(|(&i, &dim)| (0..=operand_shape.dims[dim] as i128 - sizes[dim] as i128).contains(&i)) {
            let start: usize = map().map(|(&i, &dim)| i as usize * operand_strides[dim]).sum();
            result.add_at(to.iter().map(|i| start + i), updates, from.iter().map(|i| corner + i));
        }
    }
    result
}

/// A subset of an array's dimensions: their sizes and strides.
struct Dimensions {
    dims: Vec<usize>,
    strides: Vec<usize>,
}

/// Splits the dimensions of `shape` into those that are not in `window` and those that are.
fn split(shape: &Shape, window: &[usize]) -> (Dimensions, Dimensions) {
    let strides = shape.strides();
    let choose = |inside: bool| {
        let chosen: Vec<usize> = (0..shape.rank()).filter(|i| window.contains(i) == inside).collect();
        Dimensions {
            dims: chosen.iter().map(|&i| shape.dims[i]).collect(),
            strides: chosen.iter().map(|&i| strides[i]).collect(),
        }
    };
    (choose(false), choose(true))
}

/// Returns the index vectors of gather and scatter, in row-major order of the batch dimensions.
fn index_vectors(indices: &Value, index_vector_dim: usize) -> impl Iterator<Item = Vec<i128>> {
    let (batch, vector) = split(indices.shape(), &[index_vector_dim]);
    // Without a dimension for the components, the vectors have one.
    let (components, stride) =
        (vector.dims.first().copied().unwrap_or(1), vector.strides.first().copied().unwrap_or(0));
    positions(&batch.dims, &batch.strides, 0)
        .map(move |start| (0..components).map(|i| indices.integers()[start + i * stride]).collect())
}
