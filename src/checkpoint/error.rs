//! The errors of checkpoints and Hugging Face directories. Each message names the file (and the tensor), what was required,
//! what was found, and what to do next.

use std::path::{Path, PathBuf};

use super::hugging_face::Architecture;
use crate::file_kind::WrongKind;
use crate::shape::Shape;
use crate::storage::StorageError;
use crate::units::byte_size;

/// An error of writing, reading, exporting or importing a checkpoint.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant explains it and its fields")]
pub enum CheckpointError {
    // Not named `source`: the message states the cause, and an error chain would state it again.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: std::io::Error },

    #[error(
        "{} requires {} of free space for the checkpoint, found {}; earlier checkpoints are unchanged; free some space, or \
         choose another directory",
        directory.display(), byte_size(*needed as f64), byte_size(*free as f64)
    )]
    NoSpace { directory: PathBuf, needed: u64, free: u64 },

    /// The disk became full during the write, although it had space at the start.
    #[error(
        "cannot write {}: it requires {}, and the disk is full ({cause}); earlier checkpoints are unchanged; free some space, or \
         choose another directory",
        path.display(), byte_size(*needed as f64)
    )]
    DiskFull { path: PathBuf, needed: u64, cause: std::io::Error },

    #[error(
        "another run is using {}; wait until it ends, stop it, or choose another directory for this run",
        directory.display()
    )]
    InUse { directory: PathBuf },

    #[error(
        "{} was moved or deleted while the run used it, so no checkpoint was saved; move it back, then resume the run",
        directory.display()
    )]
    Moved { directory: PathBuf },

    #[error("{} is damaged ({fault}); use another checkpoint, or delete this one", path.display())]
    Damaged { path: PathBuf, fault: String },

    #[error("{} is not a checkpoint: {reason}; name a step-… directory, or a run directory that holds one", path.display())]
    NotACheckpoint { path: PathBuf, reason: String },

    #[error(
        "{} requires checkpoint format version {supported}, found {found}; use the build of lambert that wrote it",
        path.display()
    )]
    Version { path: PathBuf, found: u64, supported: u64 },

    #[error("{}: requires a tensor {tensor} of {required}, found none; compare its config.json with the model's configuration", file.display())]
    TensorMissing { file: PathBuf, tensor: String, required: Shape },

    #[error("{}: tensor {tensor} requires {required}, found {found}; compare its config.json with the model's configuration", file.display())]
    TensorShape { file: PathBuf, tensor: String, required: Shape, found: String },

    #[error("{}: tensor {tensor} is not in the model; compare its config.json with the model's configuration", file.display())]
    TensorUnexpected { file: PathBuf, tensor: String },

    #[error("{}: requires one tensor {tensor}, found two; use another checkpoint", file.display())]
    TensorTwice { file: PathBuf, tensor: String },

    #[error(
        "{}: tensor {tensor} requires finite values, found {value} at {index:?}, the first of {count} such values among {of}; use \
         weights that were saved before their training diverged",
        file.display()
    )]
    NotFinite { file: PathBuf, tensor: String, value: f32, index: Vec<usize>, count: usize, of: usize },

    #[error("{}: {key} requires {required}, found {found}; correct the file or choose another directory", path.display())]
    Config { path: PathBuf, key: String, required: String, found: String },

    #[error(
        "{} holds a {}, which can be exported for {}, found {}; choose another architecture",
        path.display(),
        model.name(),
        model.exports().iter().map(|architecture| architecture.name()).collect::<Vec<_>>().join(" or "),
        architecture.name()
    )]
    Heads { path: PathBuf, model: Architecture, architecture: Architecture },

    #[error(
        "a checkpoint cannot hold the file {name}; it can hold a run file, config.json, and the files of a tokenizer or of sentence-transformers"
    )]
    UnknownFile { name: String },

    #[error("{} lists {}, which {} missing; download all files of the directory", index.display(), missing.join(", "), if missing.len() == 1 { "is" } else { "are" })]
    ShardsMissing { index: PathBuf, missing: Vec<String> },

    #[error(transparent)]
    WrongKind(Box<WrongKind>),

    #[error("{} holds {found}, and weights are read from safetensors only: {next}", path.display())]
    NotSafetensors { path: PathBuf, found: String, next: String },

    #[error(transparent)]
    Storage(Box<StorageError>),

    #[error("{} is not empty and is not an unchanged export; choose another directory, or empty this one", path.display())]
    WouldOverwrite { path: PathBuf },
}

impl CheckpointError {
    /// Returns a function for `map_err` that adds the action and the path to an input or output error.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
        let path = path.to_path_buf();
        move |cause| CheckpointError::Io { action, path, cause }
    }

    /// As [`CheckpointError::io`], for a file of `needed` bytes; reports a full disk.
    pub(super) fn write(path: &Path, needed: u64) -> impl FnOnce(std::io::Error) -> CheckpointError {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.to_path_buf();
        move |cause| match cause.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => CheckpointError::DiskFull { path, needed, cause },
            _ => CheckpointError::Io { action: "write", path, cause },
        }
    }

    /// Returns the error of a file that does not hold what was written to it.
    pub(super) fn damaged(path: &Path, fault: impl Into<String>) -> Self {
        CheckpointError::Damaged { path: path.to_path_buf(), fault: fault.into() }
    }

    /// Returns whether files do not hold what was written to them, so that an earlier checkpoint may be used instead.
    pub fn is_damage(&self) -> bool {
        match self {
            CheckpointError::Damaged { .. }
            | CheckpointError::NotACheckpoint { .. }
            | CheckpointError::WrongKind(_) => true,
            CheckpointError::Storage(error) => matches!(**error, StorageError::Object { .. }),
            _ => false,
        }
    }
}

impl From<WrongKind> for CheckpointError {
    fn from(error: WrongKind) -> CheckpointError {
        CheckpointError::WrongKind(Box::new(error))
    }
}

impl From<StorageError> for CheckpointError {
    fn from(error: StorageError) -> CheckpointError {
        CheckpointError::Storage(Box::new(error))
    }
}
