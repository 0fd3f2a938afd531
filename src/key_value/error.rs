//! What can go wrong with a store: it cannot be reached or written, or a value does not come.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of a key-value store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyValueError {
    /// Nobody put the value in time.
    #[error("{place}: {key:?} requires a value within {} s, found none", waited.as_secs_f64())]
    Timeout { place: String, key: String, waited: Duration },
    /// The operating system refused.
    #[error("cannot {action} {}; the coordinator must be a directory that every host of the run can write", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// An address that is none.
    #[error("--coordinator {place}: requires a directory, etcd://host:port or etcd://host:port/prefix")]
    Address { place: String },
    /// The server does not answer, or not as etcd does.
    #[error(
        "etcd at {endpoint} {what}; check that the address is right and that the server runs and serves its v3 API"
    )]
    Etcd { endpoint: String, what: String },
}

/// The result of this room's functions.
pub type Result<T> = std::result::Result<T, KeyValueError>;

impl KeyValueError {
    /// For `map_err`: what was being done, to which file.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> KeyValueError {
        move |source| KeyValueError::Io { action, path: path.into(), source }
    }
}
