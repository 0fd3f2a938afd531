//! Reading of regular files only, and files that appear complete or not at all.
//!
//! Every file that a user can name is opened by [`open`], [`read`] or [`read_to_string`]: opening a named pipe waits for a writer,
//! perhaps for ever, and a device need not end. A file is written under a temporary name beside its own, then renamed.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Opens the regular file `path` for reading.
///
/// # Errors
/// If it cannot be opened, or is a directory, named pipe, socket or device.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    check_regular(&fs::metadata(&path)?, "write its content to a file first")?;
    File::open(path)
}

/// Reads the regular file `path`.
///
/// # Errors
/// As [`open`]; if reading fails.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the regular file `path` as text.
///
/// # Errors
/// As [`read`]; if the content is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens the regular file `path` for reading and writing and keeps its content; creates it if there is none.
///
/// # Errors
/// If it cannot be opened or created, or is a directory, named pipe, socket or device.
pub fn open_or_create(path: impl AsRef<Path>) -> io::Result<File> {
    open_to_write(path.as_ref(), OpenOptions::new().write(true).truncate(false))
}

/// Opens the regular file `path` for reading, and for writing at its end; creates it if there is none.
///
/// # Errors
/// As [`open_or_create`].
pub fn append(path: impl AsRef<Path>) -> io::Result<File> {
    open_to_write(path.as_ref(), OpenOptions::new().append(true))
}

fn open_to_write(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    check_replaceable(path)?;
    options.read(true).create(true).open(path)
}

/// Checks that `path` is a regular file or does not exist.
fn check_replaceable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        metadata => check_regular(&metadata?, "choose another file"),
    }
}

fn check_regular(metadata: &Metadata, next: &str) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let (kind, found) = match metadata.is_dir() {
        true => (ErrorKind::IsADirectory, "a directory"),
        false => (ErrorKind::InvalidInput, special_kind(metadata)),
    };
    Err(io::Error::new(kind, format!("a regular file is required, found {found}; {next}")))
}

#[cfg(unix)]
fn special_kind(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    match (kind.is_fifo(), kind.is_socket()) {
        (true, _) => "a named pipe",
        (_, true) => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special_kind(_: &Metadata) -> &'static str {
    "a special file"
}

/// Checks that `path` does not exist or is an empty directory, so that output in it replaces nothing.
///
/// # Errors
/// If it holds anything, or is no directory that can be listed.
pub fn check_new_directory(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let mut entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    ensure!(
        entries.next().is_none(),
        "{} requires a new or empty directory, found other content; choose another",
        path.display()
    );
    Ok(())
}

/// Returns the temporary name of `path` while it is written: `.NAME.partial` beside it.
pub fn partial_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial"))
}

/// Writes the file `path`: `fill` writes it under its temporary name, and it is renamed. After an error the temporary file
/// is removed, and `path` is unchanged.
///
/// # Errors
/// If `fill` fails, or the file cannot be renamed; if `path` is a directory, named pipe, socket or device.
pub fn write_atomically<E>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> anyhow::Result<()>
where
    anyhow::Error: From<E>,
{
    check_replaceable(path).with_context(|| format!("cannot write {}", path.display()))?;
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
/// If the file cannot be written, synced or renamed; if `path` is a directory, named pipe, socket or device.
pub fn replace_file(path: &Path, partial: &Path, content: &[u8]) -> io::Result<()> {
    let write = || -> io::Result<()> {
        check_replaceable(path)?;
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

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let refused = |path: &Path, found: &str| {
            for error in [open(path), open_or_create(path), append(path)].map(Result::unwrap_err) {
                assert!(
                    error.to_string().starts_with(&format!("a regular file is required, found {found}; ")),
                    "{error}"
                );
            }
            let error = write_atomically(path, |partial| fs::write(partial, "")).unwrap_err();
            assert!(format!("{error:#}").contains(&format!("found {found}; choose another file")), "{error:#}");
            assert!(replace_file(path, &partial_path(path), b"").is_err());
            assert!(read(path).is_err() && read_to_string(path).is_err());
        };
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink(path("pipe"), path("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        refused(&path("pipe"), "a named pipe");
        refused(&path("link"), "a named pipe");
        refused(&path("socket"), "a socket");
        refused(folder.path(), "a directory");
        refused(Path::new("/dev/zero"), "a device");
        assert_eq!(open(path("none")).unwrap_err().kind(), ErrorKind::NotFound);
        open_or_create(path("new")).unwrap().write_all(b"text").unwrap();
        open_or_create(path("new")).unwrap();
        assert_eq!(read_to_string(path("new")).unwrap(), "text");
    }

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
