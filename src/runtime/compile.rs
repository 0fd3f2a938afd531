//! Compiled programs: from a specification to an executable, with the time of each stage, and launching it with inputs by
//! name.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::compilation_cache::Origin;
use super::devices::Devices;
use crate::pjrt::{Buffer, Client, Device, HostTransfer, LoadedExecutable};
use crate::step::StepInputs;
use crate::step::program::{Program, Role, Value};

/// A program on its devices.
#[derive(Debug)]
pub struct Compiled {
    /// The arguments, in order.
    pub inputs: Vec<Value>,
    /// The results, in order.
    pub outputs: Vec<Value>,
    /// The loaded program.
    pub executable: LoadedExecutable,
    /// The time of each stage of the compilation.
    pub times: CompileTimes,
}

/// The time from a specification to machine code, by stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileTimes {
    /// Building the graph, with gradients and optimizer.
    pub build: Duration,
    /// Lowering the graph to HLO.
    pub lower: Duration,
    /// XLA's compiler in the plugin, or loading what it compiled before.
    pub compile: Duration,
    /// The origin of the machine code.
    pub origin: Origin,
}

impl CompileTimes {
    /// Returns the sum of all stages.
    pub fn total(&self) -> Duration {
        self.build + self.lower + self.compile
    }
}

impl Compiled {
    /// Builds, lowers and compiles a program. What an earlier process compiled is loaded, if `devices` have a compilation cache.
    ///
    /// # Errors
    /// If the specification is invalid, or compilation fails.
    pub fn new(devices: &Devices, build: impl FnOnce() -> anyhow::Result<Program>) -> anyhow::Result<Compiled> {
        let begin = Instant::now();
        let program = build()?;
        let build = begin.elapsed();
        let module = devices.lower(&program)?;
        let lower = begin.elapsed() - build;
        let (executable, origin) = devices.load_or_compile(&module.bytes)?;
        let compile = begin.elapsed() - build - lower;
        let times = CompileTimes { build, lower, compile, origin };
        Ok(Compiled { inputs: program.inputs, outputs: program.outputs, executable, times })
    }

    /// Returns the arguments behind weights and optimizer state, in order.
    pub fn step_inputs(&self) -> Vec<Value> {
        self.inputs.iter().filter(|value| !is_state(value)).cloned().collect()
    }

    /// Transfers the step's inputs and launches the program; see [`Compiled::launch`].
    ///
    /// # Errors
    /// If an input is missing or of another shape, or the plugin refuses a transfer or the launch.
    pub fn run(&self, devices: &Devices, state: &[Vec<Buffer>], inputs: &StepInputs) -> anyhow::Result<Launched> {
        let inputs = transfer(&devices.client, &devices.devices, &self.step_inputs(), inputs)?;
        self.launch(state, &inputs)
    }

    /// Launches the program on every device of this host, with `state[device]` and then `inputs[device]` as arguments, and
    /// returns while it runs. Donated state is consumed.
    ///
    /// # Errors
    /// If the plugin refuses the launch.
    pub fn launch(&self, state: &[Vec<Buffer>], inputs: &[Vec<Buffer>]) -> anyhow::Result<Launched> {
        let arguments: Vec<Vec<&Buffer>> =
            state.iter().zip(inputs).map(|(state, inputs)| state.iter().chain(inputs).collect()).collect();
        let mut state = self.executable.execute(&arguments)?;
        let state_count = self.outputs.iter().filter(|value| is_state(value)).count();
        let results = state.iter_mut().map(|outputs| outputs.split_off(state_count)).collect();
        let names = self.outputs[state_count..].iter().map(|value| value.name.clone()).collect();
        Ok(Launched { state, names, results })
    }
}

/// A program under way on the devices of this host.
#[derive(Debug)]
pub struct Launched {
    /// Weights and optimizer state after the step, `[device][tensor]`; empty for programs that return none.
    pub state: Vec<Vec<Buffer>>,
    names: Vec<String>,
    /// The other results, `[device][result]`.
    results: Vec<Vec<Buffer>>,
}

impl Launched {
    /// Returns the result `name` on each device.
    ///
    /// # Errors
    /// If the program has no such result.
    pub fn results(&self, name: &str) -> anyhow::Result<Vec<&Buffer>> {
        let at = self.names.iter().position(|own| own == name);
        let at = at.with_context(|| format!("the program has no result {name:?}"))?;
        Ok(self.results.iter().filter_map(|results| results.get(at)).collect())
    }

    /// Begins to copy the result `name` of the first device to the host. Every replica reports the same.
    ///
    /// # Errors
    /// If the program has no such result, or the plugin refuses the transfer.
    pub fn read(&self, name: &str) -> anyhow::Result<HostTransfer> {
        let results = self.results(name)?;
        Ok(results.first().context("a launch has at least one device")?.to_host_async()?)
    }
}

/// Transfers the step's inputs to the devices of this host: `[device][input]`, in the order of `values`.
///
/// # Errors
/// If an input is missing or of another shape, or the plugin refuses a transfer.
pub fn transfer(
    client: &Client,
    devices: &[Device],
    values: &[Value],
    inputs: &StepInputs,
) -> anyhow::Result<Vec<Vec<Buffer>>> {
    let to_device = |(replica, device): (usize, &Device)| {
        let send = |value: &Value| -> anyhow::Result<Buffer> {
            Ok(client.buffer_from_host_async(inputs.tensor(value, replica)?, &value.shape, device)?)
        };
        values.iter().map(send).collect()
    };
    devices.iter().enumerate().map(to_device).collect()
}

fn is_state(value: &Value) -> bool {
    matches!(value.role, Role::Weight | Role::OptimizerState)
}
