//! Convolutions and reductions of windows, in HLO's terms: the attributes, the shape rules, and the builders.

use super::{Op, Reduction, Tensor};
use crate::shape::{DType, Shape};

/// A window along one dimension: HLO's WindowDimension, without reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowDimension {
    /// Elements of the window.
    pub size: usize,
    /// Distance between positions of the window.
    pub stride: usize,
    /// Elements of padding before the operand; a negative number removes elements.
    pub padding_low: i64,
    /// Elements of padding after the operand; a negative number removes elements.
    pub padding_high: i64,
    /// Distance between elements of the window.
    pub window_dilation: usize,
    /// Distance between elements of the operand, with padding between them.
    pub base_dilation: usize,
}

impl WindowDimension {
    /// Creates a window that moves by one element, without padding and dilation.
    pub fn new(size: usize) -> Self {
        WindowDimension { size, stride: 1, padding_low: 0, padding_high: 0, window_dilation: 1, base_dilation: 1 }
    }

    /// Returns the same window with another stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        WindowDimension { stride, ..self }
    }

    /// Returns the same window with padding on both sides.
    #[must_use]
    pub fn padding(self, low: i64, high: i64) -> Self {
        WindowDimension { padding_low: low, padding_high: high, ..self }
    }

    /// Returns the number of positions of the window on `n` elements.
    pub fn positions(self, n: usize) -> usize {
        let room = span(n, self.base_dilation) as i64 + self.padding_low + self.padding_high;
        let last = room - span(self.size, self.window_dilation) as i64;
        if last < 0 { 0 } else { last as usize / self.stride + 1 }
    }

    /// Returns the element, of `n`, under element `k` of the window at a position; none for padding.
    pub fn element(self, position: usize, k: usize, n: usize) -> Option<usize> {
        let at = (position * self.stride + k * self.window_dilation) as i64 - self.padding_low;
        let dilation = self.base_dilation as i64;
        let element = usize::try_from(at / dilation).ok()?;
        (at >= 0 && at % dilation == 0 && element < n).then_some(element)
    }

    /// Returns the window with which the cotangents of all positions on `n` elements give those of the elements: they are spread by the
    /// stride, and the window, whose elements must be in reverse order, covers every position that reads an element.
    pub fn transposed(self, n: usize) -> Self {
        let window = span(self.size, self.window_dilation) as i64;
        let padding_low = window - self.padding_low - 1;
        let positions = span(self.positions(n), self.stride) as i64;
        let padding_high = span(n, self.base_dilation) as i64 + window - 1 - positions - padding_low;
        let (stride, base_dilation) = (self.base_dilation, self.stride);
        WindowDimension { stride, padding_low, padding_high, base_dilation, ..self }
    }

    /// Returns the window of a convolution of `n` elements with the cotangents of all `positions` of this window: it has a position for
    /// each element of this window.
    pub fn exchanged(self, n: usize, positions: usize) -> Self {
        let window = span(self.size, self.window_dilation) as i64;
        let padding_high =
            span(positions, self.stride) as i64 + window - 1 - span(n, self.base_dilation) as i64 - self.padding_low;
        let (stride, window_dilation) = (self.window_dilation, self.stride);
        WindowDimension { size: positions, stride, padding_high, window_dilation, ..self }
    }

    fn is_valid(self) -> bool {
        [self.size, self.stride, self.window_dilation, self.base_dilation].iter().all(|&number| number > 0)
    }
}

/// Returns the extent of `n` elements that lie `distance` apart, the first and the last included.
pub(crate) fn span(n: usize, distance: usize) -> usize {
    if n == 0 { 0 } else { (n - 1) * distance + 1 }
}

/// The dimensions of the operands and of the result of a convolution: HLO's ConvolutionDimensionNumbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvolutionDimensions {
    /// Batch dimension of the input.
    pub input_batch: usize,
    /// Feature dimension of the input.
    pub input_feature: usize,
    /// Spatial dimensions of the input.
    pub input_spatial: Vec<usize>,
    /// Input feature dimension of the kernel.
    pub kernel_input_feature: usize,
    /// Output feature dimension of the kernel.
    pub kernel_output_feature: usize,
    /// Spatial dimensions of the kernel.
    pub kernel_spatial: Vec<usize>,
    /// Batch dimension of the result.
    pub output_batch: usize,
    /// Feature dimension of the result.
    pub output_feature: usize,
    /// Spatial dimensions of the result.
    pub output_spatial: Vec<usize>,
}

impl ConvolutionDimensions {
    /// Returns the dimensions of images with channels last: input and result `[N, H, W, C]`, kernel `[H, W, C_in, C_out]`.
    pub fn channels_last() -> Self {
        ConvolutionDimensions {
            input_batch: 0,
            input_feature: 3,
            input_spatial: vec![1, 2],
            kernel_input_feature: 2,
            kernel_output_feature: 3,
            kernel_spatial: vec![0, 1],
            output_batch: 0,
            output_feature: 3,
            output_spatial: vec![1, 2],
        }
    }
}

/// The attributes of [`Op::Convolution`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// The dimensions of operands and result.
    pub dimensions: ConvolutionDimensions,
    /// The window of each spatial dimension; its size is the kernel's.
    pub window: Vec<WindowDimension>,
    /// Groups of features: each group of output features reads its group of input features only.
    pub feature_groups: usize,
    /// Groups of the batch: each group of output features reads its group of the batch only. One of both numbers is 1.
    pub batch_groups: usize,
    /// Type of the result and of the accumulation, usually f32 for bf16 operands.
    pub dtype: DType,
}

/// A requirement and what was found.
pub(super) type Mismatch = (&'static str, String);

impl Convolution {
    /// Returns the shape of the result.
    ///
    /// # Errors
    /// The first requirement that operands or attributes do not meet.
    pub(super) fn result_shape(&self, input: &Shape, kernel: &Shape) -> Result<Shape, Mismatch> {
        let (d, groups) = (&self.dimensions, (self.feature_groups, self.batch_groups));
        let rank = self.window.len() + 2;
        let refuse = |requires| Err((requires, format!("{input} and {kernel} with {self}")));
        let lists = [
            (d.input_batch, d.input_feature, &d.input_spatial),
            (d.kernel_input_feature, d.kernel_output_feature, &d.kernel_spatial),
            (d.output_batch, d.output_feature, &d.output_spatial),
        ];
        let is_permutation = |(first, second, spatial): (usize, usize, &Vec<usize>)| {
            let mut all = [&[first, second], &spatial[..]].concat();
            all.sort_unstable();
            all.into_iter().eq(0..rank)
        };
        if [input.rank(), kernel.rank()] != [rank; 2] || !lists.into_iter().all(is_permutation) {
            return refuse("a batch, a feature and a spatial dimension for each window");
        }
        if input.dtype != kernel.dtype || input.dtype == DType::Pred {
            return refuse("numeric operands of one type");
        }
        let sizes = d.kernel_spatial.iter().map(|&i| kernel.dims[i]);
        if !self.window.iter().map(|window| window.size).eq(sizes) || !self.window.iter().all(|w| w.is_valid()) {
            return refuse("windows of the kernel's size, with strides and dilations of at least 1");
        }
        let (batch, features) = (input.dims[d.input_batch], input.dims[d.input_feature]);
        let (read, written) = (kernel.dims[d.kernel_input_feature], kernel.dims[d.kernel_output_feature]);
        let has_groups = groups.0 > 0 && groups.1 > 0 && (groups.0 == 1 || groups.1 == 1);
        if !has_groups
            || features != read * groups.0
            || !written.is_multiple_of(groups.0 * groups.1)
            || !batch.is_multiple_of(groups.1)
        {
            return refuse("groups that divide features or batch, and the kernel's input features in each");
        }
        let mut dims = vec![0; rank];
        dims[d.output_batch] = batch / groups.1;
        dims[d.output_feature] = written;
        for ((&to, &from), window) in d.output_spatial.iter().zip(&d.input_spatial).zip(&self.window) {
            dims[to] = window.positions(input.dims[from]);
        }
        Ok(Shape::new(self.dtype, dims))
    }
}

/// Returns the shape of a reduction of windows.
///
/// # Errors
/// If there is no valid window for every dimension.
pub(super) fn windows_shape(operand: &Shape, window: &[WindowDimension]) -> Result<Shape, Mismatch> {
    if window.len() != operand.rank() || !window.iter().all(|window| window.is_valid()) {
        let requires = "a window for every dimension, with size, stride and dilations of at least 1";
        return Err((requires, format!("{} of {operand}", Windows(window))));
    }
    let dims: Vec<usize> = operand.dims.iter().zip(window).map(|(&n, window)| window.positions(n)).collect();
    Ok(Shape::new(operand.dtype, dims))
}

/// Returns the shape of a select-and-scatter of `source` into `operand`.
///
/// # Errors
/// If the windows are dilated, or the source has not one element for each position.
pub(super) fn select_and_scatter_shape(
    operand: &Shape,
    source: &Shape,
    window: &[WindowDimension],
) -> Result<Shape, Mismatch> {
    let positions = windows_shape(operand, window)?;
    if window.iter().any(|window| (window.window_dilation, window.base_dilation) != (1, 1)) {
        return Err(("windows without dilation", format!("{} of {operand}", Windows(window))));
    }
    match *source == positions {
        true => Ok(operand.clone()),
        false => Err(("an element for each position of the window", format!("{source} for {positions}"))),
    }
}

impl<'g> Tensor<'g> {
    /// Convolves with a kernel.
    #[track_caller]
    pub fn convolution(self, kernel: Self, convolution: Convolution) -> Self {
        self.graph().add(Op::Convolution(convolution), &[self, kernel])
    }

    /// Reduces the windows at all positions; padding is the identity of the reduction.
    #[track_caller]
    pub fn reduce_window(self, reduction: Reduction, window: &[WindowDimension]) -> Self {
        self.graph().add(Op::ReduceWindow { reduction, window: window.to_vec() }, &[self])
    }

    /// Adds each element of `source` to a zero in the place of the largest element of its window; see [`Op::SelectAndScatter`].
    #[track_caller]
    pub fn select_and_scatter(self, source: Self, window: &[WindowDimension]) -> Self {
        self.graph().add(Op::SelectAndScatter { window: window.to_vec() }, &[self, source])
    }

    /// Reverses the order of the elements along `dimensions`.
    #[track_caller]
    pub fn reverse(self, dimensions: &[usize]) -> Self {
        if dimensions.is_empty() {
            return self;
        }
        self.graph().add(Op::Reverse { dimensions: dimensions.to_vec() }, &[self])
    }
}

/// Windows in printed forms: `3x3, stride 2x2, pad 1_1x1_1`; what is the default is left out.
pub(super) struct Windows<'a>(pub &'a [WindowDimension]);

impl std::fmt::Display for Windows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sizes: Vec<String> = self.0.iter().map(|window| window.size.to_string()).collect();
        f.write_str(&sizes.join("x"))?;
        let mut attribute = |name: &str, default: &str, shown: &dyn Fn(&WindowDimension) -> String| {
            let values: Vec<String> = self.0.iter().map(shown).collect();
            if values.iter().any(|value| value != default) {
                write!(f, ", {name} {}", values.join("x"))?;
            }
            Ok(())
        };
        attribute("stride", "1", &|window| window.stride.to_string())?;
        attribute("pad", "0_0", &|window| format!("{}_{}", window.padding_low, window.padding_high))?;
        attribute("dilate", "1", &|window| window.window_dilation.to_string())?;
        attribute("base_dilate", "1", &|window| window.base_dilation.to_string())
    }
}

impl std::fmt::Display for Convolution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let d = &self.dimensions;
        write!(f, "window={{{}}}, ", Windows(&self.window))?;
        write!(f, "input=({}, {}, {:?}), ", d.input_batch, d.input_feature, d.input_spatial)?;
        write!(f, "kernel=({}, {}, {:?}), ", d.kernel_input_feature, d.kernel_output_feature, d.kernel_spatial)?;
        write!(f, "output=({}, {}, {:?}), ", d.output_batch, d.output_feature, d.output_spatial)?;
        write!(f, "feature_groups={}, batch_groups={}", self.feature_groups, self.batch_groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_and_elements_follow_hlo() {
        let window = WindowDimension { window_dilation: 2, ..WindowDimension::new(3).stride(2).padding(1, 2) };
        // 6 + 1 + 2 elements, a window of 5: positions 0, 2 and 4.
        assert_eq!(window.positions(6), 3);
        let elements: Vec<Option<usize>> = (0..3).map(|k| window.element(0, k, 6)).collect();
        assert_eq!(elements, [None, Some(1), Some(3)]);
        assert_eq!((0..3).map(|k| window.element(2, k, 6)).collect::<Vec<_>>(), [Some(3), Some(5), None]);
        let spread = WindowDimension { base_dilation: 3, ..WindowDimension::new(2) };
        // x 0 0 x: three positions.
        assert_eq!(spread.positions(2), 3);
        assert_eq!((0..3).map(|at| spread.element(at, 1, 2)).collect::<Vec<_>>(), [None, None, Some(1)]);
        assert_eq!(WindowDimension::new(4).positions(3), 0);
        assert_eq!(WindowDimension::new(2).padding(-1, -1).positions(5), 2);
    }

    #[test]
    fn derived_windows_have_a_position_for_each_element() {
        for (size, stride, low, high, window_dilation, base_dilation, n) in [
            (3, 2, 1, 1, 1, 1, 7),
            (1, 2, 0, 0, 1, 1, 6),
            (2, 3, 0, 2, 2, 1, 9),
            (3, 1, 2, 0, 1, 2, 4),
            (7, 2, 3, 3, 1, 1, 12),
        ] {
            let base = WindowDimension { window_dilation, base_dilation, ..WindowDimension::new(size) };
            let window = base.stride(stride).padding(low, high);
            let positions = window.positions(n);
            assert_eq!(window.transposed(n).positions(positions), n, "{window:?} on {n}");
            assert_eq!(window.exchanged(n, positions).positions(n), size, "{window:?} on {n}");
        }
    }
}
