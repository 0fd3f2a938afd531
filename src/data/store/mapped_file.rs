//! A file that is mapped into memory, and what happens if another program truncates it.
//!
//! A read is a copy, without system call, lock or allocation. A read beyond the end of a truncated file raises the signal SIGBUS, which
//! ends a process without a message; [`watch_mapped_files`] turns it into an error. Within the last page of the file, such a read
//! gives zeros, so the length is checked after a read, too.

use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mmap_io::{MemoryMappedFile, MmapIoError, MmapMode};

use crate::data::error::{DataError, Result};

/// The files that are mapped now.
static MAPPED: Mutex<Vec<Weak<Origin>>> = Mutex::new(Vec::new());

/// A file mapped for reading.
#[derive(Debug)]
pub(super) struct MappedFile {
    origin: Arc<Origin>,
    map: MemoryMappedFile,
}

/// A file as it was when it was mapped.
#[derive(Debug)]
struct Origin {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Origin {
    fn check_length(&self) -> Result<()> {
        let found = self.file.metadata().map_err(DataError::io("read the size of", &self.path))?.len();
        if found == self.bytes {
            return Ok(());
        }
        let required = format!("{} bytes, as when it was opened", self.bytes);
        let next = "another program changed the file: restore it, or run `lambert prepare` again (set force)";
        Err(DataError::file(&self.path, required, format!("{found}"), next))
    }
}

impl MappedFile {
    /// Maps `file`, which was opened at `path` and is not empty.
    pub fn new(file: File, path: &Path) -> io::Result<MappedFile> {
        let map = MemoryMappedFile::from_file(file.try_clone()?, MmapMode::ReadOnly, path).map_err(into_io_error)?;
        let origin = Arc::new(Origin { path: path.to_owned(), file, bytes: map.len() });
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.retain(|origin| origin.strong_count() > 0);
        mapped.push(Arc::downgrade(&origin));
        Ok(MappedFile { origin, map })
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> u64 {
        self.origin.bytes
    }

    /// Returns a range of bytes; none if it is not within the file.
    pub fn bytes(&self, start: u64, length: u64) -> Option<&[u8]> {
        self.map.as_slice_bytes(start, length).ok()
    }

    /// Checks that the file is as long as when it was mapped, with one system call.
    pub fn check_length(&self) -> Result<()> {
        self.origin.check_length()
    }
}

/// Calls `on_truncated`, which is to end the process, with the error of a mapped file that another program has truncated during a
/// read. The read waits until then: its thread raises the signal again and again, and each time its handler wakes the thread that
/// calls `on_truncated`. A SIGBUS of another cause ends the process, as without this. A process calls this once.
///
/// # Errors
/// If the system refuses a pipe, a handler or a thread, or another handler of the signal is installed.
#[cfg(target_os = "linux")]
pub fn watch_mapped_files(on_truncated: impl Fn(DataError) + Send + 'static) -> io::Result<()> {
    use signal_hook::consts::SIGBUS;
    use signal_hook::low_level::{emulate_default_handler, pipe, raise};

    // The standard library has a handler that recognises stack overflows. It would be called before ours and, at the first signal of
    // another cause, give way to the default, which ends the process at the second one. So it is made to give way now.
    if is_handled(SIGBUS)? {
        raise(SIGBUS)?;
        if is_handled(SIGBUS)? {
            return Err(io::Error::other("another handler of SIGBUS is installed"));
        }
    }
    let (mut raised, handler) = io::pipe()?;
    let watch = move || {
        while raised.read_exact(&mut [0]).is_ok() {
            match first_truncated() {
                Some(error) => on_truncated(error),
                None => drop(emulate_default_handler(SIGBUS)),
            }
        }
    };
    std::thread::Builder::new().name("mapped files".to_owned()).spawn(watch)?;
    pipe::register(SIGBUS, handler).map(drop)
}

/// Returns whether this process has a handler of `signal`.
#[cfg(target_os = "linux")]
fn is_handled(signal: i32) -> io::Result<bool> {
    let status = crate::files::read_to_string(Path::new("/proc/self/status"))?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1))
}

/// Returns the error of the first mapped file with another length than before.
#[cfg(target_os = "linux")]
fn first_truncated() -> Option<DataError> {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    mapped.iter().filter_map(Weak::upgrade).find_map(|origin| origin.check_length().err())
}

/// Returns the error of the operating system that a map failed with.
fn into_io_error(error: MmapIoError) -> io::Error {
    match error {
        MmapIoError::Io(error) => error,
        other => io::Error::other(other),
    }
}
