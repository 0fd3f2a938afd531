//! A fine-tuning run: its run file, its labelled data, and the model that it starts from.
//!
//! [`FineTuningRun`] is the checked run file. [`FineTuning`] is the run on its data: the tokenized examples, the head with its
//! labels, and the schedule, whose steps depend on the number of examples. Neither holds weights or devices.

mod config;
mod data;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};

pub use self::config::FineTuningRun;
pub use self::data::{Answers, TaskData};
pub use self::settings::{DropoutSettings, SelectionSettings, TaskKind, TaskSettings, TrainSettings};
use super::buckets::fetch_model;
use super::compatibility::check_rows;
use super::initial_state::{Resumable, text_of};
use super::weights::{FoundModel, config_json, describe, open_model, tokenizer_files};
use crate::bert::{BertConfig, Head, fine_tuning_task};
use crate::checkpoint::{Checkpoint, RUN_FILE};
use crate::data::{RulesFile, Tokenizer, TokenizerFiles, VocabularyFile};
use crate::digest::sha256_hex;
use crate::schedule::{Phase, Schedule};
use crate::step::StepSpec;
use crate::task::Task;

/// A fine-tuning run on its data.
#[derive(Debug)]
pub struct FineTuning {
    /// The settings.
    pub run: FineTuningRun,
    /// The configuration of the model, with the dropout of the run.
    pub model: BertConfig,
    /// The examples and the head that they are labelled for.
    pub data: TaskData,
    /// One phase.
    pub schedule: Schedule,
    /// The task on the training rows.
    pub task: Arc<dyn Task>,
    /// The local directory of the imported model, and its head.
    import: PathBuf,
    imported_head: Head,
    tokenizer_files: Vec<(String, Vec<u8>)>,
    tokenizer: TokenizerFiles,
    note: Option<String>,
}

impl FineTuning {
    /// Opens the model's configuration and tokenizer, reads and tokenizes the examples, and checks that they fit together. A model in
    /// a bucket is downloaded first.
    ///
    /// # Errors
    /// If the model or a file cannot be read, an example is wrong (with file and line), the labels differ from those of an
    /// imported head, the tokenizer has more tokens than the model, or a setting is impossible for the data.
    pub fn open(run: FineTuningRun) -> anyhow::Result<FineTuning> {
        let import = fetch_model(&run.import).context("import")?;
        let found = open_model(&import).context("import")?;
        let model = run.model.apply(&found.config);
        model.validate().context("[model]")?;
        let tokenizer = Tokenizer::open(&found.path, false).with_context(|| {
            format!("import: {} requires the tokenizer of the model beside its weights", run.import)
        })?;
        let vocabulary = VocabularyFile { path: found.path.clone(), vocabulary: tokenizer.vocabulary().clone() };
        let note = check_rows(&run.import, &model, &vocabulary).context("import")?;
        let rules = Some(RulesFile { path: found.path.clone(), rules: tokenizer.rules() });
        let data = TaskData::open(&run.task, Arc::new(tokenizer), run.seed).context("[task]")?;
        let segments = data.train.segments().max(data.dev.segments());
        model.validate_segments(segments).with_context(|| format!("import: {}", run.import))?;
        let task = fine_tuning_task(&model, &data.head, run.task.sequence_length, run.recompute);
        let task = task.context("[task] kind requires a task with a head")?;
        task.validate(run.train.micro_batch_size).context("[task]")?;
        let phase = run.train.phase(data.train.len() as u64, run.task.sequence_length).context("[train]")?;
        let schedule = Schedule::new(vec![phase]).context("[train]")?;
        let opened = FineTuning {
            tokenizer_files: tokenizer_files(&found.path)?,
            import,
            imported_head: found.head.clone(),
            run,
            model,
            data,
            schedule,
            task,
            tokenizer: TokenizerFiles { vocabulary, rules },
            note,
        };
        opened.check_head()?;
        Ok(opened)
    }

    /// Checks that the head of the imported model is for the same labels, unless it is replaced or there is none.
    fn check_head(&self) -> anyhow::Result<()> {
        let (run, new, imported) = (&self.run, &self.data.head, &self.imported_head);
        if *imported == Head::Pretraining || run.task.replace_head || run.random_weights || imported == new {
            return Ok(());
        }
        let describe = |head: &Head| match head.labels() {
            Some(labels) => format!("{} with the labels {}", head.architecture(), labels.join(", ")),
            None => head.architecture().to_owned(),
        };
        bail!(
            "[task] requires the head of {}, {}, found {}; set labels in that order, or replace_head = true to train a new head",
            run.import,
            describe(imported),
            describe(new)
        )
    }

    /// Returns the run with another seed, on the same examples.
    #[must_use]
    pub fn with_seed(&self, seed: u64) -> FineTuning {
        let run = self.run.with_seed(seed);
        FineTuning {
            model: self.model.clone(),
            data: TaskData { train: Arc::new((*self.data.train).clone().shuffled(seed)), ..self.data.clone() },
            schedule: self.schedule.clone(),
            task: self.task.clone(),
            import: self.import.clone(),
            imported_head: self.imported_head.clone(),
            tokenizer_files: self.tokenizer_files.clone(),
            tokenizer: self.tokenizer.clone(),
            note: self.note.clone(),
            run,
        }
    }

    /// Returns the only phase.
    pub fn phase(&self) -> &Phase {
        &self.schedule.phases()[0]
    }

    /// Returns the steps between evaluations: those of the run file, or of an epoch.
    pub fn evaluate_every(&self) -> u64 {
        match self.run.evaluate.every {
            0 => (self.data.train.len() as f64 / self.run.train.global_batch as f64).round().max(1.0) as u64,
            every => every,
        }
    }

    /// Returns the specification of the step on `replicas` devices.
    ///
    /// # Errors
    /// If the global batch is not a multiple of the micro-batch size times `replicas`.
    pub fn step_spec(&self, replicas: usize) -> anyhow::Result<StepSpec> {
        let phase = self.phase();
        Ok(StepSpec {
            optimizer: self.run.optimizer.clone(),
            precision: self.run.precision,
            rows: phase.global_batch / replicas,
            accumulation_steps: phase.accumulation_steps(replicas).context("[train]")?,
            replicas,
            parallel: self.run.parallel.resolve(
                &self.task.parameters(),
                self.run.optimizer.state_names().len(),
                replicas,
            ),
            dropout: true,
            ema_decay: None,
            task: self.task.clone(),
        })
    }

    /// Returns the note for the user about the tokens and the rows of the model, if their numbers differ.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Returns the files that are copied into every checkpoint: the run file, the model's configuration with its labels, and
    /// the tokenizer.
    ///
    /// # Errors
    /// If the configuration cannot be written as JSON.
    pub fn copied_files(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let config = config_json(&self.model, &self.data.head)?;
        let mut files = vec![
            (RUN_FILE.to_owned(), self.run.text.clone().into_bytes()),
            ("config.json".to_owned(), serde_json::to_vec_pretty(&config)?),
        ];
        files.extend(self.tokenizer_files.iter().cloned());
        Ok(files)
    }
}

impl Resumable for FineTuning {
    fn directory(&self) -> &Path {
        self.run.checkpoint.directory.local()
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn model(&self) -> &BertConfig {
        &self.model
    }

    fn tokenizer(&self) -> TokenizerFiles {
        self.tokenizer.clone()
    }

    fn fingerprint_of(&self, settings: &Value) -> String {
        sha256_hex(format!("{settings}\n{}", self.data.fingerprint).as_bytes())
    }

    fn settings(&self) -> Value {
        let mut settings = self.run.settings();
        settings["config"] = json!(self.model);
        settings["head"] = self.data.head.to_config().into();
        settings
    }

    fn settings_of(&self, checkpoint: &Checkpoint) -> anyhow::Result<Value> {
        let mut settings =
            FineTuningRun::from_checkpoint(RUN_FILE.as_ref(), text_of(checkpoint, RUN_FILE)?)?.settings();
        let (config, head, _) = describe("config.json".as_ref(), text_of(checkpoint, "config.json")?.as_bytes())?;
        // The run file has one seed, but each directory of several seeds has its own.
        settings["seed"] = checkpoint.state.seed.into();
        settings["config"] = json!(config);
        settings["head"] = head.to_config().into();
        Ok(settings)
    }

    fn import(&self) -> anyhow::Result<Option<FoundModel>> {
        if self.run.random_weights {
            return Ok(None);
        }
        let found = open_model(&self.import).context("import")?;
        Ok(Some(found.with_head(self.data.head.clone())))
    }
}
