//! The kernels of a program: the instructions that a device executes one by one and that compute, move or communicate.

use super::collectives::of_execution;
use super::costs::{Cost, Counter};
use super::executions::Execution;
use super::kinds::{FREE, Kind};
use super::program::Program;
use super::rates::Rates;
use super::scopes::{Scopes, is_of_layer};
use crate::hlo::proto::ShapeProto;
use crate::plan::traffic::Collectives;

/// One kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The name of the instruction in the program.
    pub name: String,
    /// The kind.
    pub kind: Kind,
    /// The place in the model, `gradients/encoder/layer.3/attention`; after merging, `layer.*`.
    pub scope: String,
    /// The result.
    pub shape: ShapeProto,
    /// The operands.
    pub operands: Vec<ShapeProto>,
    /// Executions in a step.
    pub executions: f64,
    /// Executions in the layers of one micro-batch: one for each layer of a loop over layers, 0 outside of layers.
    pub in_layers: f64,
    /// The cost of one execution.
    pub cost: Cost,
    /// The roofline time of one execution in seconds; none if the rates are unknown.
    pub seconds: Option<f64>,
}

/// Custom calls of libtpu that describe memory or values and compute nothing.
const LABELS: [&str; 3] = ["AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast"];

/// Describes kernels of a program.
pub(super) struct Kernels<'a> {
    counter: Counter<'a>,
    scopes: Scopes,
    rates: Option<&'a Rates>,
}

impl<'a> Kernels<'a> {
    /// Prepares for the program of `counter`.
    pub(super) fn new(counter: Counter<'a>, rates: Option<&'a Rates>) -> Kernels<'a> {
        let scopes = Scopes::new(counter.program);
        Kernels { counter, scopes, rates }
    }

    /// Describes an instruction; none if it only names values, or waits.
    pub(super) fn kernel(&self, execution: &Execution<'_>) -> Option<Kernel> {
        let Execution { instruction, times, layers, .. } = *execution;
        if FREE.contains(&&*instruction.opcode) || LABELS.contains(&&*instruction.custom_call_target) {
            return None;
        }
        let program: &Program = self.counter.program;
        let cost = self.counter.cost(instruction);
        let seconds = |rates: &Rates| {
            let collectives = of_execution(program, &Execution { times: 1.0, ..*execution });
            rates.seconds(&cost, &Collectives::of_compiled(&collectives, rates.devices()))
        };
        let scope = self.scopes.of(program, instruction);
        let in_layers = layers.unwrap_or(if is_of_layer(&scope) { 1.0 } else { 0.0 });
        Some(Kernel {
            name: instruction.name.clone(),
            kind: Kind::of(program, instruction),
            scope,
            shape: instruction.shape.clone().unwrap_or_default(),
            operands: program.operands(instruction).filter_map(|operand| operand.shape.clone()).collect(),
            executions: times,
            in_layers,
            cost,
            seconds: self.rates.map(seconds),
        })
    }
}
