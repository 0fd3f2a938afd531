//! The cotangents of a convolution: that of its input is a convolution of the result's cotangent with the reversed kernel, and that of
//! its kernel a convolution of the input with the result's cotangent, in which batch and features exchange their roles.

use crate::graph::{Convolution, ConvolutionDimensions, Tensor, WindowDimension};

/// Returns the cotangent of the input, of spatial sizes `sizes`.
pub(super) fn of_input<'g>(
    ct: Tensor<'g>,
    kernel: Tensor<'g>,
    convolution: &Convolution,
    sizes: &[usize],
) -> Tensor<'g> {
    let Convolution { dimensions: d, window, feature_groups, batch_groups, dtype } = convolution;
    // One of both is 1.
    let groups = feature_groups * batch_groups;
    // The groups of output features, which the transposed convolution reads, become groups of its output features.
    let kernel = moved_groups(kernel, d.kernel_output_feature, d.kernel_input_feature, groups);
    let transposed = Convolution {
        dimensions: ConvolutionDimensions {
            input_batch: d.output_batch,
            input_feature: d.output_feature,
            input_spatial: d.output_spatial.clone(),
            kernel_input_feature: d.kernel_output_feature,
            kernel_output_feature: d.kernel_input_feature,
            kernel_spatial: d.kernel_spatial.clone(),
            output_batch: d.input_batch,
            output_feature: d.input_feature,
            output_spatial: d.input_spatial.clone(),
        },
        window: window.iter().zip(sizes).map(|(window, &n)| window.transposed(n)).collect(),
        feature_groups: groups,
        batch_groups: 1,
        dtype: *dtype,
    };
    let mut spatial = d.kernel_spatial.clone();
    spatial.sort_unstable();
    let of_input = ct.convolution(kernel.reverse(&spatial), transposed);
    moved_groups(of_input, d.input_feature, d.input_batch, *batch_groups)
}

/// Returns the cotangent of the kernel.
pub(super) fn of_kernel<'g>(ct: Tensor<'g>, input: Tensor<'g>, convolution: &Convolution) -> Tensor<'g> {
    let Convolution { dimensions: d, window, feature_groups, batch_groups, dtype } = convolution;
    let (input_dims, dims) = (input.dims(), ct.dims());
    let of_dimension = |(s, window): (usize, &WindowDimension)| {
        window.exchanged(input_dims[d.input_spatial[s]], dims[d.output_spatial[s]])
    };
    let exchanged = Convolution {
        dimensions: ConvolutionDimensions {
            input_batch: d.input_feature,
            input_feature: d.input_batch,
            input_spatial: d.input_spatial.clone(),
            kernel_input_feature: d.output_batch,
            kernel_output_feature: d.output_feature,
            kernel_spatial: d.output_spatial.clone(),
            output_batch: d.kernel_input_feature,
            output_feature: d.kernel_output_feature,
            output_spatial: d.kernel_spatial.clone(),
        },
        window: window.iter().enumerate().map(of_dimension).collect(),
        // Groups of features are groups of the batch of this convolution, and conversely.
        feature_groups: *batch_groups,
        batch_groups: *feature_groups,
        dtype: *dtype,
    };
    input.convolution(ct, exchanged)
}

/// Splits the dimension `from` into groups, and makes the number of the group the slower part of the dimension `to`.
fn moved_groups<'g>(x: Tensor<'g>, from: usize, to: usize, groups: usize) -> Tensor<'g> {
    if groups == 1 {
        return x;
    }
    let mut dims = x.dims();
    dims[from] /= groups;
    let split = [&dims[..from], &[groups, dims[from]], &dims[from + 1..]].concat();
    // Without the dimension of the groups, which is `from` in `split`, the others have their old numbers.
    let mut order: Vec<usize> = (0..split.len()).filter(|&i| i != from).collect();
    order.insert(to, from);
    dims[to] *= groups;
    x.reshape(&split).transpose(&order).reshape(&dims)
}
