//! The messages of windows and convolutions.

use super::proto::{ConvolutionDimensionNumbers, Window, WindowDimension};
use crate::graph;

pub(super) fn window(dimensions: &[graph::WindowDimension]) -> Window {
    let dimension = |window: &graph::WindowDimension| WindowDimension {
        size: window.size as i64,
        stride: window.stride as i64,
        padding_low: window.padding_low,
        padding_high: window.padding_high,
        window_dilation: window.window_dilation as i64,
        base_dilation: window.base_dilation as i64,
        window_reversal: false,
    };
    Window { dimensions: dimensions.iter().map(dimension).collect() }
}

pub(super) fn convolution_dimensions(d: &graph::ConvolutionDimensions) -> ConvolutionDimensionNumbers {
    let all = |dimensions: &[usize]| dimensions.iter().map(|&dimension| dimension as i64).collect();
    ConvolutionDimensionNumbers {
        input_batch_dimension: d.input_batch as i64,
        input_feature_dimension: d.input_feature as i64,
        input_spatial_dimensions: all(&d.input_spatial),
        kernel_input_feature_dimension: d.kernel_input_feature as i64,
        kernel_output_feature_dimension: d.kernel_output_feature as i64,
        kernel_spatial_dimensions: all(&d.kernel_spatial),
        output_batch_dimension: d.output_batch as i64,
        output_feature_dimension: d.output_feature as i64,
        output_spatial_dimensions: all(&d.output_spatial),
    }
}
