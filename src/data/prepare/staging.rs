//! The directory `.NAME.partial` beside the one to make: where the work goes on, what is left of it when it is interrupted,
//! and how it takes the place of what was there.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::error::{DataError, Result};
use super::super::prepared::MANIFEST;

const LOCK: &str = "lock";

/// A directory being made. It is removed when this is dropped, unless it was renamed or is to be kept.
pub(super) struct Staging {
    path: PathBuf,
    /// Held while the work goes on, so that a second run does not work in the same directory.
    lock: Option<fs::File>,
}

/// `.NAME.partial` and `.NAME.replaced` beside `out`.
fn beside(out: &Path, extension: &str) -> Result<PathBuf> {
    let Some(name) = out.file_name() else {
        let found = out.display().to_string();
        return Err(DataError::setting("out", "the name of a directory to make", found));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(extension);
    Ok(out.with_file_name(hidden))
}

impl Staging {
    /// Creates the directory for `out`, or takes the one that an interrupted preparation left.
    pub fn open(out: &Path) -> Result<Self> {
        let path = beside(out, ".partial")?;
        fs::create_dir_all(&path).map_err(DataError::io("create", &path))?;
        let lock_path = path.join(LOCK);
        let lock = fs::File::create(&lock_path).map_err(DataError::io("create", &lock_path))?;
        if let Err(error) = lock.try_lock() {
            let found = match error {
                fs::TryLockError::WouldBlock => "another preparation that is writing it".to_owned(),
                fs::TryLockError::Error(error) => error.to_string(),
            };
            return Err(DataError::file(&path, "the directory for itself", found, "wait for it to end"));
        }
        Ok(Staging { path, lock: Some(lock) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes whatever is in it.
    pub fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.path).map_err(DataError::io("list", &self.path))? {
            let left = entry.map_err(DataError::io("list", &self.path))?.path();
            if !left.ends_with(LOCK) {
                let removed = if left.is_dir() { fs::remove_dir_all(&left) } else { fs::remove_file(&left) };
                removed.map_err(DataError::io("remove", &left))?;
            }
        }
        Ok(())
    }

    /// Leaves the directory for a run that goes on with it.
    pub fn keep(mut self) {
        self.lock = None;
    }

    /// Puts the directory in the place of `out`, which is empty, absent, or prepared data to be replaced.
    pub fn rename_to(mut self, out: &Path) -> Result<()> {
        let lock_path = self.path.join(LOCK);
        fs::remove_file(&lock_path).map_err(DataError::io("remove", &lock_path))?;
        let old = beside(out, ".replaced")?;
        if out.join(MANIFEST).exists() {
            fs::rename(out, &old).map_err(DataError::io("move away", out))?;
        }
        fs::rename(&self.path, out).map_err(DataError::io("put the prepared data at", out))?;
        self.lock = None;
        remove_replaced(out)
    }
}

/// Ends a replacement that was interrupted between its two renames: the new directory is whole, and the old one was asked
/// to be replaced.
pub(super) fn end_replacement(out: &Path) -> Result<()> {
    let partial = beside(out, ".partial")?;
    if !out.exists() && partial.join(MANIFEST).exists() && beside(out, ".replaced")?.exists() {
        fs::rename(&partial, out).map_err(DataError::io("put the prepared data at", out))?;
    }
    if out.join(MANIFEST).exists() { remove_replaced(out) } else { Ok(()) }
}

fn remove_replaced(out: &Path) -> Result<()> {
    let old = beside(out, ".replaced")?;
    match old.join(MANIFEST).exists() {
        true => fs::remove_dir_all(&old).map_err(DataError::io("remove", &old)),
        false => Ok(()),
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After an error, what cannot be removed is left for the next run.
        if self.lock.take().is_some() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
