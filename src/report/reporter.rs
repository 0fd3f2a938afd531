//! Passes each event of a run to its three reports: the metrics log (`metrics.jsonl` and TensorBoard), the progress display,
//! and the summary table.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::evaluation::Evaluation;
use super::events::StepEvent;
use super::goodput::{self, Goodput};
use super::metrics::{MetricsLog, TRUST_RATIOS};
use super::progress::Progress;
use super::summary::Summary;
use crate::divergence::{Divergence, SkippedRange};
use crate::task::Task;
use crate::units::{counted, duration};

/// Lines with all trust ratios in a run, about: the columns of a heat map.
const TRUST_RATIO_LINES: u64 = 100;

/// The metrics log, the progress display and the summary of one run.
#[derive(Debug)]
pub struct Reporter {
    /// Only the leading host has a log.
    log: Option<MetricsLog>,
    progress: Progress,
    summary: Summary,
    task: Arc<dyn Task>,
    /// The names of the parameter tensors.
    tensors: Vec<String>,
    /// Steps between two lines with all trust ratios.
    trust_ratios_every: u64,
    last_step: Map<String, Value>,
}

impl Reporter {
    /// Creates the reporter of one host for a run of `steps` updates of `tensors`. Only the leading host has a `log`.
    pub fn new(
        log: Option<MetricsLog>,
        progress: Progress,
        summary: Summary,
        task: Arc<dyn Task>,
        tensors: Vec<String>,
        steps: u64,
    ) -> Reporter {
        let trust_ratios_every = steps.div_ceil(TRUST_RATIO_LINES).max(1);
        Reporter { log, progress, summary, task, tensors, trust_ratios_every, last_step: Map::new() }
    }

    /// Reports that the run has started after `done` updates, which took `took`, with compilation for `compiling`.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn started(&mut self, done: u64, took: Duration, compiling: Duration) -> anyhow::Result<()> {
        self.record(goodput::START, done, &[("seconds", took.as_secs_f64()), ("compiling", compiling.as_secs_f64())])
    }

    /// Reports a finished step.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn step(&mut self, step: &StepEvent) -> anyhow::Result<()> {
        let mut scalars = step.scalars();
        scalars.retain(|(name, _)| !self.task.unreported().contains(name));
        self.record(goodput::TRAIN, step.done, &scalars)?;
        self.trust_ratios(step)?;
        self.last_step = scalars.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let accuracy = self.task.ratios().iter().find(|ratio| !ratio.kind.is_loss());
        self.progress.step(step, accuracy);
        self.summary.step(step, accuracy);
        Ok(())
    }

    /// Writes the trust ratio of each tensor at every n-th step, unless the optimizer has none (all are 1).
    fn trust_ratios(&mut self, step: &StepEvent) -> anyhow::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if !step.done.is_multiple_of(self.trust_ratios_every) || step.trust_ratios.iter().all(|&ratio| ratio == 1.0) {
            return Ok(());
        }
        let ratios: Vec<(&String, f64)> = self.tensors.iter().zip(step.trust_ratios.iter().copied()).collect();
        log.record_line(TRUST_RATIOS, step.done, &ratios)
    }

    /// Reports an evaluation after `step` updates, on sequences of `sequence_length`.
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
        let seconds = ("seconds".to_owned(), took.as_secs_f64());
        let scalars: Vec<(String, f64)> = evaluation.scalars().into_iter().chain([seconds]).collect();
        self.record(goodput::EVALUATION, step, &scalars)?;
        self.say(&format!(
            "step {step}: held-out {} ({} of sequence length {sequence_length}, {})",
            evaluation.to_text(),
            counted(evaluation.examples, "example"),
            duration(took),
        ));
        self.summary.evaluation(step, evaluation);
        Ok(())
    }

    /// Reports that training has diverged after `step` updates, now and at the end of the run.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn diverged(&mut self, step: u64, sign: &Divergence, sentence: String) -> anyhow::Result<()> {
        self.say(&sentence);
        self.summary.diverged(sentence);
        self.record("divergence", step, &sign.scalars())
    }

    /// Reports at the end of the run that its model has learned nothing.
    pub fn nothing_learned(&mut self, sentence: String) {
        self.summary.nothing_learned(sentence);
    }

    /// Reports at the end of the run why it stopped before its last step.
    pub fn stopped_early(&mut self, sentence: Option<String>) {
        self.summary.stopped_early(sentence);
    }

    /// Reports that the run goes back from `step` to the checkpoint of step `to`, and leaves out the examples `skipped`.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn rolled_back(&mut self, step: u64, to: u64, skipped: &[SkippedRange]) -> anyhow::Result<()> {
        let examples = skipped.iter().map(|range| range.to - range.from).sum();
        self.say(&format!("the run goes back to step {to} and leaves out {}", counted(examples, "example")));
        for range in skipped {
            let numbers = [range.phase as u64 + 1, range.from, range.to, to].map(|number| number as f64);
            let names = ["phase", "first_example", "end_example", goodput::TO];
            let scalars: Vec<(&str, f64)> = names.into_iter().zip(numbers).collect();
            self.record(goodput::ROLL_BACK, step, &scalars)?;
        }
        self.log.as_mut().map_or(Ok(()), |log| log.rolled_back(to))
    }

    /// Reports the time for which no step ran because of the checkpoint after `step` updates.
    ///
    /// # Errors
    /// If the log cannot be written.
    pub fn held_up_by_save(&mut self, step: u64, took: Duration) -> anyhow::Result<()> {
        self.record(goodput::CHECKPOINT, step, &[("seconds", took.as_secs_f64())])
    }

    /// Reports the use of the time of all starts of the run, which ends after `done` updates.
    ///
    /// # Errors
    /// If the log cannot be read or written.
    pub fn ended(&mut self, done: u64) -> anyhow::Result<()> {
        let read = self.log.as_ref().map_or(Ok(None), |log| Goodput::read(log.run()))?;
        if let Some(used) = &read {
            self.summary.goodput(used);
            self.record(goodput::GOODPUT, done, &used.scalars())?;
        }
        self.log.as_mut().map_or(Ok(()), MetricsLog::ended)
    }

    /// Sets the checkpoint that the run ends with.
    pub fn newest_checkpoint(&mut self, path: Option<PathBuf>) {
        self.summary.newest_checkpoint(path);
    }

    /// Prints a line above the progress display.
    pub fn say(&self, line: &str) {
        self.progress.say(line);
    }

    /// Stops the progress display.
    pub fn finish(&self) {
        self.progress.finish();
    }

    /// Returns the scalars of the last step, for the checkpoint.
    pub fn last_step(&self) -> &Map<String, Value> {
        &self.last_step
    }

    /// Returns the summary so far.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn record(&mut self, kind: &str, step: u64, scalars: &[(impl AsRef<str>, f64)]) -> anyhow::Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.record(kind, step, scalars))
    }
}
