//! What can be wrong with a checkpoint or a Hugging Face directory: each sentence names the file (and the tensor), what
//! was required, what was found, and the next move.

use std::path::{Path, PathBuf};

use crate::shape::Shape;
use crate::storage::StorageError;

/// Why a checkpoint could not be written, read, exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error(
        "no space in {}: the save requires {needed} bytes, {free} are free; what was saved before is untouched; make room \
         or choose another directory",
        directory.display()
    )]
    NoSpace { directory: PathBuf, needed: u64, free: u64 },

    /// The disk was full before the end although there had been room at the beginning: others write to it, too.
    #[error(
        "cannot write {}: it requires {needed} bytes, and the disk takes no more ({source}); what was saved before is \
         untouched; make room or choose another directory",
        path.display()
    )]
    DiskFull { path: PathBuf, needed: u64, source: std::io::Error },

    #[error(
        "another run is saving into {}; wait for it to end or stop it, or choose another directory for this one",
        directory.display()
    )]
    InUse { directory: PathBuf },

    #[error("{} is damaged: {what}; use another checkpoint, or remove this one if it cannot be restored", path.display())]
    Damaged { path: PathBuf, what: String },

    #[error("{} is not a checkpoint: {what}; name a step-… directory, or a run directory that holds one", path.display())]
    NotACheckpoint { path: PathBuf, what: String },

    #[error(
        "{} has checkpoint format version {found}, this build reads version {supported}; use the build of lambert that \
         wrote it",
        path.display()
    )]
    Version { path: PathBuf, found: u64, supported: u64 },

    #[error("{} lacks the tensor {tensor}, required {required}; is it of another model? compare its config.json", file.display())]
    TensorMissing { file: PathBuf, tensor: String, required: Shape },

    #[error("{}: tensor {tensor} requires {required}, found {found}; is it of another model? compare its config.json", file.display())]
    TensorShape { file: PathBuf, tensor: String, required: Shape, found: String },

    #[error("{}: tensor {tensor} is not one of this model's; is it of another model? compare its config.json", file.display())]
    TensorUnexpected { file: PathBuf, tensor: String },

    #[error("tensor {tensor} was given twice for {}; each name may occur once", file.display())]
    TensorTwice { file: PathBuf, tensor: String },

    #[error("{}: {key} requires {required}, found {found}; correct the file or choose another directory", path.display())]
    Config { path: PathBuf, key: String, required: String, found: String },

    #[error("{} is not a file of a checkpoint; those are: {}", name, super::COPIED_FILES.join(", "))]
    UnknownFile { name: String },

    #[error("{} holds {found}; weights are read from safetensors only: {next_move}", path.display())]
    NotSafetensors { path: PathBuf, found: String, next_move: String },

    #[error(transparent)]
    Storage(Box<StorageError>),

    #[error("{} is not empty and was not written by `lambert export`; choose another directory or empty it yourself", path.display())]
    WouldOverwrite { path: PathBuf },
}

impl CheckpointError {
    /// An input or output error with the verb and the path that the operating system does not say.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { action, path, source }
    }

    /// As [`CheckpointError::io`], of a file that was to have `needed` bytes.
    pub(super) fn write(path: &Path, needed: u64) -> impl FnOnce(std::io::Error) -> CheckpointError {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let path = path.to_path_buf();
        move |source| match source.kind() {
            StorageFull | QuotaExceeded | FileTooLarge => CheckpointError::DiskFull { path, needed, source },
            _ => CheckpointError::Io { action: "write", path, source },
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        CheckpointError::Damaged { path: path.to_path_buf(), what: what.into() }
    }

    /// True if the files do not hold what was once written to them: then an earlier checkpoint may stand in.
    pub fn is_damage(&self) -> bool {
        match self {
            CheckpointError::Damaged { .. } | CheckpointError::NotACheckpoint { .. } => true,
            CheckpointError::Storage(error) => matches!(**error, StorageError::Object { .. }),
            _ => false,
        }
    }
}

impl From<StorageError> for CheckpointError {
    fn from(error: StorageError) -> CheckpointError {
        CheckpointError::Storage(Box::new(error))
    }
}
