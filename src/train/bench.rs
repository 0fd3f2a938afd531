//! The benchmark of one training step: built and run as in training, on a synthetic batch.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::pjrt::{CompiledMemoryStats, HostTransfer};
use crate::plan::hardware::peak_flops;
use crate::runtime::compile::{CompileTimes, Compiled};
use crate::runtime::devices::Devices;
use crate::runtime::state::{StateLayout, TrainState};
use crate::step::{Scalars, StepInputs, StepSpec, TrainStep};
use crate::task::Precision;

/// The first steps, which allocate memory and are not counted.
const WARM_UP: usize = 2;
/// The most steps of a benchmark; the durations of all are stored.
const MOST_STEPS: usize = 1_000_000;

/// The measurements of a benchmark.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The duration of each counted step, in order.
    pub steps: Vec<Duration>,
    /// The time of each stage of the compilation.
    pub times: CompileTimes,
    /// The sequences of one step, over all devices.
    pub sequences: usize,
    /// Floating-point operations of one step by [`crate::task::Task::training_flops`].
    pub flops: f64,
    /// The peak FLOP/s of all devices, if it is known for their kind and the precision.
    pub peak_flops: Option<f64>,
    /// The loss of the last step.
    pub loss: f64,
    /// The memory of the step by the compiler's own count.
    pub memory: Option<CompiledMemoryStats>,
    /// The most bytes in use on the first device, if the plugin reports it.
    pub device_peak: Option<i64>,
    /// The peak resident set of this process in bytes (`VmHWM`), on Linux.
    pub host_peak: Option<u64>,
}

impl Measured {
    /// Returns the median, shortest and longest step in seconds.
    pub fn seconds(&self) -> [f64; 3] {
        let mut seconds: Vec<f64> = self.steps.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (first, last) = (seconds.first(), seconds.last());
        let middle = seconds.get(seconds.len() / 2);
        [middle, first, last].map(|s| s.copied().unwrap_or(f64::NAN))
    }
}

/// Compiles the step of `spec` and runs it `steps` times; calls `compiled` with the program before.
///
/// # Errors
/// If the specification contradicts itself, the devices are out of memory, or `compiled` fails.
pub fn measure(
    spec: &StepSpec,
    devices: &Devices,
    steps: usize,
    compiled: impl FnOnce(&Compiled) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    ensure!((1..=MOST_STEPS).contains(&steps), "steps requires 1 to {MOST_STEPS}, got {steps}");
    let step = Compiled::new(devices, || Ok(TrainStep::build(spec)?.program))?;
    compiled(&step)?;
    let mut state = TrainState::initial(StateLayout::of(spec), 1, devices)?;
    let batch = spec.task.synthetic_batch(spec.rows * spec.replicas);
    let hyperparameters = spec.hyperparameters();

    let mut begin = Instant::now();
    let mut durations = Vec::new();
    let mut running: Option<HostTransfer> = None;
    let mut loss = f64::NAN;
    for number in 0..=(WARM_UP + steps) {
        // As in training, a step is launched before the metrics of the previous one are read. The last round only reads.
        let launched = match number < WARM_UP + steps {
            true => {
                let scalars = Scalars {
                    learning_rate: 1e-4,
                    optimizer_step: number as u64 + 1,
                    step: number as u64,
                    seed: 1,
                    first_row: 0,
                    hyperparameters: &hyperparameters,
                };
                let inputs = StepInputs { batch: &batch, scalars, replicas: devices.len() };
                let mut launched = step.run(devices, state.buffers(), &inputs)?;
                state.replace(std::mem::take(&mut launched.state));
                Some(launched.read("metrics")?)
            }
            false => None,
        };
        if let Some(before) = std::mem::replace(&mut running, launched) {
            loss = before.wait()?.to_f64().first().copied().unwrap_or(f64::NAN);
            durations.push(begin.elapsed());
            begin = Instant::now();
        }
    }
    let rows = spec.rows * spec.replicas;
    let kind = devices.devices[0].kind();
    Ok(Measured {
        steps: durations.split_off(WARM_UP),
        times: step.times,
        sequences: rows * spec.task.examples_per_row(),
        flops: rows as f64 * spec.task.training_flops(),
        peak_flops: (spec.precision == Precision::Bf16)
            .then(|| peak_flops(kind))
            .flatten()
            .map(|peak| peak * devices.len() as f64),
        loss,
        memory: step.executable.memory_stats().ok(),
        device_peak: devices.devices[0].memory_stats().ok().and_then(|stats| stats.peak_bytes_in_use),
        host_peak: peak_host_memory(),
    })
}

/// Returns the peak resident set of this process in bytes, on Linux.
fn peak_host_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
