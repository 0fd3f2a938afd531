//! One trial: a run file, a run directory, and the result of its training.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use super::file::{Contender, StudyFile};
use super::points::Point;
use crate::checkpoint::{Keep, RUN_FILE, RunDirectory};
use crate::digest::sha256_hex;
use crate::files;
use crate::report::goodput::{EVALUATION, TRAIN};
use crate::report::log::RunLog;
use crate::run::Run;
use crate::run::file::RunFile;
use crate::units::thousands;

/// The file with the result of an ended trial, in its directory.
const RESULT: &str = "result.json";
/// The key that `learning_rate_scaling` scales.
pub const LEARNING_RATE: &str = "phase.1.learning_rate";

/// A trial, identified by its run file: two trials with equal settings are one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// The name of its optimizer.
    pub optimizer: String,
    /// The global batch.
    pub batch: u64,
    /// The number of training sequences that the study asks for.
    pub sequences: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The values that are tried, as in the study file, before learning rates are scaled.
    pub point: Point,
    /// Weight updates.
    pub steps: u64,
    /// The directory of the trial.
    pub directory: PathBuf,
    /// The run file.
    pub text: String,
}

/// The end of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// After its last step.
    Finished,
    /// By the divergence alarm, or by gradients that were not finite.
    Diverged,
}

/// The result of an ended trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialResult {
    /// The end.
    pub ending: Ending,
    /// The metric of the evaluation after the last step; none for a trial that diverged.
    pub value: Option<f64>,
    /// The baseline of the metric.
    pub baseline: Option<f64>,
    /// The metric of each evaluation with its step.
    pub evaluations: Vec<(u64, f64)>,
    /// Steps done.
    pub steps: u64,
    /// Seconds in training steps.
    pub seconds: f64,
}

impl Trial {
    /// Plans the trial of `contender` at `point`, with the run file `base` changed accordingly.
    ///
    /// # Errors
    /// If the run file is not valid with these values.
    pub fn new(
        study: &StudyFile,
        base: &RunFile,
        contender: &Contender,
        (sequences, batch): (u64, u64),
        point: &Point,
        seed: u64,
    ) -> anyhow::Result<Trial> {
        let steps = ((sequences as f64 / batch as f64).round() as u64).max(1);
        let mut sets = vec![format!("optimizer={}", toml::Value::Table(contender.table.clone()))];
        for (key, value) in point {
            let scaled = match (study.learning_rate_scaling, number(value)) {
                (Some(scaling), Some(rate)) if key == LEARNING_RATE => toml::Value::Float(rate * scaling.factor(batch)),
                _ => value.clone(),
            };
            sets.push(format!("{key}={scaled}"));
        }
        sets.extend([
            format!("seed={seed}"),
            format!("phase.1.global_batch={batch}"),
            format!("phase.1.steps={steps}"),
            format!("evaluate.every={}", (steps / study.evaluations).max(1)),
        ]);
        let rows = micro_batch_size(base)?;
        sets.push(format!("phase.1.micro_batch_size={}", rows.min(batch)));
        // The first line is a comment with the path of the base, which two checkouts may have under different names.
        let settings = base.clone().with_overrides(&sets)?.text;
        let identity = sha256_hex(settings.split_once('\n').map_or("", |(_, text)| text).as_bytes());
        let name = format!("{}-{batch}-{sequences}-seed{seed}-{}", word(&contender.name), &identity[..8]);
        let directory = study.directory.join("trials").join(&name);
        sets.extend([format!("name={name:?}"), format!("checkpoint.directory={:?}", directory.display().to_string())]);
        let text = base.clone().with_overrides(&sets)?.text;
        let optimizer = contender.name.clone();
        Ok(Trial { optimizer, batch, sequences, seed, point: point.clone(), steps, directory, text })
    }

    /// Returns the path of the run file.
    pub fn run_file(&self) -> PathBuf {
        self.directory.join(RUN_FILE)
    }

    /// Checks the run file as `lambert pretrain` does, and that its evaluations have the loss `metric`.
    ///
    /// # Errors
    /// If a setting is not allowed, or the metric is no loss of the run.
    pub fn check(&self, metric: &str) -> anyhow::Result<()> {
        let file = RunFile::of_text(&self.run_file(), self.text.clone());
        let metrics = Run::of_file(&file).with_context(|| self.to_text())?.held_out_metrics();
        let losses: Vec<&str> = metrics.iter().filter(|ratio| ratio.kind.is_loss()).map(|ratio| ratio.name).collect();
        ensure!(losses.contains(&metric), "metric requires one of {}, got {metric:?}", losses.join(", "));
        Ok(())
    }

    /// Writes the run file into the directory, which is created.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("cannot create {}", self.directory.display()))?;
        files::write_atomically(&self.run_file(), |partial| std::fs::write(partial, &self.text))
    }

    /// Reads the result of the trial; none if it has not ended.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn result(&self) -> anyhow::Result<Option<TrialResult>> {
        let path = self.directory.join(RESULT);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let next = || format!("{} is damaged; remove it, and the trial is trained again", path.display());
        serde_json::from_slice(&bytes).map(Some).with_context(next)
    }

    /// Summarises the metrics of the ended run and writes the result.
    ///
    /// # Errors
    /// If the metrics cannot be read, or a finished run has no final evaluation with the metric.
    pub fn record(&self, metric: &str, diverged: bool) -> anyhow::Result<TrialResult> {
        let log =
            RunLog::read(&self.directory)?.with_context(|| format!("{} has no metrics", self.directory.display()))?;
        let result = summarize(&log, metric, self.steps, diverged)?;
        self.store(&result)?;
        Ok(result)
    }

    /// Writes the result into the directory.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn store(&self, result: &TrialResult) -> anyhow::Result<()> {
        let json = serde_json::to_vec_pretty(result).context("cannot write JSON")?;
        files::write_atomically(&self.directory.join(RESULT), |partial| std::fs::write(partial, &json))
    }

    /// Returns whether training ended because gradients were not finite.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub fn has_lost_its_gradients(&self) -> anyhow::Result<bool> {
        let log = RunLog::read(&self.directory)?;
        let last = log.as_ref().and_then(|log| log.lines(TRAIN).next_back());
        Ok(last.is_some_and(|(_, scalars)| !scalars.contains_key("loss") || scalars.get("skipped") == Some(&1.0)))
    }

    /// Removes the checkpoints.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove_checkpoints(&self) -> anyhow::Result<()> {
        Ok(RunDirectory::new(&self.directory, Keep::ALL).remove_all()?)
    }

    /// Describes the trial: `LAMB, batch 1,024, phase.1.learning_rate 0.01, seed 0`.
    pub fn to_text(&self) -> String {
        let values: String = self.point.iter().map(|(key, value)| format!(", {key} {value}")).collect();
        format!("{}, batch {}{values}, seed {}", self.optimizer, thousands(self.batch), self.seed)
    }
}

impl TrialResult {
    /// Returns the number of steps after which the metric first reached `target`, by linear interpolation between evaluations.
    pub fn steps_to(&self, target: f64) -> Option<f64> {
        let mut before: Option<(f64, f64)> = None;
        for &(step, value) in &self.evaluations {
            let step = step as f64;
            if value <= target {
                return Some(match before {
                    Some((earlier, worse)) => earlier + (step - earlier) * (worse - target) / (worse - value),
                    None => step,
                });
            }
            before = Some((step, value));
        }
        None
    }
}

/// Summarises the log of a run of `steps` updates.
fn summarize(log: &RunLog, metric: &str, steps: u64, diverged: bool) -> anyhow::Result<TrialResult> {
    let evaluations = log.series(EVALUATION, metric);
    let done = log.last_step();
    let finite = log.series(TRAIN, "loss").last().is_some_and(|(step, _)| *step == done);
    let last = evaluations.last().filter(|(step, _)| *step == steps).map(|(_, value)| *value);
    let ending = if diverged || !finite || last.is_none() { Ending::Diverged } else { Ending::Finished };
    ensure!(
        diverged || !finite || last.is_some(),
        "requires an evaluation with {metric} after step {steps}, found {:?}",
        log.names(EVALUATION)
    );
    Ok(TrialResult {
        ending,
        value: last.filter(|_| ending == Ending::Finished),
        baseline: log.series(EVALUATION, &format!("{metric}_baseline")).last().map(|(_, value)| *value),
        evaluations,
        steps: done,
        seconds: log.series(TRAIN, "seconds").iter().map(|(_, seconds)| seconds).sum(),
    })
}

/// Returns the rows of a micro-batch in the only phase of `base`.
fn micro_batch_size(base: &RunFile) -> anyhow::Result<u64> {
    let table: toml::Table = base.parse()?;
    let phases = table.get("phase").and_then(toml::Value::as_array).map_or(0, Vec::len);
    ensure!(phases == 1, "{}: a study requires a run file with one [[phase]], got {phases}", base.path.display());
    let rows = table["phase"][0].get("micro_batch_size").and_then(toml::Value::as_integer).unwrap_or(0);
    ensure!(rows > 0, "{}: [[phase]] requires micro_batch_size, at least 1", base.path.display());
    Ok(rows as u64)
}

/// Returns the number of a value.
pub fn number(value: &toml::Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))
}

/// Returns a name in lower-case letters, digits and hyphens, for paths.
fn word(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let word: String = letters.collect();
    word.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
