//! The trials of a study: those that tune, and then those that are reported.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::file::StudyFile;
use super::trial::{Ending, Trial, TrialResult};
use crate::files;
use crate::run::file::RunFile;

/// The results of ended trials, by directory.
pub type Ended = BTreeMap<PathBuf, TrialResult>;

/// The trials of one optimizer, batch and number of sequences.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The number of the optimizer in the study file, from 0.
    pub optimizer: usize,
    /// The global batch.
    pub batch: u64,
    /// The number of training sequences.
    pub sequences: u64,
    /// The trials that tune, in the order of their points.
    pub tuning: Vec<Trial>,
}

/// All trials of a study.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The study file.
    pub study: StudyFile,
    /// The run file that every trial changes.
    base: RunFile,
    /// The cells, ordered by number of sequences, batch and optimizer, so that results of small batches come first.
    pub cells: Vec<Cell>,
}

impl Cell {
    /// Returns whether all trials that tune have ended.
    pub fn is_tuned(&self, ended: &Ended) -> bool {
        self.tuning.iter().all(|trial| ended.contains_key(&trial.directory))
    }

    /// Returns the trial that tuned best so far, with its value; none if all ended ones diverged.
    pub fn best<'a>(&'a self, ended: &Ended) -> Option<(&'a Trial, f64)> {
        let value = |trial: &'a Trial| Some((trial, ended.get(&trial.directory)?.value?));
        self.tuning.iter().filter_map(value).min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

impl Plan {
    /// Plans `study`, and checks the run file of each trial.
    ///
    /// # Errors
    /// If the base cannot be read, or a trial has a setting that is not allowed.
    pub fn new(study: StudyFile) -> anyhow::Result<Plan> {
        let base = RunFile::read(&study.base, &[])?;
        let mut cells = Vec::new();
        let mut sizes: Vec<(u64, u64)> =
            study.sequences.iter().flat_map(|&sequences| study.batches.iter().map(move |&b| (sequences, b))).collect();
        sizes.sort_unstable();
        for (sequences, batch) in sizes {
            for (optimizer, contender) in study.optimizer.iter().enumerate() {
                let points = contender.points(study.search);
                let trial = |point| {
                    let trial = Trial::new(&study, &base, contender, (sequences, batch), point, study.tuning_seed);
                    trial.with_context(|| format!("optimizer {:?}, batch {batch}", contender.name))
                };
                let tuning = points.iter().map(trial).collect::<anyhow::Result<Vec<_>>>()?;
                for trial in &tuning {
                    trial.check(&study.metric)?;
                }
                cells.push(Cell { optimizer, batch, sequences, tuning });
            }
        }
        Ok(Plan { study, base, cells })
    }

    /// Returns the trials of `cell` that are reported: the best settings with the seeds of the study. None before the cell is tuned,
    /// or if all its trials diverged.
    ///
    /// # Errors
    /// If a run file cannot be written as TOML.
    pub fn reported(&self, cell: &Cell, ended: &Ended) -> anyhow::Result<Vec<Trial>> {
        let (study, size) = (&self.study, (cell.sequences, cell.batch));
        match cell.best(ended) {
            Some((best, _)) if cell.is_tuned(ended) => {
                let contender = &study.optimizer[cell.optimizer];
                let of_seed = |&seed: &u64| Trial::new(study, &self.base, contender, size, &best.point, seed);
                study.seeds.iter().map(of_seed).collect()
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Returns the next trial that has not ended and is not in `running`: cell by cell of one batch the trials that tune, point after
    /// point, and then those that are reported. None if there is nothing to start now.
    ///
    /// # Errors
    /// As [`Plan::reported`].
    pub fn next(&self, ended: &Ended, running: &[PathBuf]) -> anyhow::Result<Option<Trial>> {
        let waits = |trial: &&Trial| !ended.contains_key(&trial.directory) && !running.contains(&trial.directory);
        for cells in self.cells.chunks(self.study.optimizer.len()) {
            let points = cells.iter().map(|cell| cell.tuning.len()).max().unwrap_or(0);
            let by_point = (0..points).flat_map(|point| cells.iter().filter_map(move |cell| cell.tuning.get(point)));
            if let Some(trial) = { by_point }.find(waits) {
                return Ok(Some(trial.clone()));
            }
            for cell in cells {
                if let Some(trial) = self.reported(cell, ended)?.iter().find(waits) {
                    return Ok(Some(trial.clone()));
                }
            }
        }
        Ok(None)
    }

    /// Returns the number of trials, and how many of them have ended. A cell whose trials all diverged has none to report.
    pub fn progress(&self, ended: &Ended) -> (usize, usize) {
        let of_cell = |cell: &Cell| {
            let tuned = cell.tuning.iter().filter(|trial| ended.contains_key(&trial.directory)).count();
            let reported = self.reported(cell, ended).unwrap_or_default();
            let done = reported.iter().filter(|trial| ended.contains_key(&trial.directory)).count();
            let all_diverged = cell.is_tuned(ended) && reported.is_empty();
            (cell.tuning.len() + if all_diverged { 0 } else { self.study.seeds.len() }, tuned + done)
        };
        self.cells.iter().map(of_cell).fold((0, 0), |(all, done), (more, ended)| (all + more, done + ended))
    }

    /// Takes over the results of trials with the same settings from a `study.json` of another machine; returns their number. Trials that
    /// have ended here keep their results.
    ///
    /// # Errors
    /// If the file cannot be read or is no `study.json`, or a result cannot be written.
    pub fn take_over(&self, path: &Path) -> anyhow::Result<usize> {
        let rows = recorded_results(path)?;
        let mut taken = 0;
        let mut take = |trial: &Trial| -> anyhow::Result<()> {
            let name = trial.directory.file_name().unwrap_or_default();
            if let Some(result) = rows.get(name)
                && trial.result()?.is_none()
            {
                trial.write()?;
                trial.store(result)?;
                taken += 1;
            }
            Ok(())
        };
        self.cells.iter().flat_map(|cell| &cell.tuning).try_for_each(&mut take)?;
        // Which trials are reported depends on those that tune.
        let ended = self.ended()?;
        for cell in &self.cells {
            self.reported(cell, &ended)?.iter().try_for_each(&mut take)?;
        }
        Ok(taken)
    }

    /// Reads the results of trials that have ended.
    ///
    /// # Errors
    /// If a result cannot be read.
    pub fn ended(&self) -> anyhow::Result<Ended> {
        let mut ended = Ended::new();
        let mut add = |trial: &Trial| -> anyhow::Result<()> {
            if let Some(result) = trial.result()? {
                ended.insert(trial.directory.clone(), result);
            }
            Ok(())
        };
        self.cells.iter().flat_map(|cell| &cell.tuning).try_for_each(&mut add)?;
        let tuned = ended.clone();
        for cell in &self.cells {
            for trial in self.reported(cell, &tuned)? {
                if let Some(result) = trial.result()? {
                    ended.insert(trial.directory.clone(), result);
                }
            }
        }
        Ok(ended)
    }
}

/// Reads the results in a `study.json`, by the names of the trials' directories.
fn recorded_results(path: &Path) -> anyhow::Result<BTreeMap<OsString, TrialResult>> {
    /// The keys of a row that are a trial's result; others are its settings.
    #[derive(Deserialize)]
    struct Row {
        directory: PathBuf,
        ending: Ending,
        value: Option<f64>,
        baseline: Option<f64>,
        evaluations: Vec<(u64, f64)>,
        steps: u64,
        seconds: f64,
    }
    #[derive(Deserialize)]
    struct Study {
        rows: Vec<Row>,
    }
    let text = files::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let study: Study = serde_json::from_slice(&text)
        .with_context(|| format!("{}: requires the study.json of a study", path.display()))?;
    let of_row = |Row { directory, ending, value, baseline, evaluations, steps, seconds }| {
        let result = TrialResult { ending, value, baseline, evaluations, steps, seconds };
        Some((directory.file_name()?.to_owned(), result))
    };
    Ok(study.rows.into_iter().filter_map(of_row).collect())
}
