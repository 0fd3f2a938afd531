//! The study file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::points::{Point, Search, Space, points};
use crate::files;
use crate::run::file::RunFile;

/// A study file. Paths are relative to the working directory, as in run files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// The name of the study.
    pub name: String,
    /// The run file that every trial changes. It has one `[[phase]]`.
    pub base: PathBuf,
    /// The directory of the trials, `study.json` and `study.html`.
    pub directory: PathBuf,
    /// Training sequences of a trial; one table of results for each number.
    pub sequences: Vec<u64>,
    /// Global batches.
    pub batches: Vec<u64>,
    /// The seed of the trials that tune.
    #[serde(default)]
    pub tuning_seed: u64,
    /// The seeds with which the best trial of each optimizer and batch is trained again; the results are those of these seeds.
    pub seeds: Vec<u64>,
    /// The loss of evaluations that is compared.
    #[serde(default = "StudyFile::default_metric")]
    pub metric: String,
    /// The value of the metric for the numbers of steps to a target; without it there are none.
    pub target: Option<f64>,
    /// An optimizer falls off at the first batch whose mean exceeds that of its smallest batch by more than this.
    #[serde(default = "StudyFile::default_tolerance")]
    pub tolerance: f64,
    /// Evaluations of a trial.
    #[serde(default = "StudyFile::default_evaluations")]
    pub evaluations: u64,
    /// The growth of `phase.1.learning_rate` with the batch; without it, the values of the file hold for every batch.
    pub learning_rate_scaling: Option<Scaling>,
    /// The search through the spaces of the optimizers.
    #[serde(default)]
    pub search: Search,
    /// The checkpoints that are kept.
    #[serde(default)]
    pub checkpoints: KeptCheckpoints,
    /// The optimizers.
    pub optimizer: Vec<Contender>,
}

/// The growth of learning rates with the batch: values of the study file are those of the batch `batch`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// The rule.
    pub rule: ScalingRule,
    /// The batch for which the values are written.
    pub batch: u64,
}

/// A rule for learning rates of another batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScalingRule {
    /// With the square root of the batch (arXiv 1904.00962).
    Sqrt,
    /// With the batch (arXiv 1706.02677).
    Linear,
}

impl Scaling {
    /// Returns the factor for learning rates at the global batch `batch`.
    pub fn factor(self, batch: u64) -> f64 {
        let ratio = batch as f64 / self.batch as f64;
        match self.rule {
            ScalingRule::Sqrt => ratio.sqrt(),
            ScalingRule::Linear => ratio,
        }
    }
}

/// The checkpoints that a study keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptCheckpoints {
    /// Those of the trials that are trained with `seeds`; checkpoints of trials that tune are removed when they end.
    #[default]
    Reported,
    /// Those of all trials.
    All,
}

/// An optimizer of the study.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Contender {
    /// The name in tables.
    pub name: String,
    /// The `[optimizer]` table of its run files.
    pub table: toml::Table,
    /// The values to try, by dotted key of the run file, as in `--set`.
    pub space: Space,
}

impl Contender {
    /// Returns the combinations that `search` tries.
    pub fn points(&self, search: Search) -> Vec<Point> {
        points(&self.name, &self.space, search)
    }
}

impl StudyFile {
    /// Reads the study file `path` with `overrides`, each `key=value` as of run files.
    ///
    /// # Errors
    /// If the file cannot be read, or a value is not allowed.
    pub fn read(path: &Path, overrides: &[String]) -> anyhow::Result<StudyFile> {
        let text =
            files::read_to_string(path).with_context(|| format!("cannot read the study file {}", path.display()))?;
        let file = RunFile::of_text(path, text).with_overrides(overrides)?;
        let study: StudyFile = file.parse()?;
        study.check().with_context(|| path.display().to_string())?;
        Ok(study)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.name.trim().is_empty(), "name requires a text with at least one letter, got {:?}", self.name);
        for (key, values) in [("sequences", &self.sequences), ("batches", &self.batches), ("seeds", &self.seeds)] {
            ensure!(!values.is_empty(), "{key} requires at least one number, got []");
            let mut sorted = values.clone();
            sorted.sort_unstable();
            ensure!(
                sorted.windows(2).all(|pair| pair[0] < pair[1]),
                "{key} requires different numbers, got {values:?}"
            );
        }
        if let Some(batch) = self.batches.iter().find(|batch| **batch == 0) {
            bail!("batches requires numbers of at least 1, got {batch}");
        }
        if let (Some(least), Some(most)) = (self.sequences.iter().min(), self.batches.iter().max()) {
            ensure!(least >= most, "sequences requires at least the largest of batches ({most}), got {least}");
        }
        ensure!(
            !self.seeds.contains(&self.tuning_seed),
            "seeds requires other seeds than tuning_seed, got {} in both; results of the seed that tuned are too good",
            self.tuning_seed
        );
        ensure!(self.evaluations > 0, "evaluations requires at least 1, got 0");
        ensure!(self.tolerance >= 0.0, "tolerance requires a number of at least 0, got {}", self.tolerance);
        if let Some(target) = self.target {
            ensure!(target.is_finite(), "target requires a finite number, got {target}");
        }
        if let Some(scaling) = self.learning_rate_scaling {
            ensure!(scaling.batch > 0, "learning_rate_scaling.batch requires at least 1, got 0");
        }
        if let Search::Random { trials: 0, .. } = self.search {
            bail!("search.trials requires at least 1, got 0");
        }
        self.check_contenders()
    }

    /// Checks that every optimizer is tuned with the same number of trials.
    fn check_contenders(&self) -> anyhow::Result<()> {
        ensure!(!self.optimizer.is_empty(), "requires at least one [[optimizer]]");
        for (i, contender) in self.optimizer.iter().enumerate() {
            ensure!(!contender.name.trim().is_empty(), "optimizer {} requires a name", i + 1);
            let twice = self.optimizer[..i].iter().any(|earlier| earlier.name == contender.name);
            ensure!(!twice, "two optimizers have the name {:?}; rename one", contender.name);
            for (key, values) in &contender.space {
                values.check(self.search).with_context(|| format!("optimizer {:?}, space, {key}", contender.name))?;
            }
        }
        let trials: Vec<usize> = self.optimizer.iter().map(|contender| contender.points(self.search).len()).collect();
        if trials.iter().any(|count| *count != trials[0]) {
            let counts =
                self.optimizer.iter().zip(&trials).map(|(contender, count)| format!("{} {count}", contender.name));
            bail!(
                "requires the same number of trials for every optimizer, got {}; change their spaces, or set [search] kind = \"random\"",
                counts.collect::<Vec<_>>().join(", ")
            );
        }
        Ok(())
    }

    fn default_metric() -> String {
        "mlm_loss".to_owned()
    }

    fn default_tolerance() -> f64 {
        0.05
    }

    fn default_evaluations() -> u64 {
        10
    }
}
