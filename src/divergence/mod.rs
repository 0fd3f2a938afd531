//! The divergence alarm: a rule on the numbers of each step that finds out when training has failed. It depends on these numbers
//! only, so that all hosts of a run decide alike.
//!
//! Training has diverged if one of these holds. Each is a median over several steps, so that a few bad batches have no effect:
//!
//! | number | median of | diverged |
//! |---|---|---|
//! | loss | 9 steps | above 2 times the loss of a uniform guess, at any time |
//! | loss | 50 steps (25 at the start of the run) | at 0.95 times the baseline or above, after it was at 0.75 times or below; not during the first warm-up |
//! | gradient norm | 9 steps | above 100 times the largest such median of the first 50 steps |
//! | trust ratio | 9 steps | above 1000 times the largest such median of the first 50 steps |
//!
//! The baseline is the loss of a model that knows only the label frequencies: of masked language modelling, the unigram loss. A model
//! that is destroyed by too large updates falls back to it and stays there, because the output bias alone reaches it. The loss of a
//! healthy run rises at a change to longer sequences too, but by far less. Norms have no natural limit, so that they are compared with
//! the start of the run.
//!
//! A checkpoint is good once the losses of the nine steps after it are calm, or an evaluation of its weights is.
//!
//! A run that never learned anything has nothing to lose, so no rule above applies to it; [`Monitor::nothing_learned`] judges it at its
//! end.

mod nothing_learned;
mod skipped;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub use nothing_learned::NothingLearned;
pub use skipped::{RollBacks, SkippedExamples, SkippedRange};

/// Steps of a short median.
const SHORT: usize = 9;
/// Steps of a long median.
const LONG: usize = 50;
/// The largest loss, as a multiple of that of a uniform guess.
const LOSS_LIMIT: f64 = 2.0;
/// A model whose loss was at most this share of the baseline has learned something.
const LEARNED: f64 = 0.75;
/// It has lost it if the loss is at least this share of the baseline again.
const FORGOTTEN: f64 = 0.95;
/// Steps at the start of a run whose norms are compared with later ones.
const START: u64 = 50;
/// The largest gradient norm, as a multiple of the largest one at the start.
const GRADIENT_LIMIT: f64 = 100.0;
/// The largest trust ratio, as a multiple of the largest one at the start. Ratios of LARS grow as gradients shrink.
const TRUST_RATIO_LIMIT: f64 = 1000.0;

/// The numbers of one step. They are written as a text, because numbers in JSON may be read back with another last bit, and a run that
/// resumes must decide as one that does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Numbers {
    /// The loss that the rule is about.
    pub loss: f64,
    /// The global norm of the gradients, before clipping.
    pub gradient_norm: f64,
    /// The median trust ratio of the parameter tensors.
    pub trust_ratio: f64,
}

impl From<Numbers> for String {
    fn from(Numbers { loss, gradient_norm, trust_ratio }: Numbers) -> String {
        format!("{loss} {gradient_norm} {trust_ratio}")
    }
}

impl TryFrom<String> for Numbers {
    type Error = String;

    fn try_from(text: String) -> Result<Numbers, String> {
        let numbers: Result<Vec<f64>, _> = text.split(' ').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[loss, gradient_norm, trust_ratio]) => Ok(Numbers { loss, gradient_norm, trust_ratio }),
            _ => Err(format!("the numbers of a step require three numbers, got {text:?}")),
        }
    }
}

/// The losses that a phase is compared with. A rule without its reference does not apply.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct References {
    /// The loss of a uniform guess: ln(vocabulary size) for masked language modelling.
    pub uniform: Option<f64>,
    /// The loss of a model that knows only the label frequencies.
    pub baseline: Option<f64>,
}

/// A sign that training has diverged, with medians.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the sentence of each variant explains it and its fields")]
pub enum Divergence {
    Loss { loss: f64, uniform: f64 },
    Baseline { loss: f64, baseline: f64, lowest: f64 },
    GradientNorm { norm: f64, largest: f64 },
    TrustRatio { ratio: f64, largest: f64 },
}

/// The monitor of one run: what the rule remembers of its steps, and which of its checkpoints are good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Monitor {
    /// The last numbers, the newest last.
    recent: VecDeque<Numbers>,
    /// The number of steps so far.
    steps: u64,
    /// The largest short medians of the start.
    largest_at_start: Numbers,
    /// The lowest long median of the loss, as a share of the baseline.
    lowest: Option<f32>,
    /// Training has diverged, and has not been calm since. A resumed run finds out anew.
    #[serde(skip)]
    diverged: bool,
    /// The newest checkpoint whose later losses are calm.
    last_good: Option<u64>,
    /// Steps of later checkpoints, in ascending order: those of the last [`SHORT`] steps and the newest before them.
    unproven: Vec<u64>,
}

impl Monitor {
    /// Returns the monitor of a run that starts from a good checkpoint of `step`.
    pub fn from_checkpoint(step: u64) -> Monitor {
        Monitor { last_good: Some(step), ..Monitor::default() }
    }

    /// Adds the numbers of the step after which `done` updates are done; `warms_up` is set during the warm-up of the first phase.
    /// Returns the sign of divergence when it appears: not again before the run was calm.
    pub fn observe(
        &mut self,
        done: u64,
        numbers: Numbers,
        references: References,
        warms_up: bool,
    ) -> Option<Divergence> {
        self.recent.push_back(numbers);
        if self.recent.len() > LONG {
            self.recent.pop_front();
        }
        self.steps += 1;
        if let Some(level) = self.median(SHORT)
            && self.steps <= START
        {
            let largest = &mut self.largest_at_start;
            largest.gradient_norm = largest.gradient_norm.max(level.gradient_norm);
            largest.trust_ratio = largest.trust_ratio.max(level.trust_ratio);
        }
        if let (Some(level), Some(baseline)) = (self.median(LONG), references.baseline) {
            let share = (level.loss / baseline) as f32;
            self.lowest = Some(self.lowest.map_or(share, |lowest| lowest.min(share)));
        }
        let sign = self.sign(references, warms_up);
        let news = sign.filter(|_| !self.diverged);
        self.diverged |= sign.is_some();
        if sign.is_none() && self.is_calm(numbers, references) {
            self.diverged = false;
            let proven = self.unproven.partition_point(|&step| step + SHORT as u64 <= done);
            self.last_good = self.unproven.drain(..proven).next_back().or(self.last_good);
        }
        news
    }

    /// Adds the checkpoint after `done` updates. It is good at once if its weights have a calm `held_out_loss`.
    pub fn saved(&mut self, done: u64, held_out_loss: Option<f64>, references: References) {
        let is_calm = |numbers: &Numbers| self.is_calm(*numbers, references);
        let measured = held_out_loss.is_some_and(|loss| !exceeds(loss, LOSS_LIMIT, references.uniform));
        if measured && !self.diverged && self.recent.back().is_none_or(is_calm) {
            self.unproven.clear();
            self.last_good = Some(done);
        } else if self.last_good != Some(done) && self.unproven.last() != Some(&done) {
            // Of those that a calm step would prove now, only the newest can become the last good one.
            let provable = self.unproven.partition_point(|&step| step + SHORT as u64 <= done);
            self.unproven.drain(..provable.saturating_sub(1));
            self.unproven.push(done);
        }
    }

    /// Returns the step of the newest good checkpoint.
    pub fn last_good(&self) -> Option<u64> {
        self.last_good
    }

    /// Returns the sign of divergence in the recent numbers.
    fn sign(&self, references: References, warms_up: bool) -> Option<Divergence> {
        let level = self.median(SHORT)?;
        if let Some(uniform) = references.uniform
            && level.loss > LOSS_LIMIT * uniform
        {
            return Some(Divergence::Loss { loss: level.loss, uniform });
        }
        if let (Some(long), Some(baseline), Some(lowest)) = (self.median(LONG), references.baseline, self.lowest())
            && !warms_up
            && lowest <= LEARNED
            && long.loss >= FORGOTTEN * baseline
        {
            return Some(Divergence::Baseline { loss: long.loss, baseline, lowest: lowest * baseline });
        }
        let largest = self.at_start();
        if exceeds(level.gradient_norm, GRADIENT_LIMIT, largest.map(|largest| largest.gradient_norm)) {
            let largest = self.largest_at_start.gradient_norm;
            return Some(Divergence::GradientNorm { norm: level.gradient_norm, largest });
        }
        if exceeds(level.trust_ratio, TRUST_RATIO_LIMIT, largest.map(|largest| largest.trust_ratio)) {
            let largest = self.largest_at_start.trust_ratio;
            return Some(Divergence::TrustRatio { ratio: level.trust_ratio, largest });
        }
        None
    }

    /// Returns whether nothing hints at a divergence: the last `numbers` alone exceed no limit, and the loss is not halfway back to
    /// the baseline.
    fn is_calm(&self, numbers: Numbers, references: References) -> bool {
        let largest = self.at_start();
        let half_forgotten = |lowest: f64, baseline: f64| {
            let halfway = f64::midpoint(lowest, 1.0) * baseline;
            lowest <= LEARNED && self.median(SHORT).is_some_and(|level| level.loss >= halfway)
        };
        !exceeds(numbers.loss, LOSS_LIMIT, references.uniform)
            && !exceeds(numbers.gradient_norm, GRADIENT_LIMIT, largest.map(|largest| largest.gradient_norm))
            && !exceeds(numbers.trust_ratio, TRUST_RATIO_LIMIT, largest.map(|largest| largest.trust_ratio))
            && !self
                .lowest()
                .zip(references.baseline)
                .is_some_and(|(lowest, baseline)| half_forgotten(lowest, baseline))
    }

    fn lowest(&self) -> Option<f64> {
        self.lowest.map(f64::from)
    }

    /// Returns the largest medians of the start, once it is over.
    fn at_start(&self) -> Option<Numbers> {
        (self.steps > START).then_some(self.largest_at_start)
    }

    /// Returns the medians of the last `steps` steps; none if there were fewer than half of them.
    fn median(&self, steps: usize) -> Option<Numbers> {
        let count = self.recent.len().min(steps);
        if count < steps.div_ceil(2) {
            return None;
        }
        let of = |number: fn(&Numbers) -> f64| {
            let mut values: Vec<f64> = self.recent.iter().rev().take(count).map(number).collect();
            values.sort_by(f64::total_cmp);
            values[count / 2]
        };
        Some(Numbers {
            loss: of(|numbers| numbers.loss),
            gradient_norm: of(|numbers| numbers.gradient_norm),
            trust_ratio: of(|numbers| numbers.trust_ratio),
        })
    }
}

/// Returns whether `value` exceeds `factor` times a known reference above zero.
fn exceeds(value: f64, factor: f64, reference: Option<f64>) -> bool {
    reference.is_some_and(|reference| reference > 0.0 && value > factor * reference)
}

impl Divergence {
    /// Returns a sentence about the sign after `done` updates, with its numbers and the settings to change; `label` names the loss.
    pub fn sentence(&self, done: u64, label: &str) -> String {
        let (what, remedy) = match *self {
            Divergence::Loss { loss, uniform } => (
                format!(
                    "the {label} is {} (median of {SHORT} steps), above {LOSS_LIMIT} times the {uniform:.4} of a uniform guess",
                    number(loss)
                ),
                "lower learning_rate, lengthen warmup, or set gradient_clip",
            ),
            Divergence::Baseline { loss, baseline, lowest } => (
                format!(
                    "the {label} is back at {loss:.4} (median of {LONG} steps), after {lowest:.4}; a model that ignores its input has \
                     {baseline:.4}"
                ),
                "lower learning_rate of this phase, or lengthen its warmup",
            ),
            Divergence::GradientNorm { norm, largest } => (
                format!(
                    "the gradient norm is {} (median of {SHORT} steps), above {GRADIENT_LIMIT} times the {} of the first {START} steps",
                    number(norm),
                    number(largest)
                ),
                "lower learning_rate, or set gradient_clip",
            ),
            Divergence::TrustRatio { ratio, largest } => (
                format!(
                    "the median trust ratio is {} (median of {SHORT} steps), above {TRUST_RATIO_LIMIT} times the {} of the first {START} \
                     steps, so the weights have grown without bound",
                    number(ratio),
                    number(largest)
                ),
                "lower learning_rate, or raise weight_decay",
            ),
        };
        format!("step {done}: training has diverged: {what}; {remedy}")
    }

    /// Returns the value and its reference by name, for the metrics.
    pub fn scalars(&self) -> [(&'static str, f64); 2] {
        match *self {
            Divergence::Loss { loss, uniform } => [("loss", loss), ("uniform_loss", uniform)],
            Divergence::Baseline { loss, baseline, .. } => [("loss", loss), ("baseline_loss", baseline)],
            Divergence::GradientNorm { norm, largest } => [("grad_norm", norm), ("grad_norm_at_start", largest)],
            Divergence::TrustRatio { ratio, largest } => [("trust_ratio", ratio), ("trust_ratio_at_start", largest)],
        }
    }
}

/// Formats a number of any size with a few digits.
fn number(value: f64) -> String {
    if (1e-3..1e5).contains(&value) { format!("{value:.4}") } else { format!("{value:.3e}") }
}

#[cfg(test)]
mod tests;
