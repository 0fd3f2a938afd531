//! The results of a study: for each optimizer, batch and number of sequences the value after tuning, over the reported seeds.

use serde::Serialize;

use super::plan::{Cell, Ended, Plan};
use super::points::Point;
use super::trial::{Ending, Trial, TrialResult, number};
use crate::metrics::Spread;
use crate::units::thousands;

/// The results of one cell.
#[derive(Clone, Debug, Serialize)]
pub struct CellResult {
    /// The name of the optimizer.
    pub optimizer: String,
    /// The global batch.
    pub batch: u64,
    /// The number of training sequences.
    pub sequences: u64,
    /// Weight updates.
    pub steps: u64,
    /// Trials that tuned and have ended.
    pub tuned: usize,
    /// Those of them that diverged.
    pub diverged: usize,
    /// The best settings; none before one trial has finished.
    pub best: Option<Point>,
    /// The keys whose best value is the smallest or the largest one that was tried, so that a better one may lie beyond.
    pub best_at_edge: Vec<String>,
    /// The values of the metric over the reported seeds that finished.
    pub values: Vec<f64>,
    /// Reported trials that diverged.
    pub diverged_seeds: usize,
    /// The mean of `values`.
    pub mean: Option<f64>,
    /// Their sample standard deviation.
    pub standard_deviation: Option<f64>,
    /// The steps to the target of the study, over the reported seeds that reached it.
    pub steps_to_target: Vec<f64>,
}

/// The results of one trial.
#[derive(Clone, Debug, Serialize)]
pub struct TrialRow {
    /// The directory.
    pub directory: String,
    /// The name of the optimizer.
    pub optimizer: String,
    /// The global batch.
    pub batch: u64,
    /// The number of training sequences.
    pub sequences: u64,
    /// The seed.
    pub seed: u64,
    /// The values that were tried.
    pub settings: Point,
    /// The result.
    #[serde(flatten)]
    pub result: TrialResult,
}

/// The results of a study so far.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The name of the study.
    pub name: String,
    /// The metric.
    pub metric: String,
    /// The baseline of the metric, the mean over all trials.
    pub baseline: Option<f64>,
    /// The target of the metric.
    pub target: Option<f64>,
    /// All trials of the study, and those that have ended.
    pub trials: usize,
    /// Trials that have ended.
    pub ended: usize,
    /// Seconds in training steps over all trials.
    pub seconds: f64,
    /// The cells, ordered by number of sequences, batch and optimizer.
    pub cells: Vec<CellResult>,
    /// For each number of sequences and optimizer, the largest batch up to which the mean is kept.
    pub kept: Vec<KeptBatch>,
    /// Every trial that has ended.
    pub rows: Vec<TrialRow>,
}

/// Up to which batch an optimizer keeps the value of its smallest batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeptBatch {
    /// The name of the optimizer.
    pub optimizer: String,
    /// The number of training sequences.
    pub sequences: u64,
    /// The largest batch so that it and all smaller ones are within the tolerance of the smallest one.
    pub up_to: u64,
    /// The first batch beyond the tolerance, or that diverged; none if the largest batch of the study is kept.
    pub falls_off_at: Option<u64>,
}

impl Results {
    /// Summarises the trials of `plan` that have ended.
    ///
    /// # Errors
    /// As [`Plan::reported`].
    pub fn new(plan: &Plan, ended: &Ended) -> anyhow::Result<Results> {
        let study = &plan.study;
        let mut cells = Vec::new();
        let mut rows = Vec::new();
        for cell in &plan.cells {
            let reported = plan.reported(cell, ended)?;
            cells.push(cell_result(plan, cell, &reported, ended));
            let row = |trial: &Trial| Some(row(trial, ended.get(&trial.directory)?));
            rows.extend(cell.tuning.iter().chain(&reported).filter_map(row));
        }
        let (trials, done) = plan.progress(ended);
        let baselines: Vec<f64> = ended.values().filter_map(|result| result.baseline).collect();
        Ok(Results {
            name: study.name.clone(),
            metric: study.metric.clone(),
            baseline: (!baselines.is_empty()).then(|| Spread::of(&baselines).mean),
            target: study.target,
            trials,
            ended: done,
            seconds: ended.values().map(|result| result.seconds).sum(),
            kept: kept_batches(plan, &cells),
            cells,
            rows,
        })
    }

    /// Returns a sentence for each cell whose best settings are at an edge of what was tried.
    pub fn edges(&self) -> Vec<String> {
        let sentence = |cell: &CellResult| {
            let best = cell.best.as_ref()?;
            let values: Vec<String> = cell.best_at_edge.iter().map(|key| format!("{key} {}", best[key])).collect();
            (!values.is_empty()).then(|| {
                format!(
                    "{}, batch {}: the best value is at the edge of those that were tried ({}); try more beyond it",
                    cell.optimizer,
                    thousands(cell.batch),
                    values.join(", ")
                )
            })
        };
        self.cells.iter().filter_map(sentence).collect()
    }

    /// Returns the cells of one optimizer and number of sequences, by batch.
    pub fn of(&self, optimizer: &str, sequences: u64) -> impl Iterator<Item = &CellResult> {
        self.cells.iter().filter(move |cell| cell.optimizer == optimizer && cell.sequences == sequences)
    }
}

fn cell_result(plan: &Plan, cell: &Cell, reported: &[Trial], ended: &Ended) -> CellResult {
    let tuned: Vec<&TrialResult> = cell.tuning.iter().filter_map(|trial| ended.get(&trial.directory)).collect();
    let of_seeds: Vec<&TrialResult> = reported.iter().filter_map(|trial| ended.get(&trial.directory)).collect();
    let diverged = |results: &[&TrialResult]| results.iter().filter(|r| r.ending == Ending::Diverged).count();
    let values: Vec<f64> = of_seeds.iter().filter_map(|result| result.value).collect();
    let spread = Spread::of(&values);
    let target = plan.study.target;
    CellResult {
        optimizer: plan.study.optimizer[cell.optimizer].name.clone(),
        batch: cell.batch,
        sequences: cell.sequences,
        steps: cell.tuning.first().map_or(0, |trial| trial.steps),
        tuned: tuned.len(),
        diverged: diverged(&tuned),
        best_at_edge: cell.best(ended).map_or_else(Vec::new, |(trial, _)| keys_at_edge(cell, &trial.point)),
        best: cell.best(ended).map(|(trial, _)| trial.point.clone()),
        diverged_seeds: diverged(&of_seeds),
        mean: spread.mean.is_finite().then_some(spread.mean),
        standard_deviation: spread.deviation.is_finite().then_some(spread.deviation),
        values,
        steps_to_target: of_seeds.iter().filter_map(|result| result.steps_to(target?)).collect(),
    }
}

/// Returns the keys of `best` whose number is the smallest or the largest of those of the cell's trials.
fn keys_at_edge(cell: &Cell, best: &Point) -> Vec<String> {
    let is_at_edge = |(key, value): &(&String, &toml::Value)| {
        let tried = || cell.tuning.iter().filter_map(|trial| number(trial.point.get(*key)?));
        let (Some(least), Some(most)) = (tried().reduce(f64::min), tried().reduce(f64::max)) else { return false };
        least < most && number(value).is_some_and(|value| value == least || value == most)
    };
    best.iter().filter(is_at_edge).map(|(key, _)| key.clone()).collect()
}

fn row(trial: &Trial, result: &TrialResult) -> TrialRow {
    TrialRow {
        directory: trial.directory.display().to_string(),
        optimizer: trial.optimizer.clone(),
        batch: trial.batch,
        sequences: trial.sequences,
        seed: trial.seed,
        settings: trial.point.clone(),
        result: result.clone(),
    }
}

/// Returns up to which batch each optimizer keeps its value. A cell without a value fell off if all its trials diverged, and is not
/// counted yet otherwise.
fn kept_batches(plan: &Plan, cells: &[CellResult]) -> Vec<KeptBatch> {
    let study = &plan.study;
    let mut kept = Vec::new();
    for &sequences in &study.sequences {
        for contender in &study.optimizer {
            let mut of_optimizer =
                cells.iter().filter(|cell| cell.sequences == sequences && cell.optimizer == contender.name);
            let Some((first, mean)) = of_optimizer.next().and_then(|cell| Some((cell, cell.mean?))) else { continue };
            let mut result =
                KeptBatch { optimizer: contender.name.clone(), sequences, up_to: first.batch, falls_off_at: None };
            for cell in of_optimizer {
                match cell.mean {
                    Some(value) if value <= mean + study.tolerance && cell.diverged_seeds == 0 => {
                        result.up_to = cell.batch;
                    }
                    None if cell.diverged < cell.tuned || cell.tuned == 0 => break,
                    _ => {
                        result.falls_off_at = Some(cell.batch);
                        break;
                    }
                }
            }
            kept.push(result);
        }
    }
    kept
}
