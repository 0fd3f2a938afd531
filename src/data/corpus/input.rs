//! An input: a file, with the form and the compression that its name says.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::decompress::{Compression, Decompressed, check_beginning};
use super::formats::{jsonl, parquet, text, wiki_extractor, wikimedia};
use super::input_entry::InputEntry;
use super::options::{ReadCounts, ReadOptions};
use super::text_batch::{Batches, TextBatch};
use crate::data::error::{DataError, Result};
use crate::data::files::sha256_of_file;

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

/// What a file's name says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameSays {
    form: Form,
    compression: Compression,
    /// It is one of the names by which the files of a directory are taken.
    pub is_a_form: bool,
}

impl NameSays {
    pub fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let (inner, compression) = match name.rsplit_once('.') {
            Some((inner, extension)) => match Compression::of_extension(extension) {
                Some(compression) => (inner, compression),
                None => (name.as_str(), Compression::None),
            },
            None => (name.as_str(), Compression::None),
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (form, is_a_form) = match inner.rsplit_once('.').map(|(_, extension)| extension) {
            // The index of a dump lists titles.
            Some("txt") => (Form::Text, !inner.ends_with("-multistream-index.txt")),
            Some("text") => (Form::Text, true),
            Some("jsonl" | "ndjson") => (Form::JsonLines, true),
            // Records of corpora such as C4, but as often settings.
            Some("json") => (Form::JsonLines, false),
            Some("parquet") => (Form::Parquet, true),
            Some("xml") => (Form::Wikimedia, true),
            // Parts of a dump are called `…-pages-articles1.xml-p1p41242`.
            Some(extension) if extension.starts_with("xml-p") => (Form::Wikimedia, true),
            None if inner.strip_prefix("wiki_").is_some_and(is_number) => (Form::WikiExtractor, true),
            _ => (Form::Text, false),
        };
        NameSays { form, compression, is_a_form }
    }
}

impl Input {
    pub(super) fn new(path: &Path, says: NameSays) -> Result<Self> {
        let NameSays { form, compression, .. } = says;
        if form == Form::Parquet && compression != Compression::None {
            let required = "Parquet that is not compressed as a whole";
            return Err(DataError::file(path, required, "its name", "unpack it: its columns are compressed already"));
        }
        let mut input =
            Input { path: path.to_owned(), form, compression, source: Source::default(), bytes: 0, modified: 0 };
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

    /// Its entry in the manifest, with nothing read yet.
    pub fn unread_entry(&self) -> InputEntry {
        InputEntry {
            name: self.name(),
            bytes: self.bytes,
            modified: self.modified,
            sha256: String::new(),
            source: self.source.clone(),
            reading: ReadCounts::default(),
            train_documents: 0,
        }
    }

    /// Reads the whole file for its entry in the manifest.
    pub fn entry(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<InputEntry> {
        Ok(InputEntry { sha256: sha256_of_file(&self.path, progress)?, ..self.unread_entry() })
    }

    /// True if this is still the file of `entry`. Equal size and time stand for equal content; a touched file is read.
    pub fn is_still(&self, entry: &InputEntry, progress: &(dyn Fn(u64) + Sync)) -> Result<bool> {
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

    /// Reads the beginning of the file, before any long work.
    ///
    /// # Errors
    /// If it is not what its name says; [`Input::read`] would tell the same, but only when its turn comes.
    pub fn check_beginning(&self, options: &ReadOptions) -> Result<()> {
        match self.form {
            Form::Parquet => parquet::open(&self.path, &options.text_field).map(drop),
            _ => check_beginning(&self.path, self.compression),
        }
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
