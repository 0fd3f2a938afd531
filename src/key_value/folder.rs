//! A folder of a store: the keys below one prefix, used as a store.

use std::fmt;
use std::sync::Arc;

use super::KeyValueStore;
use super::error::Result;

/// The keys of another store that begin with `name/`.
#[derive(Clone, Debug)]
pub struct Folder {
    store: Arc<dyn KeyValueStore>,
    name: String,
}

impl Folder {
    /// Returns the folder `name` of `store`.
    pub fn new(store: Arc<dyn KeyValueStore>, name: impl Into<String>) -> Folder {
        Folder { store, name: name.into() }
    }

    fn key(&self, key: &str) -> String {
        format!("{}/{key}", self.name)
    }

    /// Removes all keys of the folder.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn remove(&self) -> Result<()> {
        self.store.remove_all(&self.name)
    }
}

impl KeyValueStore for Folder {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.store.put(&self.key(key), value)
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.store.try_get(&self.key(key))
    }

    fn remove_all(&self, folder: &str) -> Result<()> {
        self.store.remove_all(&self.key(folder))
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.store, self.name)
    }
}
