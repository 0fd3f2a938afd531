//! Formulas with scans.

use lambert::graph::{Op, Scan, ScanInputs, ScanOutputs, Tensor};
use lambert::shape::DType;

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
