//! A store in a directory that all hosts see, on NFS or any other shared file system: one file a value.
//!
//! A value is written beside and renamed, which is atomic there too. Parts of a key become directories, and the last one
//! a file whose name ends in `.value`; no part can be mistaken for such a name, for its own dots are escaped.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::{KeyValueError, Result};
use super::{KeyValueStore, token};

/// File systems take names of 255 bytes. A longer part (XLA names a clique of GPUs by all its members) goes by its hash.
const LONGEST_PART: usize = 200;

/// Values as files below a directory.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Uses `root`, which is made if need be.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(root: &Path) -> Result<Directory> {
        fs::create_dir_all(root).map_err(KeyValueError::io("make the directory", root))?;
        Ok(Directory { root: root.to_owned() })
    }

    /// The directory of a folder of keys.
    fn folder(&self, folder: &str) -> PathBuf {
        folder.split('/').fold(self.root.clone(), |path, part| path.join(file_name(part)))
    }

    /// The file of a key, and the directory that it lies in.
    fn place(&self, key: &str) -> (PathBuf, PathBuf) {
        let (directory, last) = match key.rsplit_once('/') {
            Some((folder, last)) => (self.folder(folder), last),
            None => (self.root.clone(), key),
        };
        (directory.join(file_name(last) + ".value"), directory)
    }
}

impl KeyValueStore for Directory {
    fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        let (file, directory) = self.place(key);
        fs::create_dir_all(&directory).map_err(KeyValueError::io("make the directory", &directory))?;
        let partial = directory.join(format!(".{}.partial", token()));
        let write = || -> io::Result<()> {
            let mut open = fs::File::create_new(&partial)?;
            open.write_all(value)?;
            open.sync_all()?;
            fs::rename(&partial, &file)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&partial);
            KeyValueError::io("write", file)(error)
        })
    }

    fn try_get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let (file, directory) = self.place(key);
        let read = || match fs::read(&file) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(KeyValueError::io("read", &file)(error)),
        };
        if let Some(value) = read()? {
            return Ok(Some(value));
        }
        // An NFS client remembers for many seconds that a name was not there; listing the directory makes it ask.
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

/// A part of a key as a file name: letters, digits, `-` and `_` stay, any other byte becomes `%` and two digits.
fn file_name(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let escape = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    let name: String = part.bytes().map(escape).collect();
    match name.len() {
        0 => "%".to_owned(),
        1..=LONGEST_PART => name,
        _ => Sha256::digest(part).iter().fold("%sha256-".to_owned(), |name, byte| name + &format!("{byte:02x}")),
    }
}
