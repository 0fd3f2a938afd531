//! What can be wrong with text, tokenizers, shards and settings: each error names the thing, what was required of it,
//! what was found, and what to do next.

use std::io;
use std::path::{Path, PathBuf};

use crate::storage::StorageError;

/// An error of this room. The cause of a [`DataError::Io`], [`DataError::Full`] or [`DataError::Stopped`] is its `source`, so
/// that a printed chain says it once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A file does not hold what it must.
    #[error("{}: requires {required}, got {found}; {next}", path.display())]
    File { path: PathBuf, required: String, found: String, next: String },
    /// A setting has an impossible value.
    #[error("{setting}: requires {required}, got {found}")]
    Setting { setting: &'static str, required: String, found: String },
    /// The text, as a whole, cannot be used.
    #[error("{subject}: requires {required}, got {found}; {next}")]
    Corpus { subject: String, required: String, found: String, next: String },
    /// The disk was full before the end although there had been room at the beginning: others write to it, too.
    #[error(
        "cannot write {}: requires {required} bytes, and the disk takes no more; make room, or choose another directory",
        path.display()
    )]
    Full { path: PathBuf, required: u64, source: io::Error },
    /// A preparation ended before its time.
    #[error("the preparation stopped; what is done is kept, and the same command goes on with it")]
    Stopped(#[source] Box<DataError>),
    /// A bucket, or the copy of what is in it.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// There is less room on the disk than the work needs.
    #[error(
        "{}: requires about {required} bytes of free space, got {found}; free some, or choose another directory",
        path.display()
    )]
    Space { path: PathBuf, required: u64, found: u64 },
}

/// The result of this room's functions.
pub type Result<T> = std::result::Result<T, DataError>;

impl DataError {
    /// True if the operating system refused something, which it may grant another time.
    pub(super) fn is_of_the_system(&self) -> bool {
        matches!(self, DataError::Io { .. } | DataError::Full { .. } | DataError::Space { .. })
    }

    /// For `map_err`: what was being done, to which file.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> DataError {
        move |source| DataError::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// As [`DataError::io`], of a file that was to have `required` bytes.
    pub(crate) fn write(path: impl AsRef<Path>, required: usize) -> impl FnOnce(io::Error) -> DataError {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        move |source| {
            let path = path.as_ref().to_owned();
            match source.kind() {
                StorageFull | QuotaExceeded | FileTooLarge => {
                    DataError::Full { path, required: required as u64, source }
                }
                _ => DataError::Io { action: "write", path, source },
            }
        }
    }

    pub(crate) fn file(
        path: impl AsRef<Path>,
        required: impl Into<String>,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> DataError {
        DataError::File {
            path: path.as_ref().to_owned(),
            required: required.into(),
            found: found.into(),
            next: next.into(),
        }
    }

    pub(crate) fn setting(setting: &'static str, required: impl Into<String>, found: impl ToString) -> DataError {
        DataError::Setting { setting, required: required.into(), found: found.to_string() }
    }

    /// For `map_err`: what a bucket or the copy of its content could not do. No `From`, which would leave the type of some
    /// closures undecided.
    pub(crate) fn storage(error: StorageError) -> DataError {
        DataError::Storage(Box::new(error))
    }
}
