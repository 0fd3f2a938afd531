//! Which file is what: the form and the compression that a name says, and the files that paths name.

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::super::error::{DataError, Result};
use super::super::prepared::SourceEntry;
use super::super::shard::sha256_of_file;
use super::batches::{Batches, TextBatch};
use super::compression::{Compression, Source};
use super::{ReadOptions, jsonl, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    JsonLines,
}

/// One input file.
#[derive(Clone, Debug)]
pub struct Input {
    path: PathBuf,
    form: Form,
    compression: Compression,
    /// Size on disk.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
}

/// The form and compression that a file's name says, or `None` if it says nothing.
fn kind_of(path: &Path) -> (Option<Form>, Compression) {
    let extension = |path: &Path| path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let compression = extension(path).and_then(|e| Compression::of_extension(&e));
    let inner = if compression.is_some() { path.with_extension("") } else { path.to_owned() };
    let form = match extension(&inner).as_deref() {
        Some("txt" | "text") => Some(Form::Text),
        Some("jsonl" | "ndjson") => Some(Form::JsonLines),
        _ => None,
    };
    (form, compression.unwrap_or(Compression::None))
}

/// The files that `paths` name: a file is taken as it is (plain text unless its name says JSONL), a directory gives
/// its `.txt`, `.text`, `.jsonl` and `.ndjson` files, also with `.gz`, `.zst`, `.bz2` or `.xz`, at any depth, in the
/// order of their names.
///
/// # Errors
/// If a path does not exist, a directory has no such file, or a file comes twice.
pub fn find_inputs(paths: &[PathBuf]) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    for path in paths {
        if std::fs::metadata(path).map_err(DataError::io("read", path))?.is_dir() {
            let before = inputs.len();
            collect(path, &mut inputs)?;
            if inputs.len() == before {
                return Err(DataError::file(
                    path,
                    "a file .txt, .text, .jsonl or .ndjson (also .gz, .zst)",
                    "none",
                    "name the files themselves if they are called otherwise",
                ));
            }
        } else {
            inputs.push(Input::new(path, kind_of(path))?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    for input in &inputs {
        if !seen.insert(std::fs::canonicalize(&input.path).map_err(DataError::io("read", &input.path))?) {
            return Err(DataError::file(&input.path, "every input once", "it twice", "name it once"));
        }
    }
    Ok(inputs)
}

fn collect(directory: &Path, inputs: &mut Vec<Input>) -> Result<()> {
    let fail = || DataError::io("list", directory);
    let entries = std::fs::read_dir(directory).map_err(fail())?;
    let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>().map_err(fail())?;
    paths.sort();
    for path in paths {
        let metadata = std::fs::metadata(&path).map_err(DataError::io("read", &path))?;
        let kind = kind_of(&path);
        if metadata.is_dir() {
            collect(&path, inputs)?;
        } else if metadata.is_file() && kind.0.is_some() {
            inputs.push(Input::new(&path, kind)?);
        }
    }
    Ok(())
}

impl Input {
    fn new(path: &Path, (form, compression): (Option<Form>, Compression)) -> Result<Self> {
        let mut input =
            Input { path: path.to_owned(), form: form.unwrap_or(Form::Text), compression, bytes: 0, modified: 0 };
        (input.bytes, input.modified) = input.stamp()?;
        Ok(input)
    }

    /// Size and time of last modification, now.
    fn stamp(&self) -> Result<(u64, u64)> {
        let fail = || DataError::io("read the size and time of", &self.path);
        let metadata = std::fs::metadata(&self.path).map_err(fail())?;
        let modified = metadata.modified().map_err(fail())?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((metadata.len(), since.as_nanos() as u64))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as text; what the manifest calls this input.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Bytes of text to expect, from the size on disk. Compressed text is taken to be four times as long.
    pub fn expected_text(&self) -> u64 {
        if self.compression == Compression::None { self.bytes } else { self.bytes.saturating_mul(4) }
    }

    /// Reads the whole file for its entry in the manifest.
    pub fn entry(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<SourceEntry> {
        let sha256 = sha256_of_file(&self.path, progress)?;
        Ok(SourceEntry { name: self.name(), bytes: self.bytes, modified: self.modified, sha256 })
    }

    /// True if this is still the file of `entry`. Equal size and time stand for equal content; a touched file is read.
    pub fn is_still(&self, entry: &SourceEntry, progress: &(dyn Fn(u64) + Sync)) -> Result<bool> {
        Ok(self.bytes == entry.bytes
            && (self.modified == entry.modified || sha256_of_file(&self.path, progress)? == entry.sha256))
    }

    /// An error if the file was changed since it was found.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.stamp()?;
        if now == (self.bytes, self.modified) {
            return Ok(());
        }
        let found = format!("{} bytes now, {} before, or another time of modification", now.0, self.bytes);
        Err(DataError::file(&self.path, "a file at rest", found, "wait until it is written, and start again"))
    }

    /// Reads this input and hands batches to `sink`, until it returns `false` or the input ends; true in the latter case.
    /// `progress` hears of the bytes read from disk.
    ///
    /// # Errors
    /// If the file cannot be read or decompressed, or it holds what `options` refuse: the place is named.
    pub fn read(
        &self,
        options: &ReadOptions,
        progress: &(dyn Fn(u64) + Sync),
        sink: &mut dyn FnMut(TextBatch) -> bool,
    ) -> Result<bool> {
        let mut batches = Batches::new(&self.path, options, sink);
        let mut source = Source::open(&self.path, self.compression, progress)?;
        match self.form {
            Form::Text => text::read(&mut source, &mut batches)?,
            Form::JsonLines => jsonl::read(&mut source, &mut batches)?,
        }
        Ok(batches.finish())
    }
}
