//! What happens in a run is told once, here, and heard in three places: the log (for programs and TensorBoard), the display
//! (for whoever watches) and the summary (for the table at the end).

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::evaluate::Evaluation;
use super::metrics::MetricsLog;
use super::progress::{Progress, Report, duration};
use super::step::METRICS;
use super::summary::Summary;
use crate::schedule::StepPlan;

/// The log, the display and the summary of one run.
#[derive(Debug)]
pub struct Reporter {
    /// The leading host's alone.
    log: Option<MetricsLog>,
    progress: Progress,
    summary: Summary,
    /// Whether the examples are pairs: single segments have no second one to predict.
    pairs: bool,
    last_step: Map<String, Value>,
}

/// A finished step: what the devices report of it, and what this host knows.
#[derive(Debug)]
pub struct Finished {
    /// Weight updates done, this one included.
    pub step: u64,
    pub plan: StepPlan,
    /// In the order of [`METRICS`].
    pub metrics: Vec<f64>,
    /// One of each weight.
    pub trust_ratios: Vec<f64>,
    /// Positions that all devices computed, and the share of this host's that held no token.
    pub positions: usize,
    pub padding: f64,
    /// Epochs of the phase's examples that lie behind.
    pub epochs: f64,
    /// From the end of the step before to the end of this one, and the part of it that was spent on waiting for the batch.
    pub elapsed: Duration,
    pub waited: Duration,
}

impl Finished {
    /// One of [`METRICS`].
    pub fn metric(&self, name: &str) -> f64 {
        METRICS.iter().position(|metric| *metric == name).map_or(f64::NAN, |at| self.metrics[at])
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let seconds = self.elapsed.as_secs_f64();
        let mut scalars: Vec<(&str, f64)> = METRICS.into_iter().zip(self.metrics.iter().copied()).collect();
        scalars.extend([
            ("learning_rate", self.plan.learning_rate),
            ("phase", (self.plan.phase + 1) as f64),
            ("epoch", self.epochs),
            ("sequences_per_second", self.plan.global_batch as f64 / seconds),
            ("tokens_per_second", self.positions as f64 / seconds),
            ("padding", self.padding),
            ("waiting_for_data", (self.waited.as_secs_f64() / seconds).min(1.0)),
        ]);
        scalars.extend(spread(&self.trust_ratios));
        scalars
    }
}

impl Reporter {
    /// Without a `log` on the hosts that do not lead.
    pub fn new(log: Option<MetricsLog>, progress: Progress, summary: Summary, pairs: bool) -> Reporter {
        Reporter { log, progress, summary, pairs, last_step: Map::new() }
    }

    /// # Errors
    /// If the log cannot be written.
    pub fn step(&mut self, finished: &Finished) -> anyhow::Result<()> {
        let mut scalars = finished.scalars();
        scalars.retain(|(name, _)| self.pairs || !name.starts_with("nsp_"));
        self.record("train", finished.step, &scalars)?;
        self.last_step = scalars.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let report = Report {
            step: finished.step,
            phase: finished.plan.phase,
            loss: finished.metric("loss"),
            mlm_accuracy: finished.metric("mlm_accuracy"),
            sequences: finished.plan.global_batch,
            tokens: finished.positions,
            elapsed: finished.elapsed,
            waited: finished.waited,
            epochs: finished.epochs,
        };
        self.progress.step(&report);
        self.summary.step(&report);
        Ok(())
    }

    /// An evaluation after `step` updates, on sequences of `sequence_length`.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn evaluation(
        &mut self,
        step: u64,
        sequence_length: usize,
        evaluation: Evaluation,
        took: Duration,
    ) -> anyhow::Result<()> {
        self.record("evaluation", step, &evaluation.scalars())?;
        let nsp = match evaluation.of_pairs() {
            true => format!(", NSP accuracy {:.2} %", 100.0 * evaluation.nsp_accuracy),
            false => String::new(),
        };
        self.say(&format!(
            "step {step}: held-out MLM loss {:.4}, MLM accuracy {:.2} %{nsp} ({} examples of length {sequence_length}, {})",
            evaluation.mlm_loss,
            100.0 * evaluation.mlm_accuracy,
            evaluation.examples,
            duration(took),
        ));
        self.summary.evaluation(step, evaluation, took);
        Ok(())
    }

    /// A checkpoint at `path`.
    pub fn saved(&mut self, path: PathBuf, took: Duration) {
        self.summary.saved(path, took);
    }

    /// A line for whoever watches.
    pub fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// The display moves no more.
    pub fn finish(&self) {
        self.progress.finish();
    }

    /// The scalars of the last step, as a checkpoint keeps them.
    pub fn last_step(&self) -> &Map<String, Value> {
        &self.last_step
    }

    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn record(&mut self, kind: &str, step: u64, scalars: &[(&str, f64)]) -> anyhow::Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.record(kind, step, scalars))
    }
}

/// Smallest, middle and largest trust ratio.
fn spread(ratios: &[f64]) -> [(&'static str, f64); 3] {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted.get(share.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    [("trust_ratio_min", at(0)), ("trust_ratio_median", at(sorted.len() / 2)), ("trust_ratio_max", at(usize::MAX))]
}
