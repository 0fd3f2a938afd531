//! Checks of a shared library before it is loaded. The loader maps the file, and the process ends with a signal when it reads a
//! page beyond the end of a file that a copy or a download has cut short.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_of_file;
use crate::files;

/// The file as it was installed, stored beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    sha256: String,
}

/// Records the file at `path` as installed, in `NAME.installed.json` beside it.
///
/// # Errors
/// If the file cannot be read, or the record cannot be written.
pub fn record(path: &Path) -> io::Result<()> {
    let (bytes, modified) = stamp(&files::open(path)?)?;
    let record = Record { bytes, modified, sha256: sha256_of_file(path, &|_| ())? };
    std::fs::write(record_path(path), serde_json::to_vec_pretty(&record)?)
}

/// Checks that the file at `path` has the length that its ELF headers describe and, if it was installed, that it is unchanged:
/// the same size, and the same time of modification or the same sha256.
///
/// # Errors
/// The difference, as the reason for which the library cannot be opened.
pub fn check(path: &Path) -> Result<(), String> {
    compare(path, false)
}

/// Checks a file as [`check`] does, with its sha256 in any case.
///
/// # Errors
/// As [`check`].
pub fn check_content(path: &Path) -> Result<(), String> {
    compare(path, true)
}

fn compare(path: &Path, hash_always: bool) -> Result<(), String> {
    let mut file = files::open(path).map_err(|error| error.to_string())?;
    let (bytes, modified) = stamp(&file).map_err(|error| error.to_string())?;
    let described = elf_extent(&mut file).map_err(|error| error.to_string())?;
    if let Some(described) = described.filter(|described| *described > bytes) {
        return Err(format!("it has {bytes} bytes, and its ELF headers describe {described}: it was cut short"));
    }
    let Some(record) = recorded(path)? else { return Ok(()) };
    if bytes != record.bytes {
        return Err(format!("it has {bytes} bytes, and {} were installed", record.bytes));
    }
    if hash_always || modified != record.modified {
        let found = sha256_of_file(path, &|_| ()).map_err(|error| error.to_string())?;
        if found != record.sha256 {
            return Err(format!("it has the sha256 {found}, and {} was installed", record.sha256));
        }
    }
    Ok(())
}

fn record_path(path: &Path) -> PathBuf {
    path.with_added_extension("installed.json")
}

/// Returns the record beside `path`; none for a library that lambert did not install.
fn recorded(path: &Path) -> Result<Option<Record>, String> {
    let record = record_path(path);
    let failed = |reason: String| format!("its record {} cannot be read: {reason}", record.display());
    match files::read(&record) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error.to_string())),
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(error.to_string())),
    }
}

/// Returns the size of an open file and its time of modification.
fn stamp(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since.as_nanos() as u64))
}

/// Returns the bytes that the headers of a 64-bit little-endian ELF file describe: both header tables, and the content of all
/// segments. None for another file, which the loader refuses by itself.
fn elf_extent(file: &mut File) -> io::Result<Option<u64>> {
    const HEADER: usize = 64;
    const SEGMENT: usize = 56;
    let mut header = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
    if header.len() < HEADER || !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let small = |at| u64::from(u16_at(&header, at));
    let (segments, segment_bytes, segment_count) = (u64_at(&header, 32), small(54), small(56));
    let (sections, section_bytes, section_count) = (u64_at(&header, 40), small(58), small(60));
    let mut extent = segments.saturating_add(segment_bytes * segment_count);
    extent = extent.max(sections.saturating_add(section_bytes * section_count));
    for index in 0..segment_count {
        file.seek(SeekFrom::Start(segments.saturating_add(index * segment_bytes)))?;
        let mut segment = Vec::new();
        file.by_ref().take(SEGMENT as u64).read_to_end(&mut segment)?;
        if segment.len() < SEGMENT {
            break;
        }
        extent = extent.max(u64_at(&segment, 8).saturating_add(u64_at(&segment, 32)));
    }
    Ok(Some(extent))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// An ELF file of one segment whose content ends at byte 200, followed by the table of its two sections.
    fn library() -> Vec<u8> {
        let mut bytes = vec![0; 200 + 2 * 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(32, &64u64.to_le_bytes());
        put(40, &200u64.to_le_bytes());
        for (at, value) in [(54, 56u16), (56, 1), (58, 64), (60, 2)] {
            put(at, &value.to_le_bytes());
        }
        put(64 + 8, &120u64.to_le_bytes());
        put(64 + 32, &80u64.to_le_bytes());
        bytes
    }

    #[test]
    fn a_library_that_was_cut_short_is_refused_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let (path, whole) = (folder.path().join("plugin.so"), library());
        for length in 64..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = check(&path).unwrap_err();
            assert_eq!(error, format!("it has {length} bytes, and its ELF headers describe 328: it was cut short"));
        }
        fs::write(&path, &whole).unwrap();
        check(&path).unwrap();
        // Without its section table, as a stripped library may be, the content of the segment counts.
        let mut stripped = whole;
        stripped[40..48].fill(0);
        stripped[60..62].fill(0);
        fs::write(&path, &stripped[..199]).unwrap();
        assert!(check(&path).unwrap_err().contains("describe 200"));
        fs::write(&path, b"not a library").unwrap();
        check(&path).unwrap();
    }

    #[test]
    fn a_changed_library_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plugin.so");
        fs::write(&path, library()).unwrap();
        record(&path).unwrap();
        check_content(&path).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let write = |bytes: &[u8], time| {
            fs::write(&path, bytes).unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        let later = modified + std::time::Duration::from_secs(1);
        write(&library(), later);
        check(&path).unwrap();
        let mut flipped = library();
        flipped[190] ^= 1;
        write(&flipped, later);
        assert!(check(&path).unwrap_err().contains("it has the sha256 "));
        // The same size and time count as unchanged, unless the content is asked for.
        write(&flipped, modified);
        check(&path).unwrap();
        assert!(check_content(&path).unwrap_err().contains(" was installed"));
        write(&[library(), vec![0]].concat(), modified);
        assert_eq!(check(&path).unwrap_err(), "it has 329 bytes, and 328 were installed");
    }
}
