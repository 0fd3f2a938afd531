//! The kernels of a program: the instructions that a device executes one by one, with the number of executions in a step.

use super::costs::{Cost, Counter};
use super::kinds::{FREE, Kind};
use super::loops::Loop;
use super::program::{Program, is_fused};
use super::rates::Rates;
use super::scopes::Scopes;
use super::shapes::bytes;
use crate::hlo::proto::{HloComputationProto, HloInstructionProto, ShapeProto};
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
    /// The cost of one execution.
    pub cost: Cost,
    /// The roofline time of one execution in seconds; none if the rates are unknown.
    pub seconds: Option<f64>,
}

/// Custom calls of libtpu that describe memory or values and compute nothing.
const LABELS: [&str; 3] = ["AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast"];

/// Lists the kernels and the loops of a program.
pub(super) struct Walk<'a> {
    counter: Counter<'a>,
    scopes: Scopes,
    rates: Option<&'a Rates>,
    /// Iterations of loops that depend on the data.
    expected: f64,
    pub(super) kernels: Vec<Kernel>,
    pub(super) loops: Vec<Loop>,
}

impl<'a> Walk<'a> {
    /// Walks through the whole program.
    pub(super) fn of(counter: Counter<'a>, rates: Option<&'a Rates>, expected: f64) -> Walk<'a> {
        let scopes = Scopes::new(counter.program);
        let program = counter.program;
        let mut walk = Walk { counter, scopes, rates, expected, kernels: Vec::new(), loops: Vec::new() };
        if let Some(entry) = program.entry() {
            walk.computation(entry, 1.0);
        }
        walk
    }

    /// Adds the kernels of a computation that runs `executions` times. The branches of a conditional all count. The conditions
    /// of loops do not count: they compare two scalars.
    fn computation(&mut self, computation: &'a HloComputationProto, executions: f64) {
        let program = self.counter.program;
        for instruction in &computation.instructions {
            match &*instruction.opcode {
                "while" => {
                    let entered = Loop::of(program, instruction, self.expected);
                    if let Some(body) = program.called(instruction).next() {
                        self.computation(body, executions * entered.iterations);
                    }
                    self.loops.push(entered);
                }
                opcode if opcode == "conditional" || opcode != "fusion" && is_fused(opcode) => {
                    program.called(instruction).for_each(|called| self.computation(called, executions));
                }
                opcode if FREE.contains(&opcode) || LABELS.contains(&&*instruction.custom_call_target) => {}
                _ => {
                    let kernel = self.kernel(instruction, executions);
                    self.kernels.push(kernel);
                }
            }
        }
    }

    fn kernel(&self, instruction: &HloInstructionProto, executions: f64) -> Kernel {
        let program: &Program = self.counter.program;
        let cost = self.counter.cost(instruction);
        Kernel {
            name: instruction.name.clone(),
            kind: Kind::of(program, instruction),
            scope: self.scopes.of(program, instruction),
            shape: instruction.shape.clone().unwrap_or_default(),
            operands: program.operands(instruction).filter_map(|operand| operand.shape.clone()).collect(),
            executions,
            cost,
            seconds: self.rates.map(|rates| rates.seconds(&cost, &collectives(program, instruction))),
        }
    }
}

/// Returns the bytes that an instruction passes through collectives.
fn collectives(program: &Program, instruction: &HloInstructionProto) -> Collectives {
    let sent = program.operands(instruction).filter_map(|operand| operand.shape.as_ref()).map(bytes).sum();
    let received = instruction.shape.as_ref();
    let mut collectives = Collectives::default();
    match &*instruction.opcode {
        "all-reduce" | "all-reduce-start" => collectives.all_reduce = sent,
        "reduce-scatter" => collectives.reduce_scatter = sent,
        "all-gather" => collectives.all_gather = received.map_or(0.0, bytes),
        "all-gather-start" => {
            collectives.all_gather = received.and_then(|shape| shape.tuple_shapes.get(1)).map_or(0.0, bytes);
        }
        _ => {}
    }
    collectives
}
