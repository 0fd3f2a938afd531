//! The instructions that a device executes one by one, with the number of executions in a step: the trip counts of loops.

use serde::Serialize;
use serde_json::Value;

use super::program::{Program, is_fused};
use super::scopes::is_in_layer_loop;
use crate::hlo::proto::{HloComputationProto, HloInstructionProto};

/// An instruction that a device executes.
#[derive(Clone, Copy)]
pub(super) struct Execution<'a> {
    /// The instruction, outside fusions.
    pub instruction: &'a HloInstructionProto,
    /// Executions in a step.
    pub times: f64,
    /// It runs beside other instructions, started by `async-start`.
    pub asynchronous: bool,
    /// The iterations of the loop over layers that it is in; none outside of such loops.
    pub layers: Option<f64>,
}

/// The circumstances in which the instructions of a computation are executed: the fields of [`Execution`].
#[derive(Clone, Copy)]
struct Circumstances {
    times: f64,
    asynchronous: bool,
    layers: Option<f64>,
}

/// The instructions and the loops of a whole program.
#[derive(Default)]
pub(super) struct Schedule<'a> {
    pub executions: Vec<Execution<'a>>,
    pub loops: Vec<Loop>,
}

impl<'a> Schedule<'a> {
    /// Lists what `program` executes. A loop whose number of iterations depends on the data has `expected` iterations.
    pub(super) fn of(program: &'a Program, expected: f64) -> Schedule<'a> {
        let mut schedule = Schedule::default();
        if let Some(entry) = program.entry() {
            let once = Circumstances { times: 1.0, asynchronous: false, layers: None };
            schedule.add(program, entry, once, expected);
        }
        schedule
    }

    /// Adds a computation. The branches of a conditional all count. The conditions of loops do not count: they compare two
    /// scalars.
    fn add(
        &mut self,
        program: &'a Program,
        computation: &'a HloComputationProto,
        circumstances: Circumstances,
        expected: f64,
    ) {
        let Circumstances { times, asynchronous, layers } = circumstances;
        for instruction in &computation.instructions {
            match &*instruction.opcode {
                "while" => {
                    let entered = Loop::of(program, instruction, expected);
                    if let Some(body) = program.called(instruction).next() {
                        let layers = if is_over_layers(program, body) { Some(entered.iterations) } else { layers };
                        let inside = Circumstances { times: times * entered.iterations, asynchronous, layers };
                        self.add(program, body, inside, expected);
                    }
                    self.loops.push(entered);
                }
                opcode if opcode == "conditional" || opcode != "fusion" && is_fused(opcode) => {
                    let asynchronous = asynchronous || opcode == "async-start";
                    let inside = Circumstances { asynchronous, ..circumstances };
                    program.called(instruction).for_each(|called| self.add(program, called, inside, expected));
                }
                _ => self.executions.push(Execution { instruction, times, asynchronous, layers }),
            }
        }
    }
}

/// Returns whether `body` is that of a loop over layers: it computes in their scope, and no loop in it does. A compiler may move
/// an instruction with that scope out of the loop, into the body of the loop over micro-batches.
fn is_over_layers(program: &Program, body: &HloComputationProto) -> bool {
    let (loops, others): (Vec<_>, Vec<_>) = body.instructions.iter().partition(|i| i.opcode == "while");
    let in_scope = |instruction: &HloInstructionProto| program.interior(instruction).into_iter().any(is_in_layer_loop);
    let has_inner =
        |inner: &HloInstructionProto| program.called(inner).next().is_some_and(|body| is_over_layers(program, body));
    others.into_iter().any(in_scope) && !loops.into_iter().any(has_inner)
}

/// A loop of a program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Loop {
    /// The name of the instruction.
    pub name: String,
    /// Executions of the body each time that the loop is entered.
    pub iterations: f64,
    /// The origin of the number of iterations.
    pub source: TripCount,
}

/// The origin of a number of iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TripCount {
    /// The compiler's annotation `known_trip_count`.
    Compiler,
    /// The constant with which the condition compares the counter.
    Condition,
    /// The number that the caller expects, because it depends on the data.
    Expected,
}

impl Loop {
    /// Describes a `while` instruction. If its number of iterations depends on the data, it is `expected`.
    pub fn of(program: &Program, instruction: &HloInstructionProto, expected: f64) -> Loop {
        let counted = annotated(instruction).map(|n| (n, TripCount::Compiler));
        let compared = || compared(program, instruction).map(|n| (n, TripCount::Condition));
        let (iterations, source) = counted.or_else(compared).unwrap_or((expected, TripCount::Expected));
        Loop { name: instruction.name.clone(), iterations, source }
    }
}

/// Returns the annotation: `{"known_trip_count":{"n":"3"}}`.
fn annotated(instruction: &HloInstructionProto) -> Option<f64> {
    let config: Value = serde_json::from_slice(&instruction.backend_config).ok()?;
    let n = config.get("known_trip_count")?.get("n")?;
    n.as_f64().or_else(|| n.as_str()?.parse().ok())
}

/// Returns the bound of a loop that counts from zero in steps of one, `counter < bound` with a constant bound. The step is not
/// checked: loops of a graph count in ones.
fn compared(program: &Program, instruction: &HloInstructionProto) -> Option<f64> {
    // A `while` lists its body before its condition.
    let condition = program.computation(*instruction.called_computation_ids.get(1)?)?;
    let root = program.root(condition)?;
    let (compare, arguments) = match &*root.opcode {
        "fusion" => (program.root(program.called(root).next()?)?, Some(root)),
        _ => (root, None),
    };
    // A parameter of a fused comparison is an operand of the fusion.
    let resolve = |operand: &HloInstructionProto| -> Option<HloInstructionProto> {
        match (&*operand.opcode, arguments) {
            ("parameter", Some(fusion)) => {
                program.operand(fusion, usize::try_from(operand.parameter_number).ok()?).cloned()
            }
            _ => Some(operand.clone()),
        }
    };
    let counter = resolve(program.operand(compare, 0)?)?;
    let bound = resolve(program.operand(compare, 1)?)?;
    if compare.opcode != "compare" || compare.comparison_direction != "LT" || counter.opcode != "get-tuple-element" {
        return None;
    }
    let initial = program.operand(instruction, 0)?;
    let start = program.operand(initial, usize::try_from(counter.tuple_index).ok()?)?;
    (constant(program, start)? == 0.0).then_some(())?;
    constant(program, &bound)
}

/// Returns the value of a constant scalar, or of its copy.
fn constant(program: &Program, instruction: &HloInstructionProto) -> Option<f64> {
    if instruction.opcode == "copy" {
        return constant(program, program.operand(instruction, 0)?);
    }
    let literal = instruction.literal.as_ref()?;
    match (&*literal.s32s, &*literal.u32s) {
        ([n], []) => Some(f64::from(*n)),
        ([], [n]) => Some(f64::from(*n)),
        _ => None,
    }
}
