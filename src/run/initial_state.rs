//! The state that a run starts from: random weights, imported weights, or a checkpoint that it resumes.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Run;
use super::weights::{FoundModel, open_model};
use crate::bert::Head;
use crate::checkpoint::METRICS_FILE;
use crate::checkpoint::{Best, Checkpoint, Contents, Loaded, State, load_latest};
use crate::data::{Manifest, Split};
use crate::schedule::{Position, Schedule};
use crate::settings::differing_settings;

/// The copy of the run file in a checkpoint.
pub(super) const RUN_FILE: &str = "run.toml";

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

    /// Returns the identity of the settings and the data, which a resumed run must share with its checkpoint.
    fn fingerprint(&self) -> String;

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

/// A pretraining run and the fingerprint of its data.
#[derive(Clone, Copy, Debug)]
pub struct RunOnData<'a> {
    /// The run.
    pub run: &'a Run,
    /// The fingerprint of the prepared data ([`data_fingerprint`]).
    pub data_fingerprint: &'a str,
}

impl Resumable for RunOnData<'_> {
    fn directory(&self) -> &Path {
        self.run.checkpoint.directory.local()
    }

    fn schedule(&self) -> &Schedule {
        &self.run.schedule
    }

    fn fingerprint(&self) -> String {
        self.run.fingerprint(self.data_fingerprint)
    }

    fn settings(&self) -> Value {
        self.run.settings()
    }

    fn settings_of(&self, checkpoint: &Checkpoint) -> anyhow::Result<Value> {
        let run_file = text_of(checkpoint, RUN_FILE)?;
        Ok(Run::from_checkpoint(RUN_FILE.as_ref(), run_file, self.run.model.vocab_size)?.settings())
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
    /// the settings that differ; if it is damaged.
    pub fn find(run: &dyn Resumable, options: ResumeOptions) -> anyhow::Result<(InitialState, Vec<String>)> {
        let directory = run.directory();
        if !options.resume {
            refuse_existing_run(directory)?;
        } else if let Some(Loaded { path, checkpoint, mut notes }) = load_latest(directory, Contents::All)? {
            let differing = differing_from(run, &checkpoint);
            if let Some(differing) = differing {
                let shown = path.display().to_string();
                if !options.accept_changes {
                    return Err(ResumeError::SettingsChanged { checkpoint: shown, differing }.into());
                }
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
        let notes = found.notes();
        Ok((InitialState::Imported(Box::new(found)), notes))
    }

    /// Returns the best evaluation so far of a resumed run that selects a checkpoint by a metric.
    pub fn best(&self) -> Option<Best> {
        match self {
            InitialState::Random | InitialState::Imported(_) => None,
            InitialState::Resumed { checkpoint, .. } => checkpoint.state.best.clone(),
        }
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

/// Lists the settings that differ between `run` and `checkpoint`; returns none if their fingerprints are equal.
fn differing_from(run: &dyn Resumable, checkpoint: &Checkpoint) -> Option<String> {
    let state = &checkpoint.state;
    // A checkpoint of `lambert import` has no fingerprint, because it fits every run of its model.
    if state.run_fingerprint.is_empty() || state.run_fingerprint == run.fingerprint() {
        return None;
    }
    let differing = match run.settings_of(checkpoint) {
        Ok(earlier) => differing_settings(&earlier, &run.settings()),
        Err(_) if checkpoint.file(RUN_FILE).is_none() => Vec::new(),
        Err(_) => vec!["its run file is of another kind of run or version".to_owned()],
    };
    Some(if differing.is_empty() { "the data".to_owned() } else { differing.join(", ") })
}

/// Checks that the position in `state` of the checkpoint `path` is that of `schedule` after as many steps.
fn check_position(schedule: &Schedule, state: &State, path: &Path) -> anyhow::Result<()> {
    let &State { step, phase, step_in_phase, next_example, optimizer_steps, .. } = state;
    let found = Position { phase, step_in_phase, next_example, optimizer_steps };
    ensure!(
        schedule.position(step).is_ok_and(|required| required == found),
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
