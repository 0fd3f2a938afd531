//! The directory here that stands for a prefix in a bucket: whose copy it is, and who may change it now.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::error::StorageError;

/// The right to change a copy, as long as it lives. Processes of one machine that want the same copy wait for each other,
/// so that one of them fetches and the others find it.
#[derive(Debug)]
pub struct LocalCopy {
    directory: PathBuf,
    _guard: File,
}

impl LocalCopy {
    /// Takes the copy of `address` in `directory`, which is created if need be; waits while another process has it.
    ///
    /// # Errors
    /// [`StorageError::NotACopy`] if the directory holds something that is not a copy of `address`: it may be the only one
    /// of its kind. What the file system says.
    pub fn take(address: &Address, directory: &Path) -> Result<LocalCopy, StorageError> {
        let guard_path = guard_path(directory);
        let parent = guard_path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(StorageError::io("create", parent))?;
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&guard_path);
        let mut guard = open.map_err(StorageError::io("write", &guard_path))?;
        match guard.lock() {
            // Without locks, two processes may fetch the same files; each file still appears whole or not at all.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
            locked => locked.map_err(StorageError::io("lock", &guard_path))?,
        }
        let mut owner = String::new();
        guard.read_to_string(&mut owner).map_err(StorageError::io("read", &guard_path))?;
        let of_this = owner.trim() == address.to_string();
        let empty = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
        if !of_this && !empty {
            return Err(StorageError::NotACopy { path: directory.to_path_buf(), address: address.clone() });
        }
        if !of_this {
            let mut write = || {
                guard.set_len(0)?;
                guard.rewind()?;
                writeln!(guard, "{address}")
            };
            write().map_err(StorageError::io("write", &guard_path))?;
        }
        fs::create_dir_all(directory).map_err(StorageError::io("create", directory))?;
        Ok(LocalCopy { directory: directory.to_path_buf(), _guard: guard })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The guard lies beside the directory: what lies inside belongs to its format.
fn guard_path(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{name}.copy-of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_or_its_own_becomes_a_copy() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("caches/wiki");
        let address = |text: &str| Address::parse(text).unwrap().unwrap();
        let copy = LocalCopy::take(&address("s3://a/wiki"), &directory).unwrap();
        fs::write(copy.directory().join("shard"), b"tokens").unwrap();
        drop(copy);
        LocalCopy::take(&address("s3://a/wiki"), &directory).unwrap();

        let refused = LocalCopy::take(&address("s3://a/wiki-2"), &directory).unwrap_err().to_string();
        assert!(refused.contains("caches/wiki is there and is not a copy of s3://a/wiki-2"), "{refused}");
        let own = place.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("thesis"), b"").unwrap();
        assert!(matches!(LocalCopy::take(&address("s3://a/wiki"), &own), Err(StorageError::NotACopy { .. })));

        // Emptied, it may become another's.
        fs::remove_file(directory.join("shard")).unwrap();
        LocalCopy::take(&address("s3://a/wiki-2"), &directory).unwrap();
    }
}
