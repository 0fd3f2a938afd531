//! The state that a run starts from: random weights, imported weights, or a checkpoint that it resumes.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::Run;
use super::compatibility::{check_model, check_tokenizer};
use super::weights::{FoundModel, configuration_in, open_model};
use crate::bert::{BertConfig, Head, SIZES};
use crate::checkpoint::{
    Best, Checkpoint, Contents, Loaded, METRICS_FILE, RUN_FILE, Software, State, is_sentence_transformers_file,
    load_latest,
};
use crate::data::{Manifest, PreparedData, Split, TokenizerFiles};
use crate::divergence::{Monitor, RollBacks};
use crate::schedule::{Position, Schedule};
use crate::settings::differing_settings;

/// The names of settings in an error, at most.
const SHOWN_SETTINGS: usize = 20;

/// The state before the first step that this process takes.
#[derive(Debug)]
pub enum InitialState {
    /// Weights drawn with the run's seed.
    Random,
    /// Weights of a Hugging Face model or of another run's checkpoint.
    Imported(Box<FoundModel>),
    /// The newest checkpoint of this run.
    Resumed {
        /// The checkpoint.
        checkpoint: Box<Checkpoint>,
        /// The directory of the checkpoint.
        path: PathBuf,
    },
}

/// Whether a run may resume.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResumeOptions {
    /// Resume from the newest checkpoint in the run directory, if there is one.
    pub resume: bool,
    /// Resume although settings differ from those of the checkpoint.
    pub accept_changes: bool,
}

/// The reason why a run does not start in its directory as asked; the options of [`ResumeOptions`] are the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant explains it and its fields")]
pub enum ResumeError {
    #[error("{run} already holds a run; resume it, or choose another [checkpoint] directory")]
    RunExists { run: String },
    #[error(
        "cannot resume from {checkpoint}: it was trained with other settings ({differing}); restore them, or accept the \
         changes"
    )]
    SettingsChanged { checkpoint: String, differing: String },
}

/// A run that can start and resume in a directory: what the initial state depends on.
pub trait Resumable {
    /// Returns the run directory.
    fn directory(&self) -> &Path;

    /// Returns the schedule of the run.
    fn schedule(&self) -> &Schedule;

    /// Returns the configuration of the model.
    fn model(&self) -> &BertConfig;

    /// Returns the vocabulary and the rules of words of the tokens that the run trains on.
    fn tokenizer(&self) -> TokenizerFiles;

    /// Returns the identity of the settings and the data, which a resumed run must share with its checkpoint.
    fn fingerprint(&self) -> String {
        self.fingerprint_of(&self.settings())
    }

    /// Returns the identity of other `settings` and the data of this run.
    fn fingerprint_of(&self, settings: &Value) -> String;

    /// Returns the settings that determine the weights.
    fn settings(&self) -> Value;

    /// Returns the settings of the run that wrote `checkpoint`, under the same names as [`Resumable::settings`].
    ///
    /// # Errors
    /// If its run file is not one of this kind of run and this version.
    fn settings_of(&self, checkpoint: &Checkpoint) -> anyhow::Result<Value>;

    /// Opens the model that the first weights are imported from; none if they are drawn with the seed.
    ///
    /// # Errors
    /// If it cannot be read, or is a model of another shape.
    fn import(&self) -> anyhow::Result<Option<FoundModel>>;
}

/// A pretraining run and its data.
#[derive(Clone, Copy, Debug)]
pub struct RunOnData<'a> {
    /// The run.
    pub run: &'a Run,
    /// The prepared data.
    pub prepared: &'a PreparedData,
}

impl Resumable for RunOnData<'_> {
    fn directory(&self) -> &Path {
        self.run.checkpoint.directory.local()
    }

    fn schedule(&self) -> &Schedule {
        &self.run.schedule
    }

    fn model(&self) -> &BertConfig {
        &self.run.model
    }

    fn tokenizer(&self) -> TokenizerFiles {
        self.prepared.tokenizer_files()
    }

    fn fingerprint_of(&self, settings: &Value) -> String {
        Run::fingerprint_of(settings.clone(), &data_fingerprint(self.prepared.manifest()))
    }

    fn settings(&self) -> Value {
        self.run.settings()
    }

    fn settings_of(&self, checkpoint: &Checkpoint) -> anyhow::Result<Value> {
        let run_file = text_of(checkpoint, RUN_FILE)?;
        let (model, _) = configuration_in(checkpoint, "".as_ref())?;
        Ok(Run::from_checkpoint(RUN_FILE.as_ref(), run_file, &model)?.settings())
    }

    fn import(&self) -> anyhow::Result<Option<FoundModel>> {
        let open = |import: &PathBuf| open_model(import).context("import");
        let found = self.run.import.as_ref().map(open).transpose()?;
        Ok(found.map(|found| found.with_head(Head::Pretraining)))
    }
}

impl InitialState {
    /// Finds the initial state of `run`, and returns it with messages for the user.
    ///
    /// # Errors
    /// If the run directory holds a run and `resume` is false; if the checkpoint belongs to another run, with the names of
    /// the settings that differ; if the weights have another vocabulary or other rules of words or, unless this run trained them,
    /// another configuration; if the checkpoint is damaged.
    pub fn find(run: &dyn Resumable, options: ResumeOptions) -> anyhow::Result<(InitialState, Vec<String>)> {
        let directory = run.directory();
        if !options.resume {
            refuse_existing_run(directory)?;
        } else if let Some(Loaded { path, checkpoint, mut notes }) = load_latest(directory, Contents::All)? {
            let differing = differing_from(run, &checkpoint);
            notes.extend(check_weights(run, &checkpoint, &path, differing.as_deref())?);
            if let Some(differing) = differing {
                let shown = path.display().to_string();
                if !options.accept_changes {
                    return Err(ResumeError::SettingsChanged { checkpoint: shown, differing }.into());
                }
                check_sizes(run, &checkpoint, &path)?;
                let (step, steps) = (checkpoint.state.step, run.schedule().steps());
                ensure!(
                    step <= steps,
                    "cannot resume from {shown}: the schedule of the run file requires a checkpoint of at most step {steps}, found \
                     step {step}; raise the number of steps"
                );
                notes.push(format!("resuming with changed settings: {differing}"));
            } else {
                check_position(run.schedule(), &checkpoint.state, &path)?;
            }
            return Ok((InitialState::Resumed { checkpoint: Box::new(checkpoint), path }, notes));
        }
        let Some(found) = run.import()? else { return Ok((InitialState::Random, Vec::new())) };
        let next = "prepare the data with the tokenizer of the weights, or start from other weights";
        let note = check_tokenizer(&found.checkpoint, &found.path, &run.tokenizer(), next).context("import")?;
        check_model(&found.path, &found.config, run.model()).context("import")?;
        let notes = found.notes().into_iter().chain(note).collect();
        Ok((InitialState::Imported(Box::new(found)), notes))
    }

    /// Returns the best evaluation so far of a resumed run that selects a checkpoint by a metric.
    pub fn best(&self) -> Option<Best> {
        match self {
            InitialState::Random | InitialState::Imported(_) => None,
            InitialState::Resumed { checkpoint, .. } => checkpoint.state.best.clone(),
        }
    }

    /// Returns the state of the divergence alarm. A checkpoint without one, as an import has, is good.
    pub fn divergence(&self) -> Monitor {
        match self {
            InitialState::Random | InitialState::Imported(_) => Monitor::default(),
            InitialState::Resumed { checkpoint, .. } => {
                let State { divergence, step, .. } = &checkpoint.state;
                divergence.clone().unwrap_or_else(|| Monitor::from_checkpoint(*step))
            }
        }
    }

    /// Returns the returns of a resumed run from a divergence.
    pub fn roll_backs(&self) -> RollBacks {
        match self {
            InitialState::Random | InitialState::Imported(_) => RollBacks::default(),
            InitialState::Resumed { checkpoint, .. } => checkpoint.state.roll_backs.clone(),
        }
    }

    /// Returns the software that wrote the checkpoint of a resumed run, if it is recorded.
    pub fn software(&self) -> Option<Software> {
        match self {
            InitialState::Random | InitialState::Imported(_) => None,
            InitialState::Resumed { checkpoint, .. } => checkpoint.state.software.clone(),
        }
    }

    /// Returns the files of sentence-transformers beside the weights, which every checkpoint of the run keeps.
    pub fn sentence_transformers_files(&self) -> Vec<(String, Vec<u8>)> {
        let files = match self {
            InitialState::Random => return Vec::new(),
            InitialState::Imported(found) => &found.checkpoint.files,
            InitialState::Resumed { checkpoint, .. } => &checkpoint.files,
        };
        files.iter().filter(|(name, _)| is_sentence_transformers_file(name)).cloned().collect()
    }

    /// Returns the number of weight updates that are done.
    pub fn step(&self) -> u64 {
        match self {
            InitialState::Random | InitialState::Imported(_) => 0,
            InitialState::Resumed { checkpoint, .. } => checkpoint.state.step,
        }
    }
}

/// Checks that no run has written into `directory`.
///
/// # Errors
/// If the directory holds a checkpoint or metrics. A damaged checkpoint counts too: a new run would remove it.
pub fn refuse_existing_run(directory: &Path) -> Result<(), ResumeError> {
    let has_checkpoint = !matches!(load_latest(directory, Contents::ModelOnly), Ok(None));
    if has_checkpoint || directory.join(METRICS_FILE).exists() {
        return Err(ResumeError::RunExists { run: directory.display().to_string() });
    }
    Ok(())
}

/// Returns the file `name` that is copied into `checkpoint`.
pub(super) fn text_of<'c>(checkpoint: &'c Checkpoint, name: &str) -> anyhow::Result<&'c str> {
    let file = checkpoint.file(name).with_context(|| format!("the checkpoint requires a file {name}, found none"))?;
    std::str::from_utf8(file).with_context(|| format!("{name} of the checkpoint requires UTF-8 text"))
}

/// Lists the settings that differ between `run` and `checkpoint`, and the data if it does; returns none if their fingerprints are
/// equal.
fn differing_from(run: &dyn Resumable, checkpoint: &Checkpoint) -> Option<String> {
    let fingerprint = &checkpoint.state.run_fingerprint;
    // A checkpoint of `lambert import` has no fingerprint, because it fits every run of its model.
    if fingerprint.is_empty() || *fingerprint == run.fingerprint() {
        return None;
    }
    let differing = match run.settings_of(checkpoint) {
        Ok(earlier) => {
            let mut differing = differing_settings(&earlier, &run.settings());
            if run.fingerprint_of(&earlier) != *fingerprint {
                differing.push("the data".to_owned());
            }
            differing
        }
        Err(_) if checkpoint.file(RUN_FILE).is_none() => vec!["the data".to_owned()],
        Err(_) => vec!["its run file is of another kind of run or version".to_owned()],
    };
    Some(listed(&differing))
}

/// Joins the names of settings, of which a run with many phases can have thousands.
fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(SHOWN_SETTINGS)].join(", ");
    match names.len().saturating_sub(SHOWN_SETTINGS) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Checks that the weights of `checkpoint`, which was read from `path`, have the vocabulary and the rules of words of `run` and, if an
/// import wrote them, its configuration: no option accepts other ones. `differing` lists other settings for the error. Returns a note
/// if the checkpoint has no tokenizer.
fn check_weights(
    run: &dyn Resumable,
    checkpoint: &Checkpoint,
    path: &Path,
    differing: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let next = "a run keeps its tokenizer, so restore it, or start another run";
    let others = differing.map_or(String::new(), |others| format!(" (it was trained with other settings: {others})"));
    let failed = || format!("cannot resume from {}{others}", path.display());
    let note = check_tokenizer(checkpoint, path, &run.tokenizer(), next).with_context(failed)?;
    if checkpoint.state.run_fingerprint.is_empty() {
        let (found, _) = configuration_in(checkpoint, path)?;
        check_model(path, &found, run.model()).with_context(failed)?;
    }
    Ok(note)
}

/// Checks that the tensors of `checkpoint`, which was read from `path`, have the shapes of `run`, whose settings changed.
fn check_sizes(run: &dyn Resumable, checkpoint: &Checkpoint, path: &Path) -> anyhow::Result<()> {
    let (found, _) = configuration_in(checkpoint, path)?;
    let differing = found.differences(run.model()).into_iter().find(|(key, ..)| SIZES.contains(&key.as_str()));
    let Some((key, found, size)) = differing else { return Ok(()) };
    bail!(
        "cannot resume from {}: its weights require {key} = {found}, got {size}; restore the key in [model], or start another run",
        path.display()
    )
}

/// Checks that the position in `state` of the checkpoint `path` is that of `schedule` after as many steps.
fn check_position(schedule: &Schedule, state: &State, path: &Path) -> anyhow::Result<()> {
    let &State { step, phase, step_in_phase, next_example, optimizer_steps, .. } = state;
    let found = Position { phase, step_in_phase, next_example, optimizer_steps };
    ensure!(
        schedule.leaving_out(&state.roll_backs.skipped).position(step).is_ok_and(|required| required == found),
        "cannot resume from {}: its state.json requires the position of the run's schedule after its step, found step {step}, \
         phase {phase}, step {step_in_phase} of the phase, example {next_example} and optimizer step {optimizer_steps}; it was \
         changed after it was written, so remove or rename this checkpoint to resume from an earlier one",
        path.display()
    );
    Ok(())
}

/// Returns the sha256 of the vocabulary and of the content of every training shard.
pub fn data_fingerprint(manifest: &Manifest) -> String {
    let shards = manifest.shards.iter().filter(|shard| shard.split == Split::Train);
    let mut text = manifest.vocabulary_sha256.clone();
    shards.for_each(|shard| text += &format!("\n{}", shard.sha256));
    crate::digest::sha256_hex(text.as_bytes())
}
