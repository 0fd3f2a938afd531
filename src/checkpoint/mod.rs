//! Checkpoints. A checkpoint holds all values that the next step depends on, bit for bit; an exported Hugging Face directory
//! holds the model only.
//!
//! ```text
//! RUN/step-00004200/        one checkpoint: the state after 4200 weight updates
//!     model.safetensors     weights, by Hugging Face's names, as the device holds them (vocabulary rows padded)
//!     optimizer.safetensors optimizer state: m/<tensor name>, v/<tensor name>, or momentum/<tensor name>
//!     state.json            step, phase, data position …; size and sha256 of every other file; written last
//!     run.toml config.json tokenizer.json …   copies, so that the directory can be read without the run
//!     modules.json 1_Pooling/config.json …    copies of the files of sentence-transformers, if the run began with such a model
//! RUN/.step-00004300.partial    a save in progress, or one that was interrupted; never read
//! ```
//!
//! A save writes to a temporary directory, syncs it and renames it, so a directory `step-…` was complete when it appeared. Only
//! directories with exactly this layout are ever removed. A run holds a [`RunLock`], so two runs never save into one directory
//! at the same time.

mod copied_files;
mod error;
pub mod hugging_face;
mod load;
mod lock;
mod remote;
mod save;
mod tensor_file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use copied_files::{RUN_FILE, TOKENIZER_FILES, is_copied_file, is_sentence_transformers_file};
pub use error::CheckpointError;
pub use load::{Contents, Loaded, arrange, load, load_latest, open};
pub use lock::RunLock;
pub use remote::{CheckpointFetch, Mirrored, RemoteRun};
pub use save::{Keep, RunDirectory, Saved};
pub use tensor_file::{FileRecord, TensorFile, write_tensors};

use crate::digest::{is_sealed, seal};
use crate::divergence::{Monitor, RollBacks};
use crate::files;
use crate::settings::is_default;
use crate::shape::HostTensor;

/// The version of the layout above; other versions cannot be loaded.
pub const FORMAT_VERSION: u64 = 1;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// The file of a run directory with the metrics of every step.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// All values besides tensors that the next step depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The number of completed weight updates, which is in the directory's name.
    pub step: u64,
    /// Index of the phase that the next step belongs to, from 0.
    pub phase: usize,
    /// The number of completed weight updates in that phase.
    pub step_in_phase: u64,
    /// The next training example; the data order is a function of it and the seed.
    pub next_example: u64,
    /// The optimizer's step count for bias correction, which a phase may have reset.
    pub optimizer_steps: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The fingerprint of the settings that a resumed run must share; empty after an import, which fits any run.
    pub run_fingerprint: String,
    /// The sha256 of the vocabulary of the embedding's rows; empty if unknown.
    pub vocabulary_sha256: String,
    /// The metrics of the last step, for information only.
    pub metrics: serde_json::Map<String, serde_json::Value>,
    /// Tensors that an import did not find; a run that starts here initialises them from its seed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The best evaluation so far, for runs that select a checkpoint by a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
    /// The state of the divergence alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Monitor>,
    /// Returns from a divergence, and the examples that they left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub roll_backs: RollBacks,
    /// The software that trained the last steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<Software>,
}

/// The software that trains a run. Another program or plugin may round differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Software {
    /// The version and the sha256 of this program.
    pub program: String,
    /// The version of the C API and the sha256 of the plugin.
    pub plugin: String,
}

impl Software {
    /// Returns a sentence for each part that differs in `now`.
    pub fn changes_to(&self, now: &Software) -> Vec<String> {
        let parts = [("program", &self.program, &now.program), ("plugin", &self.plugin, &now.plugin)];
        let changed = parts.into_iter().filter(|(_, earlier, now)| earlier != now);
        let sentence = |(part, earlier, now): (&str, &String, &String)| {
            format!(
                "the {part} is another one than that of the checkpoint ({now}; before {earlier}), so the next steps may differ by \
                 rounding from those of a run without this change"
            )
        };
        changed.map(sentence).collect()
    }
}

impl State {
    /// Returns the steps whose checkpoints stay whatever their age: the best one, and the last good one before a divergence.
    fn required_steps(&self) -> [Option<u64>; 2] {
        let best = self.best.as_ref().map(|best| best.step);
        [best, self.divergence.as_ref().and_then(Monitor::last_good)]
    }
}

/// The best evaluation of a run so far. Its checkpoint is kept, whatever its age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// The name of the metric.
    pub metric: String,
    /// The value of the metric.
    pub value: f64,
    /// The step of the evaluation and of its checkpoint.
    pub step: u64,
    /// The number of evaluations since then.
    pub evaluations_since: u64,
}

/// One checkpoint in host memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Checkpoint {
    /// The content of `state.json`.
    pub state: State,
    /// Weights with Hugging Face's names, in the model's order.
    pub model: Vec<(String, HostTensor)>,
    /// Optimizer state, with names such as `m/<tensor name>`; empty after an import.
    pub optimizer: Vec<(String, HostTensor)>,
    /// Copied files: names that [`is_copied_file`] accepts, with their content.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Checkpoint {
    /// Returns the content of a copied file.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(n, _)| n == name).map(|(_, content)| content.as_slice())
    }
}

/// `state.json`: the state, and the records of the other files.
#[derive(Serialize, Deserialize)]
struct Manifest {
    format_version: u64,
    /// The sha256 of this file without these digits.
    sha256: String,
    state: State,
    files: BTreeMap<String, FileRecord>,
}

impl Manifest {
    /// Returns the text of `state.json`.
    fn to_text(&self) -> serde_json::Result<String> {
        let unsealed = serde_json::to_string_pretty(&Manifest {
            format_version: self.format_version,
            sha256: String::new(),
            state: self.state.clone(),
            files: self.files.clone(),
        })?;
        Ok(seal(&(unsealed + "\n")))
    }

    /// Reads `state.json` in `directory`.
    ///
    /// # Errors
    /// [`CheckpointError::NotACheckpoint`] if there is none; [`CheckpointError::Damaged`] if the directory is named for another
    /// step; as [`Manifest::parse`].
    fn read(directory: &Path) -> Result<Manifest, CheckpointError> {
        let path = directory.join(STATE);
        let text = match files::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let reason = format!("it holds no {STATE}");
                return Err(CheckpointError::NotACheckpoint { path: directory.to_path_buf(), reason });
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(CheckpointError::damaged(&path, "not a text file"));
            }
            Err(e) => return Err(CheckpointError::io("read", &path)(e)),
        };
        let manifest = Manifest::parse(&path, &text)?;
        match directory.file_name().and_then(|name| step_of(name.to_str()?)) {
            Some(named) if named != manifest.state.step => {
                let fault = format!("it holds step {}, in a directory named for step {named}", manifest.state.step);
                Err(CheckpointError::damaged(&path, fault))
            }
            _ => Ok(manifest),
        }
    }

    /// Parses the text of the file `path`.
    ///
    /// # Errors
    /// [`CheckpointError::Version`], which is checked first; [`CheckpointError::Damaged`] if the text is not the one that was
    /// written.
    fn parse(path: &Path, text: &str) -> Result<Manifest, CheckpointError> {
        #[derive(Deserialize)]
        struct Versioned {
            format_version: u64,
        }
        let not_json = |e: serde_json::Error| CheckpointError::damaged(path, format!("invalid JSON: {e}"));
        let found = serde_json::from_str::<Versioned>(text).map_err(not_json)?.format_version;
        if found != FORMAT_VERSION {
            let path = path.to_path_buf();
            return Err(CheckpointError::Version { path, found, supported: FORMAT_VERSION });
        }
        let manifest: Manifest = serde_json::from_str(text).map_err(not_json)?;
        if let Some(other) = manifest.files.keys().find(|name| *name == STATE || !save::is_checkpoint_file(name)) {
            return Err(CheckpointError::damaged(
                path,
                format!("it lists {other:?}, which is no file of a checkpoint"),
            ));
        }
        if !is_sealed(text, &manifest.sha256) {
            return Err(CheckpointError::damaged(path, tensor_file::SHA256_MISMATCH));
        }
        Ok(manifest)
    }

    /// Checks that every listed file exists with its recorded size, without reading its content.
    fn check_sizes(&self, directory: &Path) -> Result<(), CheckpointError> {
        for (name, record) in &self.files {
            let path = directory.join(name);
            let found = match std::fs::metadata(&path) {
                Ok(metadata) => metadata.len(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    return Err(CheckpointError::damaged(&path, format!("missing, although {STATE} lists it")));
                }
                Err(e) => return Err(CheckpointError::io("read", &path)(e)),
            };
            if found != record.bytes {
                return Err(CheckpointError::damaged(&path, format!("requires {} bytes, found {found}", record.bytes)));
            }
        }
        Ok(())
    }
}

/// Returns the directory of the checkpoint after `step` updates in the run directory `run`.
pub fn checkpoint_path(run: &Path, step: u64) -> PathBuf {
    run.join(step_name(step))
}

/// Returns the directories of the checkpoints in the run directory `run`, in the order of their steps; they may be damaged.
///
/// # Errors
/// If the directory cannot be listed.
pub fn checkpoint_paths(run: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    Ok(steps_in(run)?.into_iter().map(|step| checkpoint_path(run, step)).collect())
}

/// Returns the directory name of the checkpoint after `step` updates.
fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Returns the step in a directory's name; none if [`step_name`] does not give this name.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// Returns the steps of the checkpoint names in a run directory, in ascending order; none if the directory does not exist.
fn steps_in(run: &Path) -> Result<Vec<u64>, CheckpointError> {
    let entries = match std::fs::read_dir(run) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(CheckpointError::io("list", run)(e)),
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CheckpointError::io("list", run))?;
        steps.extend(entry.file_name().to_str().and_then(step_of));
    }
    steps.sort_unstable();
    Ok(steps)
}

#[cfg(test)]
mod tests;
