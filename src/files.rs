//! Files that appear complete or not at all: each is written under a temporary name beside its own, then renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Returns the temporary name of `path` while it is written: `.NAME.partial` beside it.
pub fn partial_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Writes the file `path`: `fill` writes it under its temporary name, and it is renamed. After an error the temporary file
/// is removed, and `path` is unchanged.
///
/// # Errors
/// If `fill` fails, or the file cannot be renamed.
pub fn write_atomically<E>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
where
    anyhow::Error: From<E>,
{
    let partial = partial_path(path);
    // A file that a killed process left would make a `fill` fail that only creates new files.
    let _ = fs::remove_file(&partial);
    let write = || -> anyhow::Result<()> {
        fill(&partial)?;
        Ok(fs::rename(&partial, path)?)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Writes `content` to `partial`, syncs it to the disk, and renames it to `path`. After an error `partial` is removed, and
/// `path` is unchanged.
///
/// # Errors
/// If the file cannot be written, synced or renamed.
pub fn replace_file(path: &Path, partial: &Path, content: &[u8]) -> io::Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::create(partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(partial, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(partial);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_completely_or_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values.json");
        let files = || fs::read_dir(folder.path()).unwrap().count();
        replace_file(&path, &partial_path(&path), b"one").unwrap();
        write_atomically(&path, |partial| fs::write(partial, "two")).unwrap();
        assert_eq!((fs::read(&path).unwrap(), files()), (b"two".to_vec(), 1));
        let error = write_atomically(&path, |partial| {
            fs::write(partial, "half")?;
            Err(io::Error::other("disk full"))
        });
        assert!(error.unwrap_err().to_string().contains("cannot write "));
        assert_eq!((fs::read(&path).unwrap(), files()), (b"two".to_vec(), 1));
        let directory = folder.path().join("directory");
        fs::create_dir(&directory).unwrap();
        assert!(replace_file(&directory, &partial_path(&directory), b"x").is_err());
        assert_eq!(files(), 2, "no temporary file is left");
    }
}
