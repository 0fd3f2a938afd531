//! Loading checkpoints. Every file is checked against its recorded size and sha256.

use std::path::{Path, PathBuf};

use super::tensor_file::SHA256_MISMATCH;
use super::{Best, Checkpoint, CheckpointError, FileRecord, MODEL, Manifest, OPTIMIZER, STATE, TensorFile};
use super::{step_name, steps_in};
use crate::digest::sha256_hex;
use crate::files;
use crate::shape::{HostTensor, Shape};

/// The files of a checkpoint to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// All files, to resume training.
    All,
    /// All files but the optimizer state, to evaluate or export; [`Checkpoint::optimizer`] is empty.
    ModelOnly,
    /// The copied files only, to read the configuration; [`Checkpoint::model`] is empty, too.
    CopiedFiles,
}

/// A checkpoint and the directory that it was loaded from.
#[derive(Debug)]
pub struct Loaded {
    /// The directory of the checkpoint.
    pub path: PathBuf,
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Messages for the user about newer checkpoints that are damaged and were skipped.
    pub notes: Vec<String>,
}

/// Loads the checkpoint in the directory `step`.
///
/// # Errors
/// [`CheckpointError::NotACheckpoint`], [`CheckpointError::Version`], or [`CheckpointError::Damaged`] with the file's name.
pub fn load(step: &Path, contents: Contents) -> Result<Checkpoint, CheckpointError> {
    let Manifest { state, files, .. } = read_manifest(step)?;
    let mut checkpoint = Checkpoint { state, ..Checkpoint::default() };
    for (name, record) in &files {
        let path = step.join(name);
        match name.as_str() {
            MODEL if contents == Contents::CopiedFiles => {}
            MODEL => checkpoint.model = TensorFile::open(&path)?.read_all(record)?,
            OPTIMIZER if contents != Contents::All => {}
            OPTIMIZER => checkpoint.optimizer = TensorFile::open(&path)?.read_all(record)?,
            _ => checkpoint.files.push((name.clone(), read_file(&path, record)?)),
        }
    }
    Ok(checkpoint)
}

fn read_manifest(step: &Path) -> Result<Manifest, CheckpointError> {
    let manifest = Manifest::read(step)?;
    for required in [MODEL, OPTIMIZER] {
        if !manifest.files.contains_key(required) {
            return Err(CheckpointError::damaged(&step.join(STATE), format!("no entry for {required}")));
        }
    }
    manifest.check_sizes(step)?;
    Ok(manifest)
}

fn read_file(path: &Path, record: &FileRecord) -> Result<Vec<u8>, CheckpointError> {
    let content = files::read(path).map_err(CheckpointError::io("read", path))?;
    if sha256_hex(&content) != record.sha256 {
        return Err(CheckpointError::damaged(path, SHA256_MISMATCH));
    }
    Ok(content)
}

/// Loads the newest undamaged checkpoint of a run; returns none if the run has no checkpoints.
///
/// # Errors
/// If all checkpoints are damaged (the error of the newest), or one cannot be loaded for another reason than damage: an
/// earlier checkpoint replaces a damaged one only.
pub fn load_latest(run: &Path, contents: Contents) -> Result<Option<Loaded>, CheckpointError> {
    let mut damaged: Vec<(PathBuf, CheckpointError)> = Vec::new();
    for step in steps_in(run)?.into_iter().rev() {
        let path = run.join(step_name(step));
        match load(&path, contents) {
            Ok(checkpoint) => {
                let notes = damaged.iter().map(|(damaged, error)| damage_note(damaged, error, step)).collect();
                return Ok(Some(Loaded { path, checkpoint, notes }));
            }
            Err(error) if error.is_damage() => damaged.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    damaged.into_iter().next().map_or(Ok(None), |(_, error)| Err(error))
}

/// Returns the message that the checkpoint in `path` is damaged, and that the one of `step` is used.
fn damage_note(path: &Path, error: &CheckpointError, step: u64) -> String {
    let fault = match error {
        CheckpointError::Damaged { path: file, fault } => {
            format!("{} is damaged ({fault})", file.strip_prefix(path).unwrap_or(file).display())
        }
        CheckpointError::NotACheckpoint { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    format!("checkpoint {}: {fault}; using {}", path.display(), step_name(step))
}

/// Loads the checkpoint at `path`: a checkpoint directory (damage is then an error), or that of a run directory: the newest one
/// or, unless all [`Contents`] are loaded, of a run that selects checkpoints by a metric, the best one.
///
/// # Errors
/// As [`load`] and [`load_latest`]; [`CheckpointError::NotACheckpoint`] if `path` is neither.
pub fn open(path: &Path, contents: Contents) -> Result<Loaded, CheckpointError> {
    let not_one =
        |reason: &str| CheckpointError::NotACheckpoint { path: path.to_path_buf(), reason: reason.to_owned() };
    if !path.is_dir() {
        return Err(not_one(if path.exists() { "it is not a directory" } else { "it does not exist" }));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    if path.join(STATE).exists() || name.and_then(super::step_of).is_some() {
        return Ok(Loaded { path: path.to_path_buf(), checkpoint: load(path, contents)?, notes: Vec::new() });
    }
    let newest = load_latest(path, contents)?.ok_or_else(|| not_one("it holds no step-… directory"))?;
    match newest.checkpoint.state.best.clone() {
        Some(best) if contents != Contents::All => best_of(path, newest, &best, contents),
        _ => Ok(newest),
    }
}

/// Returns the checkpoint of the evaluation `best`, or `newest` with a message if it does not exist any more.
fn best_of(run: &Path, mut newest: Loaded, best: &Best, contents: Contents) -> Result<Loaded, CheckpointError> {
    let (step, name) = (best.step, step_name(best.step));
    let chosen = format!("step {step} has the best {} ({:.4})", best.metric, best.value);
    if step == newest.checkpoint.state.step {
        newest.notes.push(format!("{}: {chosen}", run.display()));
        return Ok(newest);
    }
    let directory = run.join(&name);
    if !directory.exists() {
        newest
            .notes
            .push(format!("{}: {chosen}, but {name} does not exist; using the newest checkpoint", run.display()));
        return Ok(newest);
    }
    let checkpoint = load(&directory, contents)?;
    newest.notes.push(format!(
        "{}: {chosen}, so it is used; the newest step is {}",
        run.display(),
        newest.checkpoint.state.step
    ));
    Ok(Loaded { path: directory, checkpoint, notes: newest.notes })
}

/// Returns loaded tensors in the order of `required`, each checked for its shape; `file` is for the error.
///
/// # Errors
/// [`CheckpointError::TensorMissing`], [`CheckpointError::TensorShape`] or [`CheckpointError::TensorUnexpected`].
pub fn arrange(
    file: &Path,
    tensors: Vec<(String, HostTensor)>,
    required: &[(String, Shape)],
) -> Result<Vec<HostTensor>, CheckpointError> {
    let file = file.to_path_buf();
    let mut by_name: std::collections::HashMap<String, HostTensor> = tensors.into_iter().collect();
    let mut arranged = Vec::with_capacity(required.len());
    for (name, shape) in required {
        let (tensor, required) = (name.clone(), shape.clone());
        match by_name.remove(name) {
            None => return Err(CheckpointError::TensorMissing { file, tensor, required }),
            Some(found) if found.shape() != shape => {
                let found = found.shape().to_string();
                return Err(CheckpointError::TensorShape { file, tensor, required, found });
            }
            Some(found) => arranged.push(found),
        }
    }
    match by_name.into_keys().min() {
        Some(tensor) => Err(CheckpointError::TensorUnexpected { file, tensor }),
        None => Ok(arranged),
    }
}
