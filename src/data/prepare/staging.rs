//! The directory `.NAME.partial` beside the output: the work happens there, an interrupted preparation leaves its files
//! there, and the complete directory replaces the output.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::work_files::JOURNAL;
use crate::data::error::{DataError, Result};
use crate::data::files::MANIFEST;
use crate::files;

const LOCK: &str = "lock";

/// A directory that one run is building. Its files stay for the next run, unless it is cleared.
pub(super) struct Staging {
    path: PathBuf,
    /// Held during the work, so that no second run uses the same directory.
    _lock: fs::File,
}

/// Returns `.NAME.partial` or `.NAME.replaced` beside `out`.
fn beside(out: &Path, extension: &str) -> Result<PathBuf> {
    let Some(name) = out.file_name() else {
        let found = out.display().to_string();
        return Err(DataError::setting("out", "the name of a new directory", found));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(extension);
    Ok(out.with_file_name(hidden))
}

/// Returns the place of `out`. A symbolic link is followed, so that the link stays and the work is done on the disk it
/// points to.
///
/// # Errors
/// If the link is broken, or `out` is a mount point, which cannot be renamed.
pub(super) fn resolve(out: &Path) -> Result<PathBuf> {
    // Without a trailing slash, which would hide a link.
    let mut place: PathBuf = out.components().collect();
    if place.is_symlink() {
        place = fs::canonicalize(&place).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DataError::file(
                out,
                "a directory, or a name for one",
                "a broken symbolic link",
                "create its target directory, or remove the link",
            ),
            _ => DataError::io("follow", out)(error),
        })?;
    }
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
    if let (Ok(own), Ok(outer)) = (disk(&place), disk(parent))
        && own != outer
    {
        let next = "name a directory in it";
        return Err(DataError::file(out, "a directory that can be replaced", "a mount point", next));
    }
    Ok(place)
}

/// Writes a file and syncs it to disk.
pub(super) fn write_to_disk(path: &Path, content: &[u8]) -> Result<()> {
    let written = fs::File::create(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(DataError::write(path, content.len()))
}

/// Returns `true` if a directory is empty or does not exist.
fn is_empty(directory: &Path) -> Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DataError::io("list", directory)(error)),
    }
}

/// Fails if `out` is not empty.
pub(super) fn check_is_free(out: &Path) -> Result<()> {
    if is_empty(out)? {
        return Ok(());
    }
    let found = "a directory with other files";
    let next = "choose another directory: only prepared data is ever replaced";
    Err(DataError::file(out, "a new or empty directory, or prepared data", found, next))
}

impl Staging {
    /// Creates the directory for `out`, or takes over the one of an interrupted preparation.
    pub fn open(out: &Path) -> Result<Self> {
        Staging::at(beside(out, ".partial")?)
    }

    /// Creates the directory `path`, or takes over the one of an interrupted preparation.
    pub fn at(path: PathBuf) -> Result<Self> {
        let lock_path = path.join(LOCK);
        if !lock_path.exists() && !is_empty(&path)? {
            let next = "move it away, or choose another output directory";
            return Err(DataError::file(&path, "a directory to work in", "a directory with other files", next));
        }
        fs::create_dir_all(&path).map_err(DataError::io("create", &path))?;
        let lock = files::open_or_create(&lock_path).map_err(DataError::io("create", &lock_path))?;
        if let Err(error) = lock.try_lock() {
            let found = match error {
                fs::TryLockError::WouldBlock => "another preparation that writes to it".to_owned(),
                fs::TryLockError::Error(error) => error.to_string(),
            };
            return Err(DataError::file(
                &path,
                "exclusive use of the directory",
                found,
                "wait until the other one ends",
            ));
        }
        Ok(Staging { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes all content.
    pub fn clear(&self) -> Result<()> {
        remove_all_but(LOCK, &self.path)
    }

    /// Renames the directory to `out`, which is empty, absent, or prepared data to be replaced.
    pub fn rename_to(self, out: &Path) -> Result<()> {
        if out.join(MANIFEST).exists() {
            fs::rename(out, beside(out, ".replaced")?).map_err(DataError::io("move away", out))?;
        }
        fs::rename(&self.path, out).map_err(DataError::io("put the prepared data at", out))?;
        tidy(out)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Remove a directory in which nothing was done; if that fails, it is left for the next run.
        let holds_the_lock_alone = fs::read_dir(&self.path).is_ok_and(|entries| entries.count() == 1);
        if holds_the_lock_alone {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Returns `true` if a directory is complete, and only the rename is missing.
pub(super) fn is_complete(staging: &Path) -> bool {
    staging.join(MANIFEST).exists() && !staging.join(JOURNAL).exists()
}

/// Completes a replacement that was interrupted between or after its two renames: the new directory is complete, and
/// replacing the old one was requested.
pub(super) fn end_replacement(out: &Path) -> Result<()> {
    if out.join(MANIFEST).exists() {
        return tidy(out);
    }
    match is_complete(&beside(out, ".partial")?) && beside(out, ".replaced")?.exists() && !out.exists() {
        true => Staging::open(out)?.rename_to(out),
        false => Ok(()),
    }
}

/// Removes the lock in `out` and the directory it replaced.
fn tidy(out: &Path) -> Result<()> {
    let lock = out.join(LOCK);
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(DataError::io("remove", &lock)(error)),
        _ => {}
    }
    let old = beside(out, ".replaced")?;
    if !old.join(MANIFEST).exists() {
        return Ok(());
    }
    // The manifest is removed last: it marks the directory as prepared data.
    remove_all_but(MANIFEST, &old)?;
    fs::remove_dir_all(&old).map_err(DataError::io("remove", &old))
}

fn remove_all_but(kept: &str, directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(DataError::io("list", directory))? {
        let path = entry.map_err(DataError::io("list", directory))?.path();
        if !path.ends_with(kept) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(DataError::io("remove", &path))?;
        }
    }
    Ok(())
}
