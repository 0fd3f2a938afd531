//! The lock of a run directory: one run at a time writes into it. It is a lock of the operating system, which ends with the
//! process, so a remaining lock file has no effect. Readers (evaluate, export) need no lock.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::CheckpointError;
use crate::files;

/// The locked file. It is never removed, because two runs could then lock two files of this name.
const LOCK: &str = ".lock";

/// The lock of a run directory, held while this value lives.
#[derive(Debug)]
pub struct RunLock {
    path: PathBuf,
    file: File,
}

impl RunLock {
    /// Locks the run directory `run`, which is created if it does not exist. On a file system without locks, every call
    /// succeeds.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`] if another process holds the lock; or if the file system reports an error.
    pub fn take(run: &Path) -> Result<RunLock, CheckpointError> {
        fs::create_dir_all(run).map_err(CheckpointError::io("create", run))?;
        let path = run.join(LOCK);
        let file = files::open_or_create(&path).map_err(CheckpointError::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { path, file }),
            Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { directory: run.to_path_buf() }),
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(RunLock { path, file }),
            Err(TryLockError::Error(e)) => Err(CheckpointError::io("lock", &path)(e)),
        }
    }

    /// Checks that the run directory still is the one that was locked.
    ///
    /// # Errors
    /// [`CheckpointError::Moved`] if its path leads to another directory or to none.
    pub fn check(&self) -> Result<(), CheckpointError> {
        if is_same_file(&self.file, &self.path) {
            return Ok(());
        }
        Err(CheckpointError::Moved { directory: self.path.parent().unwrap_or(&self.path).to_path_buf() })
    }
}

/// Returns whether `path` leads to the open `file`.
#[cfg(unix)]
fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    file.metadata().is_ok_and(|open| fs::metadata(path).is_ok_and(|found| identity(open) == identity(found)))
}

/// Returns whether `path` exists; elsewhere an open file keeps its directory from being renamed.
#[cfg(not(unix))]
fn is_same_file(_: &File, path: &Path) -> bool {
    path.exists()
}
