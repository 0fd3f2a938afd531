//! How fast a step is: built and run as training does it, on a batch that costs no time to make.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::bert::Precision;
use crate::bert::flops::training_flops;
use crate::data::{Batch, PackedRows};
use crate::pjrt::{Buffer, CompiledMemoryStats, HostTransfer};
use crate::plan::hardware::peak_flops;
use crate::rng::Key;
use crate::runtime::compile::{CompileTimes, Compiled};
use crate::runtime::devices::Devices;
use crate::runtime::prefetch::{Scalars, send};
use crate::runtime::state::{StateLayout, TrainState};
use crate::step::train_step::{StepSpec, TrainStep};

/// Steps that are taken and not counted: the first ones allocate.
const WARM_UP: usize = 2;
/// The durations of all are kept.
const MOST_STEPS: usize = 1_000_000;

/// What was measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Time of each counted step, in the order taken.
    pub steps: Vec<Duration>,
    pub times: CompileTimes,
    /// Sequences of one step, over all devices.
    pub sequences: usize,
    /// Floating-point operations of one step by [`training_flops`].
    pub flops: f64,
    /// What all devices could do in a second, if their kind is known and the precision is the one it is known for.
    pub peak_flops: Option<f64>,
    /// The loss of the last step, to see that it was a step.
    pub loss: f64,
    pub memory: Option<CompiledMemoryStats>,
    /// Most bytes in use on the first device, if the plugin counts.
    pub device_peak: Option<i64>,
    /// Most bytes this process had in memory (`VmHWM`), where the system tells.
    pub host_peak: Option<u64>,
}

impl Measured {
    /// Median, shortest and longest step in seconds.
    pub fn seconds(&self) -> [f64; 3] {
        let mut seconds: Vec<f64> = self.steps.iter().map(Duration::as_secs_f64).collect();
        seconds.sort_by(f64::total_cmp);
        let (first, last) = (seconds.first(), seconds.last());
        let middle = seconds.get(seconds.len() / 2);
        [middle, first, last].map(|s| s.copied().unwrap_or(f64::NAN))
    }
}

/// Compiles the step of `spec` and takes it `steps` times; `compiled` sees the program before it runs.
///
/// # Errors
/// If the specification contradicts itself, or the devices have no room.
pub fn measure(
    spec: &StepSpec,
    devices: &Devices,
    steps: usize,
    compiled: impl FnOnce(&Compiled) -> anyhow::Result<()>,
) -> anyhow::Result<Measured> {
    ensure!((1..=MOST_STEPS).contains(&steps), "--steps requires 1 to {MOST_STEPS}, got {steps}");
    let step = Compiled::new(devices, || Ok(TrainStep::build(spec)?.program))?;
    compiled(&step)?;
    let mut state = TrainState::initial(StateLayout::of(spec), 1, devices)?;
    let batch = synthetic(spec);
    let metrics = step.outputs.iter().position(|value| value.name == "metrics").context("the step has no metrics")?;

    let mut begin = Instant::now();
    let mut durations = Vec::new();
    let mut running: Option<HostTransfer> = None;
    let mut loss = f64::NAN;
    for number in 0..=(WARM_UP + steps) {
        // As in training, a step is launched before the one before it is read. The last round only reads.
        let launched = match number < WARM_UP + steps {
            true => {
                let scalars = Scalars {
                    learning_rate: 1e-4,
                    optimizer_step: number as u64 + 1,
                    step: number as u64,
                    seed: 1,
                    first_row: 0,
                };
                let fed = send(&devices.client, &devices.devices, &step.fed_inputs(), &batch, &scalars)?;
                let arguments: Vec<Vec<&Buffer>> =
                    state.buffers().iter().zip(&fed).map(|(state, fed)| state.iter().chain(fed).collect()).collect();
                let mut outputs = step.executable.execute(&arguments)?;
                drop(arguments);
                let transfer = outputs[0][metrics].to_host_async()?;
                outputs.iter_mut().for_each(|outputs| outputs.truncate(state.layout().len()));
                state.replace(outputs);
                Some(transfer)
            }
            false => None,
        };
        if let Some(before) = std::mem::replace(&mut running, launched) {
            loss = before.wait()?.to_f64().first().copied().unwrap_or(f64::NAN);
            durations.push(begin.elapsed());
            begin = Instant::now();
        }
    }
    // Rows are full: as many sequences as they may hold, of equal lengths.
    let per_row = spec.sequences_per_row;
    let sequences = spec.rows * spec.replicas * per_row;
    let of_sequence = training_flops(&spec.model, spec.sequence_length / per_row, spec.predictions / per_row);
    let kind = devices.devices[0].kind();
    Ok(Measured {
        steps: durations.split_off(WARM_UP),
        times: step.times,
        sequences,
        flops: sequences as f64 * of_sequence,
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

/// Full rows of random tokens, each of [`StepSpec::sequences_per_row`] sequences of equal length.
fn synthetic(spec: &StepSpec) -> Batch {
    let rows = spec.rows * spec.replicas;
    let (length, predictions, per_row) = (spec.sequence_length, spec.predictions, spec.sequences_per_row);
    let of_sequence = length / per_row;
    // What a quotient leaves belongs to the last sequence of the row.
    let sequence = |position: usize| (position / of_sequence).min(per_row - 1);
    let packed = || PackedRows {
        sequences_per_row: per_row,
        position_ids: (0..rows * length).map(|i| (i % length - sequence(i % length) * of_sequence) as i32).collect(),
        cls_positions: (0..rows * per_row).map(|i| (i % per_row * of_sequence) as i32).collect(),
        example_ids: (0..rows * per_row).map(|i| i as i32).collect(),
    };
    let mut stream = Key::new(2).stream();
    let mut tokens = |n: usize| -> Vec<i32> {
        // Not the special tokens, if the vocabulary has others.
        let first = 5.min(spec.model.vocab_size - 1);
        (0..n).map(|_| (first as u64 + stream.below((spec.model.vocab_size - first) as u64)) as i32).collect()
    };
    Batch {
        rows,
        sequence_length: length,
        max_predictions: predictions,
        input_ids: tokens(rows * length),
        token_type_ids: (0..rows * length).map(|i| (i % of_sequence >= of_sequence / 2) as i32).collect(),
        attention_mask: (0..rows * length).map(|i| sequence(i % length) as i32 + 1).collect(),
        masked_lm_positions: (0..rows * predictions).map(|i| (i % predictions * length / predictions) as i32).collect(),
        masked_lm_ids: tokens(rows * predictions),
        masked_lm_weights: vec![1.0; rows * predictions],
        next_sentence_labels: (0..rows * per_row).map(|i| (i % 2) as i32).collect(),
        packed: (per_row > 1).then(packed),
    }
}

/// The most bytes this process had in memory, on Linux.
fn peak_host_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
