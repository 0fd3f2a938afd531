//! Errors about text, tokenizers, shards and settings. Each names the subject, the requirement, the value found, and
//! the next step.

use std::io;
use std::path::{Path, PathBuf};

use crate::data::tokenizer::difference::{RulesDifference, VocabularyDifference};
use crate::file_kind::WrongKind;
use crate::storage::StorageError;

/// An error of the data module. The cause of [`DataError::Io`], [`DataError::Full`] and [`DataError::Stopped`] is their
/// `source`, so a printed error chain states it once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// An operation of the operating system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The failed action, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file has unexpected content.
    #[error("{}: requires {required}, got {found}; {next}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The requirement.
        required: String,
        /// The content found.
        found: String,
        /// The next step for the user.
        next: String,
    },
    /// Two vocabularies differ that must be equal.
    #[error("{difference}; {next}")]
    Vocabularies {
        /// The files and their first difference.
        difference: Box<VocabularyDifference>,
        /// The next step for the user.
        next: String,
    },
    /// The rules of two tokenizers differ that must be equal.
    #[error("{difference}; {next}")]
    Rules {
        /// The files and the settings that differ.
        difference: Box<RulesDifference>,
        /// The next step for the user.
        next: String,
    },
    /// A setting has an invalid value.
    #[error("{setting}: requires {required}, got {found}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// The requirement.
        required: String,
        /// The value.
        found: String,
    },
    /// The text as a whole cannot be used.
    #[error("{subject}: requires {required}, got {found}; {next}")]
    Corpus {
        /// The inputs or data.
        subject: String,
        /// The requirement.
        required: String,
        /// The content found.
        found: String,
        /// The next step for the user.
        next: String,
    },
    /// The disk became full, although there was enough free space at the start: other programs write to it, too.
    #[error(
        "cannot write {}: requires {required} bytes, and the disk is full; free some space, or choose another directory",
        path.display()
    )]
    Full {
        /// The file that was being written.
        path: PathBuf,
        /// Its size in bytes.
        required: u64,
        /// The cause.
        source: io::Error,
    },
    /// A preparation stopped before its end.
    #[error("the preparation stopped; finished work is kept, and the same command resumes it")]
    Stopped(#[source] Box<DataError>),
    /// An error of a bucket or of the local copy of its content.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// The disk has too little free space for the work.
    #[error(
        "{}: requires about {required} bytes of free space, got {found}; free some space, or choose another directory",
        path.display()
    )]
    Space {
        /// The output directory.
        path: PathBuf,
        /// Required bytes.
        required: u64,
        /// Free bytes.
        found: u64,
    },
}

/// The result type of the data module.
pub type Result<T> = std::result::Result<T, DataError>;

impl DataError {
    /// Returns `true` if the operating system failed an operation, which may succeed another time.
    pub(super) fn is_system_error(&self) -> bool {
        matches!(self, DataError::Io { .. } | DataError::Full { .. } | DataError::Space { .. })
    }

    /// Returns a closure for `map_err` that adds the action and the file.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> DataError {
        move |source| DataError::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// As [`DataError::io`], for writing a file of `required` bytes.
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

    /// Returns the error of `content`, which could not be read as `required`: that of its kind if it is recognised as something
    /// else, or `other`.
    pub(crate) fn of_content(path: &Path, required: &'static str, content: &[u8], other: DataError) -> DataError {
        match WrongKind::of(path, required, content) {
            Some(WrongKind { path, required, found, next }) => DataError::file(path, required, found, next),
            None => other,
        }
    }

    pub(crate) fn setting(setting: &'static str, required: impl Into<String>, found: impl ToString) -> DataError {
        DataError::Setting { setting, required: required.into(), found: found.to_string() }
    }

    /// Converts an error of the storage module, for `map_err`. There is no `From` impl: it would make the error type of
    /// some closures ambiguous.
    pub(crate) fn storage(error: StorageError) -> DataError {
        DataError::Storage(Box::new(error))
    }
}

/// Describes an error in `line`, a line of JSON, without serde_json's line number, which is relative to the line, and without
/// the expectation.
pub(crate) fn describe_json_error(line: &str, error: &serde_json::Error) -> String {
    let (number, column) = (error.line(), error.column());
    if let Some(name) = number_that_is_not_json(line, column) {
        return format!("{name} at column {column}, which is not JSON (write null in its place)");
    }
    let message = error.to_string();
    let message = message.strip_suffix(&format!(" at line {number} column {column}")).unwrap_or(&message);
    let found = message.split(", expected ").next().unwrap_or_default();
    let found = match found.strip_prefix("invalid type: ") {
        Some("sequence") => "a list",
        Some("map") => "an object",
        Some(other) => other,
        None => found,
    };
    match column {
        0 => found.to_owned(),
        _ => format!("{found} at column {column}"),
    }
}

/// Returns the number at the column (from 1, in bytes) of a syntax error that Python's `json` writes although JSON has none.
fn number_that_is_not_json(line: &str, column: usize) -> Option<&'static str> {
    let at = column.checked_sub(1)?;
    // The error of -Infinity stands behind the sign.
    let starts = [at.checked_sub(1), Some(at)].into_iter().flatten();
    let mut rests = starts.filter_map(|start| line.as_bytes().get(start..));
    rests.find_map(|rest| ["NaN", "Infinity", "-Infinity"].into_iter().find(|name| rest.starts_with(name.as_bytes())))
}
