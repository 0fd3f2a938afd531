//! Loading: nothing is believed before its checksum holds.

use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError, FileRecord, MODEL, Manifest, OPTIMIZER, STATE, TensorFile};
use super::{step_name, steps_in};
use crate::digest::sha256_hex;
use crate::shape::{HostTensor, Shape};

/// How much of a checkpoint is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// To go on training.
    All,
    /// To evaluate or export: the optimizer's two thirds are not read, [`Checkpoint::optimizer`] is empty.
    ModelOnly,
}

/// A checkpoint and where it was found.
#[derive(Debug)]
pub struct Loaded {
    pub path: PathBuf,
    pub checkpoint: Checkpoint,
    /// Sentences that a user should see: newer checkpoints that were damaged and passed over.
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
            MODEL => checkpoint.model = TensorFile::open(&path)?.read_all(record)?,
            OPTIMIZER if contents == Contents::ModelOnly => {}
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
            return Err(CheckpointError::damaged(&step.join(STATE), format!("it does not list {required}")));
        }
    }
    manifest.check_sizes(step)?;
    Ok(manifest)
}

fn read_file(path: &Path, record: &FileRecord) -> Result<Vec<u8>, CheckpointError> {
    let content = std::fs::read(path).map_err(CheckpointError::io("read", path))?;
    let found = sha256_hex(&content);
    if found != record.sha256 {
        let what = format!("its content requires sha256 {}, found {found}", record.sha256);
        return Err(CheckpointError::damaged(path, what));
    }
    Ok(content)
}

/// Loads the newest checkpoint of a run that is whole; none if the run has none at all.
///
/// # Errors
/// If there are checkpoints but every one is damaged (the newest one's error), or any other than damage is in the way:
/// an earlier checkpoint stands in only for a damaged one.
pub fn load_latest(run: &Path, contents: Contents) -> Result<Option<Loaded>, CheckpointError> {
    let mut notes = Vec::new();
    let mut newest_error = None;
    for step in steps_in(run)?.into_iter().rev() {
        let path = run.join(step_name(step));
        match load(&path, contents) {
            Ok(checkpoint) => return Ok(Some(Loaded { path, checkpoint, notes })),
            Err(error) if error.is_damage() => {
                notes.push(format!("passed over: {error}"));
                newest_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    newest_error.map_or(Ok(None), Err)
}

/// Loads what a user named: a checkpoint directory as it is (damage is then an error), or a run's newest.
///
/// # Errors
/// As [`load`] and [`load_latest`]; [`CheckpointError::NotACheckpoint`] if `path` is neither.
pub fn open(path: &Path, contents: Contents) -> Result<Loaded, CheckpointError> {
    let not_one = |what: &str| CheckpointError::NotACheckpoint { path: path.to_path_buf(), what: what.to_owned() };
    if !path.is_dir() {
        return Err(not_one(if path.exists() { "it is not a directory" } else { "it does not exist" }));
    }
    let name = path.file_name().and_then(|name| name.to_str());
    if path.join(STATE).exists() || name.and_then(super::step_of).is_some() {
        return Ok(Loaded { path: path.to_path_buf(), checkpoint: load(path, contents)?, notes: Vec::new() });
    }
    load_latest(path, contents)?.ok_or_else(|| not_one("it holds no step-… directory"))
}

/// Puts loaded tensors into the order of `required`, each with exactly the shape required; `file` is for the message.
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
