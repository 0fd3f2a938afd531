//! The run file of `lambert finetune`, and its checked settings: everything that needs neither the data nor the model.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::settings::{DropoutSettings, SelectionSettings, TaskSettings, TrainSettings};
use crate::bert::Recompute;
use crate::optim::OptimizerConfig;
use crate::run::file::RunFile;
use crate::run::{CheckpointSettings, DivergenceSettings};
use crate::step::parallel::{GradientReduceDtype, ParallelSettings};
use crate::storage::Location;
use crate::task::Precision;

/// A fine-tuning run: the checked settings of a run file. Paths are relative to the working directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FineTuningRun {
    /// The name of the run.
    pub name: String,
    /// The seed of the new head, dropout and the order of the examples.
    #[serde(default)]
    pub seed: u64,
    /// The precision of the matrix products.
    #[serde(default)]
    pub precision: Precision,
    /// The activations that the backward pass recomputes instead of storing.
    #[serde(default)]
    pub recompute: Recompute,
    /// Steps with a gradient that is not finite that are skipped before the run stops.
    #[serde(default)]
    pub skip_non_finite: u64,
    /// The model: a checkpoint or a run, which may be in a bucket, or a Hugging Face directory. Its configuration and tokenizer are
    /// used.
    pub import: Location,
    /// Draw all weights with the seed instead of importing them: the comparison that shows what pretraining gave.
    #[serde(default)]
    pub random_weights: bool,
    /// The `[task]` table.
    pub task: TaskSettings,
    /// The `[model]` table.
    #[serde(default)]
    pub model: DropoutSettings,
    /// The optimizer and its settings.
    pub optimizer: OptimizerConfig,
    /// The `[train]` table.
    pub train: TrainSettings,
    /// The `[parallel]` table.
    #[serde(default)]
    pub parallel: ParallelSettings,
    /// The `[evaluate]` table.
    #[serde(default)]
    pub evaluate: SelectionSettings,
    /// The `[divergence]` table.
    #[serde(default)]
    pub divergence: DivergenceSettings,
    /// The `[checkpoint]` table.
    pub checkpoint: CheckpointSettings,
    /// The run file as text with overrides applied. Every checkpoint contains a copy.
    #[serde(skip)]
    pub text: String,
}

impl FineTuningRun {
    /// Reads and checks the run file `path` with `overrides` (`train.learning_rate=3e-5`) applied.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, or has a key or value that is not allowed; the message names the file, the
    /// table and the key.
    pub fn open(path: &Path, overrides: &[String]) -> anyhow::Result<FineTuningRun> {
        FineTuningRun::parse(&RunFile::read(path, overrides)?)
    }

    /// Reads the run from a checkpoint's copy of the run file; `origin` is named in errors.
    ///
    /// # Errors
    /// If `text` is not a run file of fine-tuning.
    pub fn from_checkpoint(origin: &Path, text: &str) -> anyhow::Result<FineTuningRun> {
        FineTuningRun::parse(&RunFile::from_checkpoint(origin, text))
    }

    fn parse(file: &RunFile) -> anyhow::Result<FineTuningRun> {
        let path = file.path.display();
        let mut run: FineTuningRun = file.parse()?;
        ensure!(!run.name.trim().is_empty(), "{path}: `name` requires a name, as in name = \"sentiment\"");
        ensure!(run.precision != Precision::F64, "{path}: `precision` requires \"f32\" or \"bf16\", got \"f64\"");
        run.task.validate().with_context(|| format!("{path}: [task]"))?;
        run.evaluate.metric(run.task.kind).with_context(|| format!("{path}: [evaluate]"))?;
        ensure!(run.evaluate.micro_batch_size > 0, "{path}: [evaluate] micro_batch_size requires at least 1, got 0");
        let cached = run.checkpoint.directory.cached_in(run.checkpoint.cache.as_deref());
        run.checkpoint.directory = cached.with_context(|| format!("{path}: [checkpoint] cache"))?;
        run.text = file.text.clone();
        Ok(run)
    }

    /// Returns the run with another seed, in the directory `seed-N` of its run directory.
    pub fn with_seed(&self, seed: u64) -> FineTuningRun {
        let mut run = self.clone();
        run.seed = seed;
        run.checkpoint.directory = self.checkpoint.directory.join(&format!("seed-{seed}"));
        run
    }

    /// Returns the settings that determine the weights after each step, under the names of the run file; the model and the
    /// data are added by their contents.
    pub fn settings(&self) -> Value {
        let mut settings = json!({
            "seed": self.seed,
            "precision": self.precision,
            "random_weights": self.random_weights,
            "task": self.task,
            "model": self.model,
            "optimizer": self.optimizer,
            "train": self.train,
            // An early stop depends on the evaluations.
            "evaluate": self.evaluate,
        });
        let reduce_dtype = self.parallel.gradient_reduce_dtype;
        if reduce_dtype != GradientReduceDtype::default() {
            settings["parallel"] = json!({ "gradient_reduce_dtype": reduce_dtype });
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::fine_tuning::TaskKind;

    #[test]
    fn shipped_run_files_are_read() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/runs/fine-tuning");
        let mut kinds = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let run = FineTuningRun::open(&path, &[]).unwrap_or_else(|error| panic!("{error:#}"));
            run.train.phase(10_000, run.task.sequence_length).unwrap().validate().unwrap();
            kinds.push(run.task.kind);
        }
        assert_eq!(kinds.len(), 5);
        assert!(kinds.contains(&TaskKind::QuestionAnswering) && kinds.contains(&TaskKind::TokenClassification));
    }

    #[test]
    fn errors_name_the_file_the_table_and_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.toml");
        let text = "name = 'x'\nimport = 'm'\n[task]\nkind = 'regression'\ntrain = 'a'\ndev = 'b'\nsequence_length = 8\n\
                    [optimizer]\nkind = 'adamw'\n[train]\nepochs = 1\nglobal_batch = 8\nmicro_batch_size = 8\n\
                    learning_rate = 1e-3\n[checkpoint]\ndirectory = 'd'\n";
        let message = |text: &str, overrides: &[&str]| {
            std::fs::write(&path, text).unwrap();
            let overrides: Vec<String> = overrides.iter().map(|set| (*set).to_owned()).collect();
            let message = format!("{:#}", FineTuningRun::open(&path, &overrides).unwrap_err());
            message.replace(&path.display().to_string(), "F")
        };
        std::fs::write(&path, text).unwrap();
        let run = FineTuningRun::open(&path, &[]).unwrap();
        assert_eq!(run.with_seed(7).checkpoint.directory.local(), Path::new("d/seed-7"));
        assert_eq!(
            message(text, &["task.stride=3"]),
            "F: [task]: `stride` has no meaning for kind = \"regression\"; remove it"
        );
        assert_eq!(
            message(text, &["evaluate.metric=f1"]),
            "F: [evaluate]: `metric` requires pearson or spearman for kind = \"regression\", got \"f1\""
        );
        let misspelt = message(&text.replace("epochs", "epoch"), &[]);
        assert!(misspelt.contains("unknown key `epoch` in [train]; did you mean `epochs`?"), "{misspelt}");
    }
}
