//! Which file is what: the form and the compression that a name says, and the files that paths name.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::super::error::{DataError, Result};
use super::super::prepared::SourceEntry;
use super::super::shard::sha256_of_file;
use super::batches::{Batches, TextBatch};
use super::compression::{Compression, Decompressed};
use super::{ReadCounts, ReadOptions, jsonl, parquet, text, wiki_extractor, wikimedia};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    JsonLines,
    Parquet,
    WikiExtractor,
    Wikimedia,
}

/// What inputs belong to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    /// How often the data has each document to train on: 2 is twice, 0.25 is one in four, 2.5 is twice and half of them
    /// once more.
    pub weight: f64,
}

impl Default for Source {
    /// That of inputs that are named alone.
    fn default() -> Self {
        Source { name: "text".to_owned(), weight: 1.0 }
    }
}

/// One input file.
#[derive(Clone, Debug)]
pub struct Input {
    path: PathBuf,
    pub(super) form: Form,
    compression: Compression,
    pub source: Source,
    /// Size on disk.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
}

/// What is named where no input was found.
const FORMS: &str = "a file .txt, .text, .jsonl, .ndjson, .parquet, .xml or wiki_00 (also .gz, .zst, .bz2, .xz)";

/// The form and compression that a file's name says; no form if it says nothing.
fn kind_of(path: &Path) -> (Option<Form>, Compression) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    let (inner, compression) = match name.rsplit_once('.') {
        Some((inner, extension)) => match Compression::of_extension(extension) {
            Some(compression) => (inner, compression),
            None => (name.as_str(), Compression::None),
        },
        None => (name.as_str(), Compression::None),
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let form = match inner.rsplit_once('.').map(|(_, extension)| extension) {
        // The index of a dump lists titles.
        Some("txt") if inner.ends_with("-multistream-index.txt") => None,
        Some("txt" | "text") => Some(Form::Text),
        Some("jsonl" | "ndjson") => Some(Form::JsonLines),
        Some("parquet") => Some(Form::Parquet),
        Some("xml") => Some(Form::Wikimedia),
        // Parts of a dump are called `…-pages-articles1.xml-p1p41242`.
        Some(extension) if extension.starts_with("xml-p") => Some(Form::Wikimedia),
        None if inner.strip_prefix("wiki_").is_some_and(is_number) => Some(Form::WikiExtractor),
        _ => None,
    };
    (form, compression)
}

/// The files that `paths` name: a file is taken as it is (plain text unless its name says otherwise), a directory gives
/// those of its files whose names say a form, at any depth, in the order of their names, and a path that does not exist
/// but has `*`, `?`, `[` or `**` gives what matches it.
///
/// # Errors
/// If a path does not exist, a directory or pattern has no such file, or a file comes twice.
pub fn find_inputs(paths: &[PathBuf]) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    for path in paths {
        let before = inputs.len();
        for path in matches_of(path)? {
            match std::fs::metadata(&path).map_err(DataError::io("read", &path))?.is_dir() {
                true => collect(&path, &mut inputs)?,
                false => inputs.push(Input::new(&path, kind_of(&path))?),
            }
        }
        if inputs.len() == before {
            return Err(DataError::file(path, FORMS, "none", "name the files themselves if they are called otherwise"));
        }
    }
    check_each_is_once(&inputs)?;
    Ok(inputs)
}

/// An error if a file comes twice, whatever it is called.
pub(super) fn check_each_is_once(inputs: &[Input]) -> Result<()> {
    let mut seen = HashSet::new();
    for input in inputs {
        if !seen.insert(std::fs::canonicalize(&input.path).map_err(DataError::io("read", &input.path))?) {
            return Err(DataError::file(&input.path, "every input once", "it twice", "name it once"));
        }
    }
    Ok(())
}

/// The path itself, or if it does not exist and is a pattern, what matches it.
fn matches_of(path: &Path) -> Result<Vec<PathBuf>> {
    let pattern = path.to_string_lossy();
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let wrong = |error: glob::PatternError| {
        DataError::file(path, "a pattern", error.to_string(), "see `lambert prepare --help`")
    };
    let matches = glob::glob(&pattern).map_err(wrong)?;
    matches.map(|found| found.map_err(|e| DataError::io("read", e.path().to_owned())(e.into()))).collect()
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
        if form == Some(Form::Parquet) && compression != Compression::None {
            let required = "Parquet that is not compressed as a whole";
            return Err(DataError::file(path, required, "its name", "unpack it: its columns are compressed already"));
        }
        let (path, form) = (path.to_owned(), form.unwrap_or(Form::Text));
        let mut input = Input { path, form, compression, source: Source::default(), bytes: 0, modified: 0 };
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
        if self.compression == Compression::None && self.form != Form::Parquet {
            self.bytes
        } else {
            self.bytes.saturating_mul(4)
        }
    }

    /// True if reading can begin at any document.
    pub(super) fn is_divisible(&self) -> bool {
        self.compression == Compression::None && matches!(self.form, Form::Text | Form::JsonLines)
    }

    /// Reads the whole file for its entry in the manifest.
    pub fn entry(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<SourceEntry> {
        let sha256 = sha256_of_file(&self.path, progress)?;
        Ok(SourceEntry {
            name: self.name(),
            bytes: self.bytes,
            modified: self.modified,
            sha256,
            source: self.source.clone(),
            reading: ReadCounts::default(),
        })
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
        self.read_range(0..self.bytes, options, progress, sink)
    }

    /// As [`Input::read`], of a range of the file's bytes; of a compressed file it is the whole.
    pub(super) fn read_range(
        &self,
        range: Range<u64>,
        options: &ReadOptions,
        progress: &(dyn Fn(u64) + Sync),
        sink: &mut dyn FnMut(TextBatch) -> bool,
    ) -> Result<bool> {
        let mut batches = Batches::new(&self.path, options, sink);
        if self.form == Form::Parquet {
            parquet::read(&self.path, self.bytes, progress, &mut batches)?;
            return Ok(batches.finish());
        }
        let mut source = Decompressed::open(&self.path, self.compression, range.clone(), progress)?;
        match (self.form, source.start()?) {
            (Form::Wikimedia, _) => wikimedia::read(&mut source, &mut batches)?,
            (Form::JsonLines, _) => jsonl::read(&mut source, &mut batches)?,
            // WikiExtractor gives no extensions, with `--json` neither.
            (Form::WikiExtractor, start) if start.starts_with(b"{") => jsonl::read(&mut source, &mut batches)?,
            (Form::WikiExtractor, _) => wiki_extractor::read(&mut source, &mut batches)?,
            (_, start) if range.start == 0 && start.starts_with(wiki_extractor::START) => {
                let next = "call it wiki_00, wiki_01 …, as WikiExtractor does";
                return Err(DataError::file(&self.path, "plain text, by its name", "WikiExtractor's <doc id=…>", next));
            }
            _ => text::read(&mut source, &mut batches)?,
        }
        Ok(batches.finish())
    }
}
