//! Files that a verb writes at a user's word: whole under their names, or not at all.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// Lets `fill` write the file at a path beside `path`, `NAME.partial`, and renames it. After an error nothing is left of
/// it, and what `path` held before is as it was.
///
/// # Errors
/// What `fill` or the file system says.
pub fn write_whole<E>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
where
    anyhow::Error: From<E>,
{
    let partial = path.with_added_extension("partial");
    // One that a killed process left would be in the way of a `fill` that only makes new files.
    let _ = fs::remove_file(&partial);
    let write = || {
        fill(&partial)?;
        Ok(fs::rename(&partial, path)?)
    };
    let written: anyhow::Result<()> = write();
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}
