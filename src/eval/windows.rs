//! The evaluation of convolutions and of reductions of windows.

use rayon::prelude::*;

use super::arrays::fold_into;
use super::value::{Value, positions};
use crate::graph::{Convolution, Reduction, WindowDimension};
use crate::shape::{DType, Shape};

pub(super) fn reduce_window(x: &Value, reduction: Reduction, window: &[WindowDimension], shape: &Shape) -> Value {
    let pairs = elements(&x.shape().dims, window, &shape.dims);
    let read = x.take(&[pairs.len()], pairs.iter().map(|&(_, element)| element));
    fold_into(&read, reduction, pairs.iter().map(|&(position, _)| position), shape)
}

pub(super) fn select_and_scatter(x: &Value, source: &Value, window: &[WindowDimension]) -> Value {
    let values = x.to_f64();
    let mut selected: Vec<Option<usize>> = vec![None; source.shape().elements()];
    for (position, element) in elements(&x.shape().dims, window, &source.shape().dims) {
        let best = &mut selected[position];
        // HLO keeps the first operand of `ge` where it is true, so a NaN is replaced.
        if best.is_none_or(|best| values[best].partial_cmp(&values[element]).is_none_or(std::cmp::Ordering::is_lt)) {
            *best = Some(element);
        }
    }
    let mut result = Value::zeros(x.shape().clone());
    let pairs = || selected.iter().enumerate().filter_map(|(position, element)| Some((position, (*element)?)));
    result.add_at(pairs().map(|(_, element)| element), source, pairs().map(|(position, _)| position));
    result
}

pub(super) fn reverse(x: &Value, dimensions: &[usize]) -> Value {
    let dims = x.shape().dims.clone();
    let from = indices(&dims).map(|index| {
        let reversed = |(d, &i): (usize, &usize)| if dimensions.contains(&d) { dims[d] - 1 - i } else { i };
        flat(&x.shape().strides(), index.iter().enumerate().map(reversed))
    });
    x.take(&dims, from)
}

/// Computes in f64; integers are exact below 2⁵³.
pub(super) fn convolution(x: &Value, kernel: &Value, convolution: &Convolution, shape: &Shape) -> Value {
    let Convolution { dimensions: d, window, feature_groups, batch_groups, .. } = convolution;
    let (inputs, weights) = (x.to_f64(), kernel.to_f64());
    let (x_shape, k_shape) = (x.shape(), kernel.shape());
    let (x_strides, k_strides) = (x_shape.strides(), k_shape.strides());
    let features = k_shape.dims[d.kernel_input_feature];
    let per_group = shape.dims[d.output_feature] / (feature_groups * batch_groups);
    let sizes: Vec<usize> = window.iter().map(|window| window.size).collect();
    let outputs: Vec<Vec<usize>> = indices(&shape.dims).collect();
    let element = |output: &Vec<usize>| -> f64 {
        let (batch, feature) = (output[d.output_batch], output[d.output_feature]);
        let group = feature / per_group;
        let batch = if *batch_groups > 1 { batch + group * shape.dims[d.output_batch] } else { batch };
        let first = if *feature_groups > 1 { group * features } else { 0 };
        let at_x = batch * x_strides[d.input_batch] + first * x_strides[d.input_feature];
        let at_kernel = feature * k_strides[d.kernel_output_feature];
        let under = |k: Vec<usize>| -> Option<f64> {
            let (mut from, mut weight) = (at_x, at_kernel);
            for (s, window) in window.iter().enumerate() {
                let n = x_shape.dims[d.input_spatial[s]];
                from += window.element(output[d.output_spatial[s]], k[s], n)? * x_strides[d.input_spatial[s]];
                weight += k[s] * k_strides[d.kernel_spatial[s]];
            }
            let products = (0..features).map(|i| {
                inputs[from + i * x_strides[d.input_feature]] * weights[weight + i * k_strides[d.kernel_input_feature]]
            });
            Some(products.sum())
        };
        indices(&sizes).filter_map(under).sum()
    };
    Value::from_f64(shape.clone(), outputs.par_iter().map(element).collect())
}

/// Returns the position and the element, both row-major, of every element of the operand under the window at every position; for each
/// position in the order of the window.
fn elements(dims: &[usize], window: &[WindowDimension], positions: &[usize]) -> Vec<(usize, usize)> {
    let sizes: Vec<usize> = window.iter().map(|window| window.size).collect();
    let strides = row_major(dims);
    let mut pairs = Vec::new();
    for (number, position) in indices(positions).enumerate() {
        for k in indices(&sizes) {
            let along = |d: usize| window[d].element(position[d], k[d], dims[d]).map(|element| element * strides[d]);
            pairs.extend((0..dims.len()).map(along).sum::<Option<usize>>().map(|element| (number, element)));
        }
    }
    pairs
}

/// Returns all indices within `dims`, the last dimension fastest.
fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let (dims, strides) = (dims.to_vec(), row_major(dims));
    positions(&dims, &strides, 0).map(move |at| dims.iter().zip(&strides).map(|(n, stride)| at / stride % n).collect())
}

fn row_major(dims: &[usize]) -> Vec<usize> {
    Shape::new(DType::Pred, dims).strides()
}

fn flat(strides: &[usize], index: impl Iterator<Item = usize>) -> usize {
    index.zip(strides).map(|(i, stride)| i * stride).sum()
}
