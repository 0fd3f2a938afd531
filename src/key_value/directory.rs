//! A store in a directory that all hosts share, on NFS or another shared file system: one file per value.
//!
//! A value is written to a temporary file and renamed, which is atomic there too. The parts of a key become directories, and
//! the last part a file `*.value`. Dots within a part are escaped, so a directory cannot have the name of such a file.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::{KeyValueError, Result};
use super::{KeyValueStore, token};
use crate::digest::sha256_hex;
use crate::files::{self, replace_file};

/// File systems limit names to 255 bytes. A longer part (XLA names a clique of GPUs by all its members) is hashed.
const LONGEST_PART: usize = 200;

/// Values as files below a directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Opens the store in `root`, which is created if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn open(root: &Path) -> Result<Directory> {
        fs::create_dir_all(root).map_err(KeyValueError::io("create the directory", root))?;
        Ok(Directory { root: root.to_owned() })
    }

    /// Returns the directory of a folder of keys.
    fn folder(&self, folder: &str) -> PathBuf {
        folder.split('/').fold(self.root.clone(), |path, part| path.join(file_name(part)))
    }

    /// Returns the file of a key, and its directory.
    fn paths(&self, key: &str) -> (PathBuf, PathBuf) {
        let (directory, last) = match key.rsplit_once('/') {
            Some((folder, last)) => (self.folder(folder), last),
            None => (self.root.clone(), key),
        };
        (directory.join(file_name(last) + ".value"), directory)
    }
}

impl KeyValueStore for Directory {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let (file, directory) = self.paths(key);
        fs::create_dir_all(&directory).map_err(KeyValueError::io("create the directory", &directory))?;
        let partial = directory.join(format!(".{}.partial", token()));
        replace_file(&file, &partial, value).map_err(KeyValueError::io("write", file))
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (file, directory) = self.paths(key);
        let read = || match files::read(&file) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KeyValueError::io("read", &file)(error)),
        };
        if let Some(value) = read()? {
            return Ok(Some(value));
        }
        // An NFS client caches for many seconds that a name does not exist; listing the directory makes it ask the server.
        let _ = fs::read_dir(directory).map(Iterator::count);
        read()
    }

    fn remove_all(&self, folder: &str) -> Result<()> {
        let directory = self.folder(folder);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(KeyValueError::io("remove", directory)(error)),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root.display())
    }
}

/// Encodes a part of a key as a file name: letters, digits, `-` and `_` stay, any other byte becomes `%` and two digits.
fn file_name(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let escape = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let name: String = part.bytes().map(escape).collect();
    match name.len() {
        0 => "%".to_owned(),
        1..=LONGEST_PART => name,
        _ => format!("%sha256-{}", sha256_hex(part.as_bytes())),
    }
}
