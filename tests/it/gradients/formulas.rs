//! The longer formulas of the cases.

use std::sync::Arc;

use lambert::graph::{
    Composite, Convolution, ConvolutionDimensions, DotDimensions, GatherDimensions, Graph, NodeId, Op, Reduction, Scan,
    ScanInputs, ScanOutputs, ScatterDimensions, Tensor, WindowDimension,
};
use lambert::shape::{DType, Shape};

use super::Trial;

/// A scan with a constant, a carried value that no operand determines, an integer, and two outputs.
pub(super) fn recurrence<'g>(
    t: &mut Trial<'g>,
    reverse: bool,
    result: impl Fn(&ScanOutputs<Tensor<'g>>) -> Tensor<'g>,
) -> Tensor<'g> {
    let (graph, constant) = (t.graph, 0.1 * t.argument(&[2, 2]));
    let start = graph.full(0.5, constant.shape());
    let inputs = ScanInputs {
        constants: vec![constant],
        carried: vec![start, graph.scalar(0.0, DType::S32), 0.1 * t.argument(&[2, 2])],
        stacked: vec![0.1 * t.argument(&[3, 2, 2])],
    };
    let scan = graph.scan("recurrence", 3, &inputs, |ScanInputs { constants, carried, stacked }| {
        let number = carried[1].convert(DType::F64).broadcast_like(stacked[0], &[]);
        let product = carried[0].matmul(stacked[0], DType::F64).tanh() + carried[2] * number;
        let next = product * constants[0] + 0.1 * carried[0].square();
        ScanOutputs { carried: vec![next, carried[1] + 1.0, carried[2]], stacked: vec![product, carried[0].tanh()] }
    });
    let Op::Scan(attributes) = graph.node(graph.node(scan.carried[0].id()).inputs[0]).op else { panic!("not a scan") };
    result(&graph.add_scan(Scan { reverse, ..attributes }, &inputs))
}

/// A scan in each iteration of a scan, with the same constant.
pub(super) fn scan_in_a_scan<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    let inputs = ScanInputs {
        constants: vec![0.1 * t.argument(&[2])],
        carried: vec![0.1 * t.argument(&[2])],
        stacked: vec![0.1 * t.argument(&[3, 4, 2])],
    };
    let outer = t.graph.scan("outer", 3, &inputs, |ScanInputs { constants, carried, stacked }| {
        let inner = ScanInputs { constants: constants.clone(), carried: carried.clone(), stacked: vec![stacked[0]] };
        let graph = carried[0].graph();
        let inner = graph.scan("inner", 4, &inner, |ScanInputs { constants, carried, stacked }| {
            let next = (carried[0] * constants[0] + stacked[0]).tanh();
            ScanOutputs { carried: vec![next], stacked: vec![next * carried[0]] }
        });
        ScanOutputs { carried: vec![inner.carried[0] + inner.stacked[0].reduce_sum(&[0])], stacked: Vec::new() }
    });
    outer.carried[0]
}

/// x · tanh(y), with a number that has no cotangent, a derivative of its own and tanh(y) as what it reads.
pub(super) fn composite<'g>(t: &mut Trial<'g>) -> Vec<Tensor<'g>> {
    let [a, b] = t.sizes();
    let (shape, number) = (Shape::new(DType::F64, [a, b]), Shape::scalar(DType::S32));
    let computation = |name: &str, shapes: &[&Shape], results: &dyn Fn(&[Tensor<'_>]) -> Vec<usize>| {
        let graph = Graph::new(name);
        let parameters: Vec<_> = shapes.iter().map(|&shape| graph.parameter("x", shape.clone())).collect();
        let outputs: Vec<_> = results(&parameters).into_iter().map(|id| graph.tensor(NodeId(id as u32))).collect();
        Arc::new(graph.finish(&outputs))
    };
    let id = |tensor: Tensor<'_>| tensor.id().index();
    let definition = computation("scaled", &[&shape, &shape, &number], &|x| {
        let (tanh, scale) = (x[1].tanh(), x[2].convert(DType::F64).broadcast_like(x[0], &[]));
        vec![id(x[0] * tanh * scale), id(tanh)]
    });
    let derivative = computation("scaled.gradients", &[&shape, &shape, &number, &shape, &shape, &shape], &|x| {
        let (tanh, ct) = (x[4], x[5] * x[2].convert(DType::F64).broadcast_like(x[0], &[]));
        vec![id(ct * tanh), id(ct * x[0] * (1.0 - tanh.square()))]
    });
    let derivative = Composite { definition: derivative, residuals: 0, derivative: None, kernel: None };
    let composite = Composite { definition, residuals: 1, derivative: Some(Arc::new(derivative)), kernel: None };
    let operands = [t.argument(&[a, b]), t.argument(&[a, b]), t.graph.scalar(3.0, DType::S32)];
    t.graph.composite(&composite, &operands)
}

/// A composite that cannot be differentiated: the identity.
pub(super) fn without_derivative(shape: Shape) -> Composite {
    let graph = Graph::new("identity");
    let x = graph.parameter("x", shape);
    Composite { definition: Arc::new(graph.finish(&[x])), residuals: 0, derivative: None, kernel: None }
}

pub(super) fn two_batches_two_contractions<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    // Batch and contracting dimensions are scattered, and in a different order on each side.
    let dimensions = DotDimensions {
        lhs_batch: vec![3, 0],
        rhs_batch: vec![1, 4],
        lhs_contracting: vec![1, 4],
        rhs_contracting: vec![3, 0],
    };
    let [b0, b1] = [1 + t.stream.below(2) as usize, 2];
    let (k0, k1, m, n) = (2, 1 + t.stream.below(2) as usize, 2, 1);
    t.argument(&[b1, k0, m, b0, k1]).dot_general(t.argument(&[k1, b0, n, k0, b1]), dimensions, DType::F32)
}

pub(super) fn gather_windows<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    // Index vectors of two components, in the first dimension of the indices; some starts are clamped.
    let dimensions = GatherDimensions {
        offset_dims: vec![0, 2],
        collapsed_slice_dims: vec![1],
        start_index_map: vec![2, 0],
        index_vector_dim: 0,
        slice_sizes: vec![2, 1, 2],
    };
    t.argument(&[3, 2, 4]).gather(t.indices(&[2, 5], 5), dimensions)
}

pub(super) fn scatter_rows<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    let [n, d, a] = t.sizes();
    let dimensions = ScatterDimensions {
        update_window_dims: vec![1],
        inserted_window_dims: vec![0],
        scatter_dims_to_operand_dims: vec![0],
        index_vector_dim: 1,
    };
    let (table, rows) = (t.argument(&[n + 1, d]), t.argument(&[a, d]));
    table.scatter_add(t.indices(&[a], n + 2), rows, dimensions)
}

pub(super) fn scatter_windows<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    let dimensions = ScatterDimensions {
        update_window_dims: vec![0, 2],
        inserted_window_dims: vec![1],
        scatter_dims_to_operand_dims: vec![2, 0],
        index_vector_dim: 0,
    };
    let (table, windows) = (t.argument(&[3, 2, 4]), t.argument(&[2, 4, 2]));
    table.scatter_add(t.indices(&[2, 4], 4), windows, dimensions).tanh()
}

/// Draws a window of a convolution of `n` elements, with strides, padding and dilations, that has at least one position.
fn any_window(t: &mut Trial<'_>, n: usize, base_dilation: usize) -> WindowDimension {
    let window = WindowDimension {
        window_dilation: 1 + t.stream.below(2) as usize,
        base_dilation,
        ..WindowDimension::new(1 + t.stream.below(3) as usize).stride(1 + t.stream.below(3) as usize)
    };
    let draw = |t: &mut Trial<'_>| t.stream.below(3) as i64;
    let window = window.padding(draw(t), draw(t));
    if window.positions(n) > 0 { window } else { window.padding(4, 4) }
}

/// A convolution of arrays whose dimensions are in another order on each side.
fn convolve<'g>(t: &mut Trial<'g>, feature_groups: usize, batch_groups: usize) -> Tensor<'g> {
    let [rows, columns] = [3, 4].map(|n| n + t.stream.below(2) as usize);
    let base_dilation = 1 + t.stream.below(2) as usize;
    let window = vec![any_window(t, rows, 1), any_window(t, columns, base_dilation)];
    let (batch, read, written) =
        (batch_groups * (1 + t.stream.below(2) as usize), 2, 2 * feature_groups * batch_groups);
    let convolution = Convolution {
        dimensions: ConvolutionDimensions {
            input_batch: 2,
            input_feature: 0,
            input_spatial: vec![3, 1],
            kernel_input_feature: 3,
            kernel_output_feature: 1,
            kernel_spatial: vec![0, 2],
            output_batch: 1,
            output_feature: 2,
            output_spatial: vec![0, 3],
        },
        window: window.clone(),
        feature_groups,
        batch_groups,
        dtype: DType::F32,
    };
    let x = t.argument(&[read * feature_groups, columns, batch, rows]);
    let kernel = t.argument(&[window[0].size, written, window[1].size, read]);
    x.convolution(kernel, convolution)
}

pub(super) fn convolution<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    convolve(t, 1, 1)
}

pub(super) fn grouped_convolution<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    convolve(t, 3, 1)
}

pub(super) fn convolution_of_batch_groups<'g>(t: &mut Trial<'g>) -> Tensor<'g> {
    convolve(t, 1, 2)
}

pub(super) fn reduced_windows<'g>(t: &mut Trial<'g>, reduction: Reduction) -> Tensor<'g> {
    let [rows, columns] = [4, 5].map(|n| n + t.stream.below(3) as usize);
    let window = WindowDimension::new(3).stride(1 + t.stream.below(2) as usize).padding(1, 1);
    let one = WindowDimension::new(1);
    t.argument(&[1, rows, columns, 2]).reduce_window(reduction, &[one, window, window, one])
}
