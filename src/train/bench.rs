//! The benchmark of one training step: built and run as in training, on a synthetic batch.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::memory::{HostMemory, TooLittleMemory};
use crate::pjrt::{CompiledMemoryStats, HostTransfer, PjrtError};
use crate::plan::hardware::peak_flops;
use crate::plan::search::{Trial, fastest_fit};
use crate::runtime::compile::{CompileTimes, Compiled};
use crate::runtime::devices::Devices;
use crate::runtime::state::{StateLayout, TrainState};
use crate::step::{Scalars, StepInputs, StepSpec, TrainStep};
use crate::task::Precision;

/// The first steps, which allocate memory and are not counted.
const WARM_UP: usize = 2;
/// The most steps of a benchmark; the durations of all are stored.
const MOST_STEPS: usize = 1_000_000;
/// The candidates of a search.
const MICRO_BATCH_SIZES: [usize; 15] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384];

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
    /// Page faults of this process in the counted steps, on Linux: memory that the kernel has mapped and cleared.
    pub page_faults: Option<u64>,
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

    /// Returns the sequences/s of the median step.
    pub fn sequences_per_second(&self) -> f64 {
        self.sequences as f64 / self.seconds()[0]
    }
}

/// Compiles the step of `spec` and runs it `steps` times; calls `compiled` with the program before.
///
/// # Errors
/// If the specification contradicts itself, the host or the devices have too little memory, or `compiled` fails.
pub fn measure(
    spec: &StepSpec,
    devices: &Devices,
    steps: usize,
    compiled: impl FnOnce(&Compiled) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    ensure!((1..=MOST_STEPS).contains(&steps), "steps requires 1 to {MOST_STEPS}, got {steps}");
    let step = Compiled::new(devices, || Ok(TrainStep::build(spec)?.program))?;
    compiled(&step)?;
    let memory = step.executable.memory_stats().ok();
    HostMemory::of(memory.map(|memory| memory.peak_estimate().max(0) as u64), devices, 0).check()?;
    let mut state = TrainState::initial(StateLayout::of(spec), 1, devices)?;
    let batch = spec.task.synthetic_batch(spec.rows * spec.replicas);
    let hyperparameters = spec.hyperparameters();

    let mut reader = Reader { begin: Instant::now(), durations: Vec::new(), loss: f64::NAN };
    let mut running: Option<HostTransfer> = None;
    let mut faults_before = None;
    for number in 0..(WARM_UP + steps) as u64 {
        if number == WARM_UP as u64 {
            faults_before = page_faults();
        }
        // As in training, a step is launched before the metrics of the previous one are read, where that takes no memory.
        if !devices.may_launch_ahead() {
            reader.read(running.take())?;
        }
        let scalars = Scalars {
            learning_rate: 1e-4,
            optimizer_step: number + 1,
            step: number,
            seed: 1,
            first_row: 0,
            hyperparameters: &hyperparameters,
        };
        let inputs = StepInputs { batch: &batch, scalars, replicas: devices.len() };
        let mut launched = step.run(devices, state.buffers(), &inputs)?;
        state.replace(std::mem::take(&mut launched.state));
        reader.read(running.replace(launched.read("metrics")?))?;
    }
    reader.read(running)?;
    let faults = page_faults().zip(faults_before).map(|(after, before)| after - before);
    let Reader { mut durations, loss, .. } = reader;
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
        memory,
        device_peak: devices.devices[0].memory_stats().ok().and_then(|stats| stats.peak_bytes_in_use),
        host_peak: peak_host_memory(),
        page_faults: faults,
    })
}

/// Waits for the metrics of steps, one after the other.
struct Reader {
    /// The time at which the last metrics were read.
    begin: Instant,
    durations: Vec<Duration>,
    /// The loss of the last step.
    loss: f64,
}

impl Reader {
    fn read(&mut self, running: Option<HostTransfer>) -> anyhow::Result<()> {
        if let Some(metrics) = running {
            self.loss = metrics.wait()?.to_f64().first().copied().unwrap_or(f64::NAN);
            self.durations.push(self.begin.elapsed());
            self.begin = Instant::now();
        }
        Ok(())
    }
}

/// A micro-batch size of a search.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Rows per device and micro-batch.
    pub micro_batch_size: usize,
    /// None if the devices have too little memory.
    pub measured: Option<Measured>,
}

/// Measures micro-batch sizes, powers of two, with `measure`: first the largest up to `first`, then larger ones while each is faster,
/// then smaller ones until one is slower. Returns all of them, ascending, and the position of the smallest one within 1 % of the most
/// sequences/s; no position if none fits.
///
/// # Errors
/// If `measure` fails for another reason than too little memory.
pub fn find_micro_batch_size(
    first: usize,
    mut measure: impl FnMut(usize) -> anyhow::Result<Measured>,
) -> anyhow::Result<(Vec<Tried>, Option<usize>)> {
    let mut tried: Vec<Tried> = Vec::new();
    let rate = |(_, rate): &(usize, f64)| Some(*rate);
    let fastest = fastest_fit(&MICRO_BATCH_SIZES, first, rate, |micro_batch_size| {
        let measured = match measure(micro_batch_size) {
            Err(error) if is_out_of_memory(&error) => None,
            measured => Some(measured?),
        };
        let rate = measured.as_ref().map(Measured::sequences_per_second);
        tried.push(Tried { micro_batch_size, measured });
        Ok(rate.map_or(Trial::TooLarge, |rate| Trial::Fits((micro_batch_size, rate))))
    })?;
    tried.sort_by_key(|tried| tried.micro_batch_size);
    let position = fastest.and_then(|(size, _)| tried.iter().position(|tried| tried.micro_batch_size == size));
    Ok((tried, position))
}

fn is_out_of_memory(error: &anyhow::Error) -> bool {
    error.is::<TooLittleMemory>() || error.downcast_ref().is_some_and(PjrtError::is_out_of_memory)
}

/// Returns the peak resident set of this process in bytes, on Linux.
fn peak_host_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Returns the page faults of this process that needed no reading (`minflt`), on Linux.
fn page_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may contain spaces; `minflt` is the eighth field behind it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, bail};

    use super::*;
    use crate::pjrt::ErrorCode;

    /// A measurement of one step that took `seconds`.
    fn measured(sequences: usize, seconds: f64) -> Measured {
        Measured {
            steps: vec![Duration::from_secs_f64(seconds)],
            times: CompileTimes::default(),
            sequences,
            flops: 0.0,
            peak_flops: None,
            loss: 0.0,
            memory: None,
            device_peak: None,
            host_peak: None,
            page_faults: None,
        }
    }

    #[test]
    fn the_search_returns_the_sizes_that_it_tried_and_the_fastest() {
        // Each row takes 1 s; a step takes 4 s more, and needs more memory than there is with 64 rows.
        let search = |first| {
            find_micro_batch_size(first, |rows| match rows {
                ..64 => Ok(measured(rows, rows as f64 + 4.0)),
                _ => Err(anyhow!(PjrtError::Call {
                    function: "PJRT_LoadedExecutable_Execute",
                    code: ErrorCode::ResourceExhausted,
                    message: "out of memory".to_owned(),
                })
                .context("step 1")),
            })
            .unwrap()
        };
        let (tried, fastest) = search(10);
        let sizes: Vec<_> = tried.iter().map(|tried| (tried.micro_batch_size, tried.measured.is_some())).collect();
        assert_eq!((sizes, fastest), (vec![(8, true), (16, true), (32, true), (64, false)], Some(2)));
        let (tried, fastest) = search(1_000);
        assert_eq!(tried[fastest.unwrap()].micro_batch_size, 32);
    }

    #[test]
    fn another_failure_ends_the_search() {
        let error = find_micro_batch_size(8, |_| bail!("the device is lost")).unwrap_err();
        assert_eq!(error.to_string(), "the device is lost");
    }
}
