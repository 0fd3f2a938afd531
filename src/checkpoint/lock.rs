//! One run at a time saves into a directory. The lock is the operating system's: it ends with the process, however that
//! ends, so that a lock file left behind means nothing. Readers (evaluate, export) take none.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use super::CheckpointError;

/// The file that is locked; it stays, for removing it would let two runs lock two files of one name.
const LOCK: &str = ".lock";

/// The right to save into a run directory, as long as it lives.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// Takes the lock of the run directory `run`, which is created if need be. On a file system that has no locks, every
    /// caller gets one.
    ///
    /// # Errors
    /// [`CheckpointError::InUse`] if another process holds it; what the file system says.
    pub fn take(run: &Path) -> Result<RunLock, CheckpointError> {
        fs::create_dir_all(run).map_err(CheckpointError::io("create", run))?;
        let path = run.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(CheckpointError::io("write", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(RunLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(CheckpointError::InUse { directory: run.to_path_buf() }),
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => Ok(RunLock { _file: file }),
            Err(TryLockError::Error(e)) => Err(CheckpointError::io("lock", &path)(e)),
        }
    }
}
