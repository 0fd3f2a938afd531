//! The directory `.NAME.partial` beside the one to make: where the work goes on, what is left of it when it is interrupted,
//! and how it takes the place of what was there.

use std::ffi::OsString;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::journal::JOURNAL;
use crate::data::error::{DataError, Result};
use crate::data::files::MANIFEST;

const LOCK: &str = "lock";

/// A directory being made, for one run alone. What is done in it stays for the next run, unless it is cleared.
pub(super) struct Staging {
    path: PathBuf,
    /// Held while the work goes on, so that a second run does not work in the same directory.
    _lock: fs::File,
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

/// Where `out` lies: what it leads to if it is a symbolic link, so that the link stays and the work is done on the disk that
/// it was set up for.
///
/// # Errors
/// If it leads nowhere, or is a disk of its own: no other directory can be given its name.
pub(super) fn resolve(out: &Path) -> Result<PathBuf> {
    // Without a slash at its end, behind which a link is not seen.
    let mut place: PathBuf = out.components().collect();
    if place.is_symlink() {
        place = fs::canonicalize(&place).map_err(|error| match error.kind() {
            ErrorKind::NotFound => DataError::file(
                out,
                "a directory, or a name for one",
                "a symbolic link that leads nowhere",
                "make the directory that it leads to, or remove the link",
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
        return Err(DataError::file(out, "a directory that can be replaced", "a place where a disk is mounted", next));
    }
    Ok(place)
}

/// Writes a file, which is on the disk when this returns.
pub(super) fn write_to_disk(path: &Path, content: &[u8]) -> Result<()> {
    let written = fs::File::create(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(DataError::write(path, content.len()))
}

/// True if there is nothing in a directory, or no directory.
fn is_empty(directory: &Path) -> Result<bool> {
    match fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(DataError::io("list", directory)(error)),
    }
}

/// An error if there is something in `out`.
pub(super) fn check_is_free(out: &Path) -> Result<()> {
    if is_empty(out)? {
        return Ok(());
    }
    let found = "a directory with other files";
    let next = "choose another directory: nothing but prepared data is ever replaced";
    Err(DataError::file(out, "a new or empty directory, or prepared data", found, next))
}

impl Staging {
    /// Creates the directory for `out`, or takes the one that an interrupted preparation left.
    pub fn open(out: &Path) -> Result<Self> {
        let path = beside(out, ".partial")?;
        let lock_path = path.join(LOCK);
        if !lock_path.exists() && !is_empty(&path)? {
            let next = "move it away, or choose another --out";
            return Err(DataError::file(&path, "a directory to work in", "a directory with other files", next));
        }
        fs::create_dir_all(&path).map_err(DataError::io("create", &path))?;
        let lock = fs::File::create(&lock_path).map_err(DataError::io("create", &lock_path))?;
        if let Err(error) = lock.try_lock() {
            let found = match error {
                fs::TryLockError::WouldBlock => "another preparation that is writing it".to_owned(),
                fs::TryLockError::Error(error) => error.to_string(),
            };
            return Err(DataError::file(&path, "the directory for itself", found, "wait for it to end"));
        }
        Ok(Staging { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes whatever is in it.
    pub fn clear(&self) -> Result<()> {
        remove_all_but(LOCK, &self.path)
    }

    /// Puts the directory in the place of `out`, which is empty, absent, or prepared data to be replaced.
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
        // One in which nothing was done; what cannot be removed is left for the next run.
        let holds_the_lock_alone = fs::read_dir(&self.path).is_ok_and(|entries| entries.count() == 1);
        if holds_the_lock_alone {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// True if everything in a directory is made, and only its last name is missing.
pub(super) fn is_whole(staging: &Path) -> bool {
    staging.join(MANIFEST).exists() && !staging.join(JOURNAL).exists()
}

/// Ends a replacement that was interrupted between its two renames or after them: the new directory is whole, and the old one
/// was asked to be replaced.
pub(super) fn end_replacement(out: &Path) -> Result<()> {
    if out.join(MANIFEST).exists() {
        return tidy(out);
    }
    match is_whole(&beside(out, ".partial")?) && beside(out, ".replaced")?.exists() && !out.exists() {
        true => Staging::open(out)?.rename_to(out),
        false => Ok(()),
    }
}

/// Removes what `out`, which is in its place, no longer needs: its lock, and what it replaced.
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
    // The manifest goes last: without it, the rest would not be known for ours.
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
