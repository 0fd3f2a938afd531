//! A few small values by which the hosts of a run find each other: [`KeyValueStore`], kept in a directory that all of
//! them see ([`Directory`]) or in etcd ([`Etcd`]). Nothing of the training passes through here; devices talk to each
//! other directly once they have met.
//!
//! Keys are text; `/` separates their parts, as in paths. A value is replaced as a whole: who reads sees the old one or
//! the new one.

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

/// Pauses between two looks for a value: short at first, because hosts mostly start together, and never so long that a
/// person would notice.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Values by key, shared by the processes of a run. Prints as the place that it is.
pub trait KeyValueStore: fmt::Debug + fmt::Display + Send + Sync {
    /// Sets a value, in the place of an older one if there is one.
    fn put(&self, key: &str, value: &[u8]) -> Result<()>;

    /// The value as it is now, if there is one.
    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// Removes every key that begins with `folder` and a `/`.
    fn remove_all(&self, folder: &str) -> Result<()>;

    /// Waits for a value.
    ///
    /// # Errors
    /// [`KeyValueError::Timeout`] if there is none after `timeout`.
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>> {
        let mut patience = Patience::new(timeout);
        loop {
            if let Some(value) = self.try_get(key)? {
                return Ok(value);
            }
            if !patience.pause() {
                return Err(KeyValueError::Timeout { place: self.to_string(), key: key.to_owned(), waited: timeout });
            }
        }
    }
}

/// Opens the store that `place` names: `etcd://host:port[/prefix]`, or else a directory, which is made.
///
/// # Errors
/// If the directory cannot be made, or the address is no address.
pub fn open(place: &str) -> Result<Arc<dyn KeyValueStore>> {
    match place.strip_prefix("etcd://") {
        Some(address) => Ok(Arc::new(Etcd::new(address)?)),
        // Of another scheme, or of this one misspelt: nobody means a directory of that name.
        None if place.contains("://") || place.starts_with("etcd:") => {
            Err(KeyValueError::Address { place: place.to_owned() })
        }
        None => Ok(Arc::new(Directory::open(Path::new(place))?)),
    }
}

/// A wait with an end: pauses that grow.
#[derive(Debug)]
pub struct Patience {
    /// None if it is further away than the clock reaches.
    end: Option<Instant>,
    pause: Duration,
}

impl Patience {
    /// Begins to wait for at most `timeout`.
    pub fn new(timeout: Duration) -> Patience {
        Patience { end: Instant::now().checked_add(timeout), pause: FIRST_PAUSE }
    }

    /// Sleeps a little; false once the time is over.
    pub fn pause(&mut self) -> bool {
        let left = self.end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return false;
        }
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        true
    }
}

/// A word that no other process draws: 128 bits of the randomness that the system gives to hash tables.
pub fn token() -> String {
    let draw = || RandomState::new().hash_one((std::process::id(), Instant::now()));
    format!("{:016x}{:016x}", draw(), draw())
}
