//! A directory of compiled programs, each in a file with its key and checksum.
//!
//! A compiled program is machine code. A file is therefore used only if this user alone can have written it: directory and file
//! belong to the user and are not writable for others. The directory is created for the user only.
//!
//! ```text
//! DIR/KEY.executable          "lambert compiled program 1", key and sha256 of the program, a line each; then the program
//! ```

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};

use crate::digest::sha256_hex;
use crate::files;
use crate::units::byte_size;

/// The most bytes of all files. When a program is saved, the least recently used ones are removed.
pub const MOST_BYTES: u64 = 2_000_000_000;
/// The first line of a file: its format.
const MAGIC: &str = "lambert compiled program 1";
/// Permissions of the group and of others to write.
const WRITABLE_FOR_OTHERS: u32 = 0o022;

/// A directory of compiled programs.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    most_bytes: u64,
}

impl Store {
    /// Names a directory, which may not exist yet.
    pub fn new(directory: &Path) -> Store {
        Store { directory: directory.to_owned(), most_bytes: MOST_BYTES }
    }

    /// Returns the file of the program with this key.
    pub fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{key}.executable"))
    }

    /// Reads the program with this key and marks it as used now; none if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or another user could have written it.
    pub fn read(&self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let path = self.path(key);
        let reading = || format!("cannot read {}", path.display());
        let mut file = match files::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.with_context(reading)?,
        };
        check_owner(&self.directory, &fs::metadata(&self.directory).with_context(reading)?)?;
        check_owner(&path, &file.metadata().with_context(reading)?)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(reading)?;
        let size = header(key, &[]).len();
        let is_whole =
            bytes.split_at_checked(size).is_some_and(|(found, program)| found == header(key, program).as_bytes());
        ensure!(is_whole, "the compiled program {} is damaged (its checksum differs)", path.display());
        // Without the time of use, the file is only removed sooner.
        let _ = file.set_modified(SystemTime::now());
        bytes.drain(..size);
        Ok(Some(bytes))
    }

    /// Writes the program with this key, and removes the least recently used ones until all files together are small enough.
    ///
    /// # Errors
    /// If the directory belongs to another user or is writable for others, the program alone is too large, the file cannot be
    /// written, or others cannot be removed.
    pub fn write(&self, key: &str, program: &[u8]) -> anyhow::Result<()> {
        let writing = || format!("cannot write to {}", self.directory.display());
        ensure!(
            program.len() as u64 <= self.most_bytes,
            "the program has {}, and the cache at most {}",
            byte_size(program.len() as f64),
            byte_size(self.most_bytes as f64)
        );
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory).with_context(writing)?;
        check_owner(&self.directory, &fs::metadata(&self.directory).with_context(writing)?)?;
        let partial = self.partial_path(key);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).with_context(writing)?;
        // The file is not synced to the disk, because the checksum reveals what a crash leaves incomplete.
        let written = file
            .write_all(header(key, program).as_bytes())
            .and_then(|()| file.write_all(program))
            .and_then(|()| fs::rename(&partial, self.path(key)));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written.with_context(writing)?;
        self.shrink().with_context(|| format!("cannot remove old programs from {}", self.directory.display()))
    }

    /// Returns a name that no other writer has: other threads, processes and hosts may write the same program, and processes in
    /// containers have equal numbers.
    fn partial_path(&self, key: &str) -> PathBuf {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        self.directory.join(format!(".{key}.{}.{now}.{number}.partial", process::id()))
    }

    /// Removes the least recently used programs until the others are small enough. Files that killed processes left count too.
    fn shrink(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if !is_of_cache(&entry.path()) {
                continue;
            }
            // Another process may have removed it.
            let Ok(metadata) = entry.metadata() else { continue };
            files.push((metadata.modified()?, metadata.len(), entry.path()));
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total <= self.most_bytes {
                break;
            }
            fs::remove_file(path).or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            total -= bytes;
        }
        Ok(())
    }
}

/// Returns whether the name is that of a program or of one that is being written.
fn is_of_cache(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "executable" || extension == "partial")
}

fn header(key: &str, program: &[u8]) -> String {
    format!("{MAGIC}\n{key}\n{}\n", sha256_hex(program))
}

/// Checks that no other user can have written to `path`.
fn check_owner(path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    ensure!(
        owner == user,
        "{} is required to belong to this user ({user}), but user {owner} owns it; remove it to let lambert write its own",
        path.display()
    );
    ensure!(
        metadata.mode() & WRITABLE_FOR_OTHERS == 0,
        "{} is required to be writable for its owner only, but has mode {:03o}; run `chmod go-w` on it, or remove it",
        path.display(),
        metadata.mode() & 0o777
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn program_is_read_as_written_from_files_of_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("a/b"));
        assert_eq!(store.read("k").unwrap(), None);
        store.write("k", b"program").unwrap();
        assert_eq!(store.read("k").unwrap().unwrap(), b"program");
        assert_eq!((mode(&store.directory), mode(&store.path("k"))), (0o700, 0o600));
        store.write("k", b"another").unwrap();
        assert_eq!(store.read("k").unwrap().unwrap(), b"another");
        assert_eq!(fs::read_dir(&store.directory).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn damaged_exchanged_and_foreign_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        store.write("k", b"program").unwrap();
        let error = |key: &str| store.read(key).unwrap_err().to_string();

        fs::copy(store.path("k"), store.path("other")).unwrap();
        assert!(error("other").contains("is damaged"), "the key is part of the file");
        let bytes = fs::read(store.path("k")).unwrap();
        for damaged in [&bytes[..bytes.len() - 1], &bytes[1..], b"", [&bytes[..], b"x"].concat().as_slice()] {
            fs::write(store.path("k"), damaged).unwrap();
            assert!(error("k").ends_with("k.executable is damaged (its checksum differs)"), "{}", error("k"));
        }
        fs::write(store.path("k"), &bytes).unwrap();
        assert!(store.read("k").unwrap().is_some());

        fs::set_permissions(store.path("k"), Permissions::from_mode(0o620)).unwrap();
        assert!(error("k").contains("writable for its owner only, but has mode 620"), "{}", error("k"));
        store.write("k", b"program").unwrap();
        assert!(store.read("k").unwrap().is_some(), "saving a program replaces the file");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(error("k").contains("but has mode 777; run `chmod go-w` on it"), "{}", error("k"));
        assert!(store.write("k", b"program").unwrap_err().to_string().contains("has mode 777"));
    }

    #[test]
    fn least_recently_used_programs_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let size = header("a", &[]).len() as u64 + 100;
        let store = Store { most_bytes: 3 * size, ..Store::new(folder.path()) };
        let age = |key: &str, hours: u64| {
            let time = SystemTime::now() - Duration::from_secs(3600 * hours);
            File::open(store.path(key)).unwrap().set_modified(time).unwrap();
        };
        for (key, hours) in [("a", 3), ("b", 2), ("c", 1)] {
            store.write(key, &[0; 100]).unwrap();
            age(key, hours);
        }
        assert!(store.read("a").unwrap().is_some(), "which marks it as used now");
        store.write("d", &[0; 100]).unwrap();
        let kept = ["a", "b", "c", "d"].map(|key| store.path(key).exists());
        assert_eq!(kept, [true, false, true, true]);
        let error = store.write("e", &[0; 4000]).unwrap_err().to_string();
        assert!(error.starts_with("the program has 4.0 kB, and the cache at most "), "{error}");
    }
}
