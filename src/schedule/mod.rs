//! The schedule of a run: everything that depends on the step number, as one pure function, [`Schedule::at`].
//!
//! A **step** is one weight update; steps count from 0 over the whole run. A [`Phase`] is a range of steps with one batch
//! shape and one learning-rate curve; each phase has its own warm-up. The schedule has no state, so a resumed run computes
//! the same values.

mod batch_ramp;
mod decay;
mod masking;

use serde::{Deserialize, Serialize};

pub use self::batch_ramp::BatchRamp;
use self::batch_ramp::RampedStep;
use self::decay::scientific;
pub use self::decay::{Cooldown, Decay};
pub use self::masking::MaskingRate;
use crate::divergence::SkippedExamples;
use crate::units::{counted, thousands};

/// The default maximum of sequences in a packed row. With eight, 99 % of 512 positions have a token even if most documents
/// are short.
pub const SEQUENCES_PER_ROW: usize = 8;

/// The sequence length from which rows are packed by default. In mixed prose, 51 % of positions have a token at 512 and 84 %
/// at 128, where a packed row has 1.16 sequences and needs 27 masked positions instead of 20.
const MIN_LENGTH_TO_PACK: usize = 256;

/// The accumulation steps from which rows are packed by default. Packing saves whole micro-batches at the end of a step, so
/// with few of them it saves little.
const MIN_ACCUMULATION_STEPS_TO_PACK: usize = 4;

/// The most phases. Each is compiled before the first step, and has lines of its own in the output.
const MOST_PHASES: usize = 1000;

/// Optimizers count steps in s32.
const MOST_STEPS: u64 = i32::MAX as u64;

/// Integers up to here are exact in the JSON of metrics and checkpoints.
const MOST_TOKENS: f64 = (1_u64 << 53) as f64;

/// A range of steps with one batch shape: a `[[phase]]` table of a run file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// The name in messages; the number of the phase if it is not set.
    #[serde(default)]
    pub name: String,
    /// Positions of a row.
    pub sequence_length: usize,
    /// Masked positions per sequence, at most.
    pub max_predictions_per_seq: usize,
    /// Sequences per step, over all replicas and hosts.
    pub global_batch: usize,
    /// The growth of the batch to `global_batch` at the start of the phase; none if all steps have the same batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_ramp: Option<BatchRamp>,
    /// Rows per device and micro-batch. A row is a sequence, or several packed ones.
    pub micro_batch_size: usize,
    /// Sequences per row, at most; 1 does not pack. The default is that of [`Phase::sequences_per_row`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequences_per_row: Option<usize>,
    /// The number of weight updates.
    pub steps: u64,
    /// The fraction of tokens that is masked, if it differs from that of `[data]`; one number, or a ramp over the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masked_lm_prob: Option<MaskingRate>,
    /// The peak learning rate. Exactly one of this and `sqrt_scaled` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// The peak learning rate, scaled from that of another batch size; see [`sqrt_batch_scaling`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqrt_scaled: Option<SqrtScaled>,
    /// The length of the warm-up.
    #[serde(default)]
    pub warmup: Warmup,
    /// The step of the phase at which the warm-up starts, 0 or negative. A negative one skips the first part of the warm-up,
    /// as `start_warmup_step` of MLPerf does. It does not move the decay.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub warmup_start: i64,
    /// The learning rate after the peak.
    #[serde(default)]
    pub decay: Decay,
    /// The formula that combines warm-up and decay.
    #[serde(default)]
    pub curve: Curve,
    /// Whether the moments of the optimizer continue from the previous phase (true) or restart at zero.
    #[serde(default = "yes")]
    pub carry_moments: bool,
    /// Whether the step count of the bias correction continues from the previous phase (true) or restarts at one, as in the
    /// second phase of NVIDIA.
    #[serde(default = "yes")]
    pub carry_step: bool,
}

fn yes() -> bool {
    true
}

fn is_zero(step: &i64) -> bool {
    *step == 0
}

/// A learning rate and its batch size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqrtScaled {
    /// The peak learning rate at `base_batch`.
    pub base_rate: f64,
    /// The global batch of `base_rate`, in sequences.
    pub base_batch: usize,
}

/// The length of the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Warmup {
    /// A number of steps.
    Steps(u64),
    /// A fraction of the steps of the phase, from 0 to 1.
    Proportion(f64),
    /// A fraction proportional to the batch size; see [`linear_epoch_warmup`].
    LinearEpoch {
        /// The share of the steps at `base_batch`.
        base_proportion: f64,
        /// The global batch of `base_proportion`, in sequences.
        base_batch: usize,
    },
}

impl Default for Warmup {
    fn default() -> Self {
        Warmup::Steps(0)
    }
}

/// The formula that joins warm-up and decay. t is the step in the phase from 0, T the steps and W the warm-up steps of the
/// phase:
///
/// | curve | t < W | afterwards, d(progress) |
/// |---|---|---|
/// | `continuous` | peak·(t+1)/W | d((t−W)/(T−W)): starts at the peak, no step has rate 0 |
/// | `google` | peak·t/W | d(t/T): the first step has rate 0, and the rate jumps down when the warm-up ends |
/// | `nvidia` | peak·(t+1)/W | d((t+1)/T): jumps down likewise, and the last step has rate 0 (or `end`) |
///
/// With `warmup_start` s ≤ 0, the warm-up uses t − s instead of t, so it ends at step W + s; `continuous` decays from
/// there. (mlcommons/training, BERT, `optimization.py`: curve `google`, `start_warmup_step` = s.)
///
/// Sources: google-research/bert `optimization.py`; NVIDIA/DeepLearningExamples, PyTorch BERT, `schedulers.py`
/// (PolyWarmUpScheduler, which does not round W to an integer; this curve does not either).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Curve {
    /// Continuous at the end of the warm-up.
    #[default]
    Continuous,
    /// The curve of google-research/bert.
    Google,
    /// The curve of NVIDIA's PolyWarmUpScheduler.
    Nvidia,
}

/// An error about a phase or a step.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant explains it and its fields")]
pub enum ScheduleError {
    #[error("a schedule requires at least one [[phase]], got none")]
    Empty,
    #[error("a schedule requires at most {MOST_PHASES} [[phase]] tables, because each is compiled, got {got}")]
    Many { got: usize },
    #[error("phase {phase:?}: {key} requires {requires}, got {got}")]
    Phase { phase: String, key: &'static str, requires: String, got: String },
    #[error("step {step} is past the end: the schedule has {steps} steps (0 to {})", steps - 1)]
    PastTheEnd { step: u64, steps: u64 },
}

/// The values of one step, apart from those of its [`Phase`].
#[derive(Clone, Debug, PartialEq)]
pub struct StepPlan {
    /// Index into the schedule's phases.
    pub phase: usize,
    /// The step in the phase, from 0.
    pub step_in_phase: u64,
    /// Sequences of the step, over all replicas and hosts.
    pub global_batch: usize,
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// The index of the first sequence of the step in the sequences of the phase.
    pub first_example: u64,
    /// The step count of the bias correction, from 1.
    pub optimizer_step: u64,
}

/// The state of the schedule after some steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Index of the phase of the next step; that of the last step at the end.
    pub phase: usize,
    /// Completed steps in this phase.
    pub step_in_phase: u64,
    /// The index of the next sequence in the sequences of the phase.
    pub next_example: u64,
    /// The step count of the bias correction at the last completed step.
    pub optimizer_steps: u64,
}

/// A validated list of phases.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    phases: Vec<Phase>,
    /// The first step of each phase, then the number of all steps.
    starts: Vec<u64>,
    /// Examples that no step uses.
    skipped: SkippedExamples,
}

impl Schedule {
    /// # Errors
    /// If there is no phase, there are too many, or one has a value that no phase can have.
    pub fn new(mut phases: Vec<Phase>) -> Result<Self, ScheduleError> {
        if phases.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if phases.len() > MOST_PHASES {
            return Err(ScheduleError::Many { got: phases.len() });
        }
        let mut starts = vec![0_u64];
        for (i, phase) in phases.iter_mut().enumerate() {
            if phase.name.is_empty() {
                phase.name = format!("{}", i + 1);
            }
            phase.validate()?;
            let end = starts[i].saturating_add(phase.steps);
            if end > MOST_STEPS {
                let (key, requires) = ("steps", format!("at most {MOST_STEPS} in all phases"));
                return Err(ScheduleError::Phase { phase: phase.name.clone(), key, requires, got: end.to_string() });
            }
            starts.push(end);
        }
        Ok(Schedule { phases, starts, skipped: SkippedExamples::default() })
    }

    /// Returns the same schedule on other examples: those that remain without `skipped`.
    #[must_use]
    pub fn leaving_out(&self, skipped: &SkippedExamples) -> Schedule {
        Schedule { skipped: skipped.clone(), ..self.clone() }
    }

    /// Returns the phases in order.
    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    /// Returns the number of steps of the run.
    pub fn steps(&self) -> u64 {
        self.starts[self.phases.len()]
    }

    /// Returns the first step of phase `phase`.
    pub fn start_of(&self, phase: usize) -> u64 {
        self.starts[phase]
    }

    /// Returns the position after `done` steps.
    ///
    /// # Errors
    /// If the schedule has fewer steps.
    pub fn position(&self, done: u64) -> Result<Position, ScheduleError> {
        if done == self.steps() {
            let StepPlan { phase, step_in_phase, first_example, global_batch, optimizer_step, .. } =
                self.at(done - 1)?;
            let (step_in_phase, next_example) = (step_in_phase + 1, first_example + global_batch as u64);
            return Ok(Position { phase, step_in_phase, next_example, optimizer_steps: optimizer_step });
        }
        let StepPlan { phase, step_in_phase, first_example, optimizer_step, .. } = self.at(done)?;
        Ok(Position { phase, step_in_phase, next_example: first_example, optimizer_steps: optimizer_step - 1 })
    }

    /// Returns the values of step `n`, from 0.
    ///
    /// # Errors
    /// If the schedule has no step `n`.
    pub fn at(&self, n: u64) -> Result<StepPlan, ScheduleError> {
        if n >= self.steps() {
            return Err(ScheduleError::PastTheEnd { step: n, steps: self.steps() });
        }
        let index = self.starts.partition_point(|&start| start <= n) - 1;
        let (phase, step_in_phase) = (&self.phases[index], n - self.starts[index]);
        // The count restarts where the last phase up to here began that does not carry it.
        let counted_from = (1..=index).rev().find(|&i| !self.phases[i].carry_step).map_or(0, |i| self.starts[i]);
        let RampedStep { batch, first_sequence } = phase.batch_at(step_in_phase);
        Ok(StepPlan {
            phase: index,
            step_in_phase,
            global_batch: batch,
            learning_rate: phase.learning_rate_at(step_in_phase),
            first_example: self.skipped.position(index, first_sequence),
            optimizer_step: n - counted_from + 1,
        })
    }
}

impl Phase {
    /// # Errors
    /// The first key whose value is impossible, with what it requires.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        let refuse = |key, requires: &str, got: String| {
            Err(ScheduleError::Phase { phase: self.name.clone(), key, requires: requires.to_string(), got })
        };
        let sizes = [
            ("sequence_length", self.sequence_length as u64),
            ("max_predictions_per_seq", self.max_predictions_per_seq as u64),
            ("global_batch", self.global_batch as u64),
            ("micro_batch_size", self.micro_batch_size as u64),
            ("steps", self.steps),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return refuse(key, "at least 1", "0".to_string());
        }
        if self.max_predictions_per_seq > self.sequence_length {
            let requires = format!("at most sequence_length ({})", self.sequence_length);
            return refuse("max_predictions_per_seq", &requires, self.max_predictions_per_seq.to_string());
        }
        if let Some(sequences) = self.sequences_per_row
            && !(1..=self.sequence_length).contains(&sequences)
        {
            let requires = format!("1 to sequence_length ({})", self.sequence_length);
            return refuse("sequences_per_row", &requires, sequences.to_string());
        }
        if !self.global_batch.is_multiple_of(self.micro_batch_size) {
            let requires = format!("a multiple of micro_batch_size ({})", self.micro_batch_size);
            return refuse("global_batch", &requires, self.global_batch.to_string());
        }
        if let Some(ramp) = self.batch_ramp
            && let Err((key, requires, got)) = ramp.check(self.global_batch, self.micro_batch_size)
        {
            return refuse(key, &requires, got);
        }
        let tokens = self.steps as f64 * self.global_batch as f64 * self.sequence_length as f64;
        if tokens > MOST_TOKENS {
            let requires = format!("steps × global_batch × sequence_length of at most {MOST_TOKENS:.0}");
            return refuse("steps", &requires, format!("{tokens:.0}"));
        }
        let requires = "a positive number, given once: as learning_rate or by sqrt_scaled";
        let base = self.sqrt_scaled.map(|s| s.base_rate);
        match (self.learning_rate, base) {
            (Some(rate), None) | (None, Some(rate)) if rate.is_finite() && rate > 0.0 => {}
            (Some(rate), Some(base)) => return refuse("learning_rate", requires, format!("both, {rate} and {base}")),
            (None, None) => return refuse("learning_rate", requires, "neither".to_string()),
            (Some(rate), None) | (None, Some(rate)) => return refuse("learning_rate", requires, rate.to_string()),
        }
        if self.sqrt_scaled.is_some_and(|s| s.base_batch == 0) {
            return refuse("sqrt_scaled.base_batch", "at least 1", "0".to_string());
        }
        match self.warmup {
            Warmup::Proportion(proportion) if !(0.0..=1.0).contains(&proportion) => {
                return refuse("warmup.proportion", "a number from 0 to 1", proportion.to_string());
            }
            Warmup::LinearEpoch { base_batch: 0, .. } => {
                return refuse("warmup.linear_epoch.base_batch", "at least 1", "0".to_string());
            }
            // A large one is possible at a larger batch size than that of the phase.
            Warmup::LinearEpoch { base_proportion, .. } if !(0.0..).contains(&base_proportion) => {
                let key = "warmup.linear_epoch.base_proportion";
                return refuse(key, "a number of at least 0", base_proportion.to_string());
            }
            Warmup::Steps(_) | Warmup::Proportion(_) | Warmup::LinearEpoch { .. } => {}
        }
        let warmup = self.warmup_steps();
        if !(0.0..=self.steps as f64).contains(&warmup) {
            return refuse(
                "warmup",
                "between none and all of the phase's steps",
                format!("{warmup} of {}", self.steps),
            );
        }
        if self.warmup_start > 0 {
            return refuse("warmup_start", "0 or a negative step", self.warmup_start.to_string());
        }
        let warmed = (warmup + self.warmup_start as f64).max(0.0);
        if let Err((key, requires, got)) = self.decay.check(self.peak(), warmed / self.steps as f64) {
            return refuse(key, &requires, got);
        }
        Ok(())
    }

    /// Returns the number of sequences of all steps.
    pub fn sequences(&self) -> u64 {
        self.batch_at(self.steps).first_sequence
    }

    /// Returns the number of steps of the full batch that have as many sequences as the phase.
    pub fn full_steps(&self) -> f64 {
        self.sequences() as f64 / self.global_batch as f64
    }

    /// Returns the batch of step `t` of the phase, from 0, and the number of sequences before it.
    fn batch_at(&self, t: u64) -> RampedStep {
        match self.batch_ramp {
            Some(ramp) => ramp.at(self.global_batch, t),
            None => RampedStep { batch: self.global_batch, first_sequence: t * self.global_batch as u64 },
        }
    }

    /// Returns the number of micro-batches per step on each of `replicas` devices (over all hosts).
    ///
    /// # Errors
    /// If the global batch does not divide evenly.
    pub fn accumulation_steps(&self, replicas: usize) -> Result<usize, ScheduleError> {
        let at_once = self.micro_batch_size * replicas;
        let sizes =
            [("global_batch", Some(self.global_batch)), ("batch_ramp.start", self.batch_ramp.map(|ramp| ramp.start))];
        let sizes = sizes.into_iter().chain([("batch_ramp.increment", self.batch_ramp.map(|ramp| ramp.increment))]);
        for (key, size) in sizes.filter_map(|(key, size)| Some((key, size?))) {
            if at_once == 0 || !size.is_multiple_of(at_once) {
                let requires =
                    format!("a multiple of micro_batch_size × replicas ({} × {replicas})", self.micro_batch_size);
                return Err(ScheduleError::Phase { phase: self.name.clone(), key, requires, got: size.to_string() });
            }
        }
        Ok(self.global_batch / at_once)
    }

    /// Returns the maximum of sequences per row: that of the phase or, by default, [`SEQUENCES_PER_ROW`] if rows are long
    /// enough to have much padding and there are enough micro-batches for packing to save some.
    pub fn sequences_per_row(&self, accumulation_steps: usize) -> usize {
        let packs = self.sequence_length >= MIN_LENGTH_TO_PACK && accumulation_steps >= MIN_ACCUMULATION_STEPS_TO_PACK;
        self.sequences_per_row.unwrap_or(if packs { SEQUENCES_PER_ROW } else { 1 })
    }

    /// Returns the peak learning rate.
    pub fn peak(&self) -> f64 {
        match (self.learning_rate, self.sqrt_scaled) {
            (Some(rate), _) => rate,
            (None, Some(s)) => sqrt_batch_scaling(s.base_rate, s.base_batch, self.global_batch).value,
            (None, None) => f64::NAN,
        }
    }

    /// Returns the number of warm-up steps. It is an integer except for the curve `nvidia`.
    pub fn warmup_steps(&self) -> f64 {
        let proportion = match self.warmup {
            Warmup::Steps(steps) => return steps as f64,
            Warmup::Proportion(proportion) => proportion,
            Warmup::LinearEpoch { base_proportion, base_batch } => {
                linear_epoch_warmup(base_proportion, base_batch, self.global_batch).value
            }
        };
        let steps = proportion * self.steps as f64;
        if self.curve == Curve::Nvidia { steps } else { steps.round() }
    }

    /// Returns a sentence for each value that a scaling rule determined, and for a ramp of the batch.
    pub fn choices(&self) -> Vec<String> {
        let rate =
            self.sqrt_scaled.map(|s| sqrt_batch_scaling(s.base_rate, s.base_batch, self.global_batch).explanation);
        let warmup = match self.warmup {
            Warmup::LinearEpoch { base_proportion, base_batch } => {
                Some(linear_epoch_warmup(base_proportion, base_batch, self.global_batch).explanation)
            }
            _ => None,
        };
        let ramp = self.batch_ramp.map(|ramp| {
            let BatchRamp { start, increment, sequences } = ramp;
            let [start, full, increment] = [start, self.global_batch, increment].map(|batch| thousands(batch as u64));
            let (sequences, steps) = (thousands(sequences), counted(ramp.steps(self.global_batch), "step"));
            format!("batch {start} at first, growing by {increment} to {full} within {sequences} sequences ({steps})")
        });
        rate.into_iter().chain(warmup).chain(ramp).collect()
    }

    /// Describes the learning-rate curve: `linear warm-up to 8e-3 over 84 steps, then linear decay to 0 at step 840`. Steps
    /// count from the start of the phase.
    pub fn describe_learning_rate(&self) -> String {
        let (steps, warmup, peak) = (thousands(self.steps), self.warmup_steps().round(), scientific(self.peak()));
        let decay = self.decay.describe(&steps);
        let curve = match self.curve {
            Curve::Continuous => "",
            Curve::Google => " (curve google)",
            Curve::Nvidia => " (curve nvidia)",
        };
        let start = match self.warmup_start {
            0 => String::new(),
            start => format!(" from step {start}"),
        };
        match warmup {
            0.0 => format!("{peak}, {decay}{curve}"),
            _ => {
                let steps = counted(warmup as u64, "step");
                format!("linear warm-up{start} to {peak} over {steps}, then {decay}{curve}")
            }
        }
    }

    /// Returns the learning rate of step `t` of the phase, from 0.
    pub fn learning_rate_at(&self, t: u64) -> f64 {
        let (t, steps, warmup, peak) = (t as f64, self.steps as f64, self.warmup_steps(), self.peak());
        let (warmed, end) = (t - self.warmup_start as f64, (warmup + self.warmup_start as f64).max(0.0));
        match self.curve {
            Curve::Continuous if warmed < warmup => peak * (warmed + 1.0) / warmup,
            Curve::Continuous => self.decay.rate(peak, (t - end) / (steps - end), steps - end, steps),
            Curve::Google if warmed < warmup => peak * warmed / warmup,
            Curve::Google => self.decay.rate(peak, t / steps, steps, steps),
            Curve::Nvidia if warmed + 1.0 < warmup => peak * (warmed + 1.0) / warmup,
            Curve::Nvidia => self.decay.rate(peak, (t + 1.0) / steps, steps, steps),
        }
    }
}

/// A value determined by a scaling rule, with an explanation.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaled {
    /// The scaled value.
    pub value: f64,
    /// A sentence that states the rule and its inputs.
    pub explanation: String,
}

/// Square-root scaling of the learning rate: rate · √(batch / base batch). Source: arXiv 1904.00962, section 4
/// ("untuned LAMB": 5/(2³·10³) at 512 becomes 5/10³ at 32,768).
pub fn sqrt_batch_scaling(base_rate: f64, base_batch: usize, batch: usize) -> Scaled {
    let value = base_rate * (batch as f64 / base_batch as f64).sqrt();
    let explanation = format!(
        "learning rate {value:.6} at batch {batch}: {base_rate} at batch {base_batch}, scaled by the square root"
    );
    Scaled { value, explanation }
}

/// Linear-epoch warm-up: the number of warm-up epochs is proportional to the batch size, so with a fixed number of epochs
/// the fraction of warm-up steps is too. Source: arXiv 1904.00962, section 4 (1/320 at 512 becomes 1/5 at 32,768).
pub fn linear_epoch_warmup(base_proportion: f64, base_batch: usize, batch: usize) -> Scaled {
    let value = base_proportion * (batch as f64 / base_batch as f64);
    let explanation = format!(
        "warm-up over {value:.6} of the steps at batch {batch}: {base_proportion:.6} at batch {base_batch}, scaled linearly"
    );
    Scaled { value, explanation }
}

#[cfg(test)]
mod tests;

/// The work of one phase, for the estimate of the remaining time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PhaseWork {
    /// The number of steps.
    pub steps: u64,
    /// Floating-point operations of one step. Only ratios between phases matter.
    pub flops_per_step: f64,
}
