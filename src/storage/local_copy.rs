//! The local copy of a prefix in a bucket: it records the prefix, and a lock lets one process change it at a time.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::address::Address;
use super::error::StorageError;
use crate::files;

/// The lock of a local copy, held while this value lives. Processes of one machine that need the same copy wait for each
/// other, so that one of them downloads it and the others find it.
#[derive(Debug)]
pub struct LocalCopy {
    directory: PathBuf,
    _lock: File,
}

impl LocalCopy {
    /// Locks the copy of `address` in `directory`, which is created if it does not exist; waits while another process holds the
    /// lock.
    ///
    /// # Errors
    /// [`StorageError::NotACopy`] if the directory holds other files, which are never overwritten; or if the file system
    /// reports an error.
    pub fn lock(address: &Address, directory: &Path) -> Result<LocalCopy, StorageError> {
        let lock_path = lock_path(directory);
        let parent = lock_path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(StorageError::io("create", parent))?;
        let mut lock = files::open_or_create(&lock_path).map_err(StorageError::io("write", &lock_path))?;
        match lock.lock() {
            // Without locks, two processes may download the same files; each file still appears complete or not at all.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {}
            locked => locked.map_err(StorageError::io("lock", &lock_path))?,
        }
        let mut owner = String::new();
        lock.read_to_string(&mut owner).map_err(StorageError::io("read", &lock_path))?;
        let of_this = owner.trim() == address.to_string();
        let empty = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
        if !of_this && !empty {
            return Err(StorageError::NotACopy { path: directory.to_path_buf(), address: address.clone() });
        }
        if !of_this {
            let mut write = || {
                lock.set_len(0)?;
                lock.rewind()?;
                writeln!(lock, "{address}")
            };
            write().map_err(StorageError::io("write", &lock_path))?;
        }
        fs::create_dir_all(directory).map_err(StorageError::io("create", directory))?;
        Ok(LocalCopy { directory: directory.to_path_buf(), _lock: lock })
    }

    /// Returns the directory of the copy.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Returns the path of the lock file, which lies beside the directory because the directory's own format has no such file.
fn lock_path(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!(".{name}.copy-of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_directory_or_the_same_copy_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("caches/wiki");
        let address = |text: &str| Address::parse(text).unwrap().unwrap();
        let copy = LocalCopy::lock(&address("s3://a/wiki"), &directory).unwrap();
        fs::write(copy.directory().join("shard"), b"tokens").unwrap();
        drop(copy);
        LocalCopy::lock(&address("s3://a/wiki"), &directory).unwrap();

        let refused = LocalCopy::lock(&address("s3://a/wiki-2"), &directory).unwrap_err().to_string();
        assert!(refused.contains("caches/wiki is not a copy of s3://a/wiki-2"), "{refused}");
        let own = folder.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("thesis"), b"").unwrap();
        assert!(matches!(LocalCopy::lock(&address("s3://a/wiki"), &own), Err(StorageError::NotACopy { .. })));

        // An empty directory may become the copy of another prefix.
        fs::remove_file(directory.join("shard")).unwrap();
        LocalCopy::lock(&address("s3://a/wiki-2"), &directory).unwrap();
    }
}
