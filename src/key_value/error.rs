//! The errors of a key-value store: it cannot be reached or written, or a value does not arrive in time.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of a key-value store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message of each variant explains it and its fields")]
pub enum KeyValueError {
    /// No process wrote the value in time.
    #[error("{store}: no process wrote {key:?} within {} s", waited.as_secs_f64())]
    Timeout { store: String, key: String, waited: Duration },
    /// The operating system reported an error.
    #[error("cannot {action} {}; the coordinator must be a directory that every host of the run can write", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// The address is not valid.
    #[error("coordinator {address:?} is not valid: requires a directory, etcd://host:port or etcd://host:port/prefix")]
    Address { address: String },
    /// The server does not answer, or does not answer as etcd does.
    #[error("etcd at {endpoint} {fault}; check the address, and that the server is running and serves the v3 API")]
    Etcd { endpoint: String, fault: String },
}

/// The result of this module's functions.
pub type Result<T> = std::result::Result<T, KeyValueError>;

impl KeyValueError {
    /// Returns a function for `map_err` that adds the action and the file.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KeyValueError {
        move |source| KeyValueError::Io { action, path: path.into(), source }
    }
}
