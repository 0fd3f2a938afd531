//! Key-value stores through which the hosts of a run find each other: [`KeyValueStore`], kept in a shared directory
//! ([`Directory`]) or in etcd ([`Etcd`]). No training data passes through a store; after the rendezvous, devices communicate
//! directly.
//!
//! Keys are text; `/` separates their parts, as in paths. A value is replaced atomically: a reader sees the old value or the
//! new one.

mod directory;
mod error;
mod etcd;
mod folder;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use directory::Directory;
pub use error::{KeyValueError, Result};
pub use etcd::Etcd;
pub use folder::Folder;

use crate::deadline::Deadline;

/// Values by key, shared by the processes of a run. Its `Display` output is its address.
pub trait KeyValueStore: fmt::Debug + fmt::Display + Send + Sync {
    /// Writes a value, replacing an older one.
    fn put(&self, key: &str, value: &[u8]) -> Result<()>;

    /// Returns the current value, if there is one.
    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Removes every key that begins with `folder` and a `/`.
    fn remove_all(&self, folder: &str) -> Result<()>;

    /// Waits for a value.
    ///
    /// # Errors
    /// [`KeyValueError::Timeout`] if there is none after `timeout`.
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let mut deadline = Deadline::after(timeout);
        loop {
            if let Some(value) = self.try_get(key)? {
                return Ok(value);
            }
            if !deadline.sleep() {
                return Err(KeyValueError::Timeout { store: self.to_string(), key: key.to_owned(), waited: timeout });
            }
        }
    }
}

/// Opens the store at `address`: `etcd://host:port[/prefix]`, or a directory, which is created.
///
/// # Errors
/// If the directory cannot be created, or the address is not valid.
pub fn open(address: &str) -> Result<Arc<dyn KeyValueStore>> {
    match address.strip_prefix("etcd://") {
        Some(endpoint) => Ok(Arc::new(Etcd::new(endpoint)?)),
        // Another scheme, or a misspelt one: a directory of that name is not intended.
        None if address.contains("://") || address.starts_with("etcd:") => {
            Err(KeyValueError::Address { address: address.to_owned() })
        }
        None => Ok(Arc::new(Directory::open(Path::new(address))?)),
    }
}

/// Returns 128 random bits as hexadecimal digits, from the randomness that the system gives to hash tables. No other process
/// draws the same token.
pub fn token() -> String {
    let draw = || RandomState::new().hash_one((std::process::id(), Instant::now()));
    format!("{:016x}{:016x}", draw(), draw())
}
