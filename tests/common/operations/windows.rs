//! Cases of convolutions and of reductions of windows.

use lambert::autodiff::gradients;
use lambert::graph::{Convolution, ConvolutionDimensions, Reduction, Tensor, WindowDimension};
use lambert::shape::DType;

use super::{Case, case, uniform, whole_numbers};

pub fn cases() -> Vec<Case> {
    let types = [DType::F32, DType::BF16];
    let mut cases: Vec<Case> = types.into_iter().map(convolutions).collect();
    cases.extend([DType::F32, DType::F64].map(convolution_gradients));
    cases.extend([DType::F32, DType::BF16, DType::S32].map(reduced_windows));
    cases.extend(types.map(pooling_gradients));
    for case in &mut cases {
        case.golden |= case.name.ends_with("/f32");
    }
    cases
}

/// A convolution of images with channels last by these windows.
fn channels_last(window: [WindowDimension; 2], feature_groups: usize, dtype: DType) -> Convolution {
    let dimensions = ConvolutionDimensions::channels_last();
    Convolution { dimensions, window: window.to_vec(), feature_groups, batch_groups: 1, dtype }
}

/// The convolutions of ResNets: strides, padding, one pixel, dilation, and groups.
fn forms<'g>(x: Tensor<'g>, kernel: Tensor<'g>, dtype: DType) -> Vec<Tensor<'g>> {
    let square = |window: WindowDimension| [window; 2];
    let three = WindowDimension::new(3);
    let pixel = kernel.slice(&[1, 1, 0, 0], &[2, 2, 4, 6], &[1; 4]);
    let grouped = kernel.slice(&[0, 0, 0, 0], &[3, 3, 2, 6], &[1; 4]);
    vec![
        x.convolution(kernel, channels_last(square(three), 1, dtype)),
        x.convolution(kernel, channels_last(square(three.padding(1, 1)), 1, dtype)),
        x.convolution(kernel, channels_last(square(three.stride(2).padding(1, 1)), 1, dtype)),
        x.convolution(pixel, channels_last(square(WindowDimension::new(1).stride(2)), 1, dtype)),
        x.convolution(grouped, channels_last(square(three.padding(1, 1)), 2, dtype)),
        x.convolution(
            kernel,
            channels_last([three, WindowDimension { window_dilation: 2, ..three.padding(2, 1) }], 1, dtype),
        ),
    ]
}

/// Uses whole numbers for bf16, whose sums are exact.
fn convolutions(dtype: DType) -> Case {
    let numbers = if dtype == DType::BF16 { whole_numbers } else { uniform };
    let arguments = vec![numbers(61, dtype, &[2, 7, 6, 4], -3.0, 3.0), numbers(62, dtype, &[3, 3, 4, 6], -3.0, 3.0)];
    case(format!("convolution/{dtype}"), arguments, |_, x| {
        forms(x[0], x[1], if dtype == DType::F64 { dtype } else { DType::F32 })
    })
}

/// The gradients of a sum of the forms, which are transposed and exchanged convolutions.
fn convolution_gradients(dtype: DType) -> Case {
    let arguments = vec![uniform(63, dtype, &[2, 7, 6, 4], -1.0, 1.0), uniform(64, dtype, &[3, 3, 4, 6], -1.0, 1.0)];
    case(format!("convolution_gradient/{dtype}"), arguments, |_, x| {
        let losses = forms(x[0], x[1], dtype).into_iter().map(|form| form.square().sum());
        let loss = losses.reduce(|a, b| a + b).expect("there are forms");
        gradients(loss, &[x[0], x[1]])
    })
}

/// Windows of pooling: 3 × 3 with stride 2 and padding, and the mean over all pixels.
fn pooling() -> [Vec<WindowDimension>; 2] {
    let [one, three] = [1, 3].map(WindowDimension::new);
    let padded = three.stride(2).padding(1, 1);
    [vec![one, padded, padded, one], vec![one, WindowDimension::new(7), WindowDimension::new(6), one]]
}

fn reduced_windows(dtype: DType) -> Case {
    let numbers = if dtype == DType::F32 { uniform } else { whole_numbers };
    let x = numbers(65, dtype, &[2, 7, 6, 3], -9.0, 9.0);
    case(format!("reduce_window/{dtype}"), vec![x], |_, x| {
        let [padded, all] = pooling();
        let reductions = [Reduction::Sum, Reduction::Max, Reduction::Min];
        let mut results: Vec<Tensor> = reductions.iter().map(|&r| x[0].reduce_window(r, &padded)).collect();
        results.extend(reductions.iter().map(|&r| x[0].reduce_window(r, &all)));
        results.push(x[0].reverse(&[1, 3]));
        results
    })
}

/// Uses whole numbers, so that several elements of a window are equal.
fn pooling_gradients(dtype: DType) -> Case {
    let x = whole_numbers(66, dtype, &[2, 7, 6, 3], -2.0, 2.0);
    case(format!("select_and_scatter/{dtype}"), vec![x], |_, x| {
        let [padded, all] = pooling();
        let pooled = |reduction, window: &[WindowDimension]| {
            let pooled = x[0].reduce_window(reduction, window).convert(DType::F32);
            (pooled * pooled).sum()
        };
        let sums =
            [(Reduction::Max, &padded), (Reduction::Sum, &padded), (Reduction::Sum, &all), (Reduction::Min, &padded)];
        sums.into_iter().map(|(reduction, window)| gradients(pooled(reduction, window), &[x[0]])[0]).collect()
    })
}
