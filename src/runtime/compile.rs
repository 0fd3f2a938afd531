//! From what a step depends on to a program that runs, with the time that each stage took.

use std::time::{Duration, Instant};

use super::devices::Devices;
use crate::pjrt::LoadedExecutable;
use crate::step::program::{Program, Role, Value};

/// A program on its devices.
#[derive(Debug)]
pub struct Compiled {
    /// What the arguments are, in order.
    pub inputs: Vec<Value>,
    /// What the results are, in order.
    pub outputs: Vec<Value>,
    pub executable: LoadedExecutable,
    pub times: CompileTimes,
}

/// How long a program took from its specification to machine code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileTimes {
    /// The graph, gradients and optimizer included.
    pub build: Duration,
    /// From the graph to HLO.
    pub lower: Duration,
    /// The plugin's compiler.
    pub compile: Duration,
}

impl CompileTimes {
    pub fn total(&self) -> Duration {
        self.build + self.lower + self.compile
    }
}

impl Compiled {
    /// Builds, lowers and compiles.
    ///
    /// # Errors
    /// If the specification contradicts itself, or what the compiler says.
    pub fn new(devices: &Devices, build: impl FnOnce() -> anyhow::Result<Program>) -> anyhow::Result<Compiled> {
        let begin = Instant::now();
        let program = build()?;
        let build = begin.elapsed();
        let module = program.lower();
        let lower = begin.elapsed() - build;
        let executable = devices.compile(&module.bytes)?;
        let compile = begin.elapsed() - build - lower;
        let times = CompileTimes { build, lower, compile };
        Ok(Compiled { inputs: program.inputs, outputs: program.outputs, executable, times })
    }

    /// The arguments that are neither weights nor slots, in order.
    pub fn fed_inputs(&self) -> Vec<Value> {
        self.inputs.iter().filter(|value| !matches!(value.role, Role::Weight | Role::Slot)).cloned().collect()
    }
}
