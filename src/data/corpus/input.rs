//! An input file, with the format and the compression that its name gives.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::decompress::{Compression, Decompressed, check_beginning};
use super::formats::{jsonl, parquet, text, wiki_extractor, wikimedia};
use super::input_entry::{InputEntry, Source};
use super::options::{ReadCounts, ReadOptions};
use super::text_batch::{BatchWriter, TextBatch};
use super::whole_file::split_name;
use crate::data::error::{DataError, Result};
use crate::data::files::sha256_of_file;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputFormat {
    Text,
    JsonLines,
    Parquet,
    WikiExtractor,
    Wikimedia,
}

/// One input file.
#[derive(Clone, Debug)]
pub struct Input {
    path: PathBuf,
    pub(super) format: InputFormat,
    compression: Compression,
    /// The source that it belongs to.
    pub source: Source,
    /// Size on disk.
    pub bytes: u64,
    /// Nanoseconds since 1970.
    pub modified: u64,
}

/// The format and compression that a file name implies.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameHints {
    format: InputFormat,
    compression: Compression,
    /// Whether a directory scan takes a file of this name.
    pub is_known: bool,
}

impl NameHints {
    pub fn of(path: &Path) -> Self {
        let (stem, extension, compression) = split_name(path);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (format, is_known) = match extension.as_str() {
            // The index of a dump lists titles.
            "txt" => (InputFormat::Text, !stem.ends_with("-multistream-index")),
            "text" => (InputFormat::Text, true),
            "jsonl" | "ndjson" => (InputFormat::JsonLines, true),
            // `.json` files are records in corpora such as C4, but as often settings.
            "json" => (InputFormat::JsonLines, false),
            "parquet" => (InputFormat::Parquet, true),
            "xml" => (InputFormat::Wikimedia, true),
            // Files of a split dump are named `…-pages-articles1.xml-p1p41242`.
            extension if extension.starts_with("xml-p") => (InputFormat::Wikimedia, true),
            "" if stem.strip_prefix("wiki_").is_some_and(is_number) => (InputFormat::WikiExtractor, true),
            _ => (InputFormat::Text, false),
        };
        NameHints { format, compression, is_known }
    }
}

impl Input {
    pub(super) fn new(path: &Path, hints: NameHints) -> Result<Self> {
        let NameHints { format, compression, .. } = hints;
        if format == InputFormat::Parquet && compression != Compression::None {
            let required = "a Parquet file that is not compressed again";
            return Err(DataError::file(
                path,
                required,
                "its name",
                "unpack it: Parquet compresses its columns itself",
            ));
        }
        let mut input =
            Input { path: path.to_owned(), format, compression, source: Source::default(), bytes: 0, modified: 0 };
        (input.bytes, input.modified) = input.stamp()?;
        Ok(input)
    }

    /// Returns the size and the time of last modification.
    fn stamp(&self) -> Result<(u64, u64)> {
        let fail = || DataError::io("read the size and time of", &self.path);
        let metadata = std::fs::metadata(&self.path).map_err(fail())?;
        let modified = metadata.modified().map_err(fail())?;
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((metadata.len(), since.as_nanos() as u64))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path as text, which is the input's name in the manifest.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Returns the expected bytes of text, from the size on disk. Compressed text is assumed to be four times as long.
    pub fn expected_text(&self) -> u64 {
        if self.compression == Compression::None && self.format != InputFormat::Parquet {
            self.bytes
        } else {
            self.bytes.saturating_mul(4)
        }
    }

    /// Returns `true` if reading can begin at any document.
    pub(super) fn is_divisible(&self) -> bool {
        self.compression == Compression::None && matches!(self.format, InputFormat::Text | InputFormat::JsonLines)
    }

    /// Returns the manifest entry before the file is read.
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

    /// Reads the whole file to fill its manifest entry.
    pub fn entry(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<InputEntry> {
        Ok(InputEntry { sha256: sha256_of_file(&self.path, progress)?, ..self.unread_entry() })
    }

    /// Returns `true` if this is still the file of `entry`. Equal size and modification time imply equal content;
    /// otherwise the file is hashed.
    pub fn is_still(&self, entry: &InputEntry, progress: &(dyn Fn(u64) + Sync)) -> Result<bool> {
        Ok(self.bytes == entry.bytes
            && (self.modified == entry.modified || sha256_of_file(&self.path, progress)? == entry.sha256))
    }

    /// Returns an error if the file changed since it was found.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.stamp()?;
        if now == (self.bytes, self.modified) {
            return Ok(());
        }
        let found = format!("{} bytes now, {} before, or a new modification time", now.0, self.bytes);
        Err(DataError::file(
            &self.path,
            "an unchanged file",
            found,
            "wait until the file is complete, then start again",
        ))
    }

    /// Checks the beginning of the file, before any long work.
    ///
    /// # Errors
    /// If the content is not what the name says. [`Input::read`] finds the same error, but later.
    pub fn check_beginning(&self, options: &ReadOptions) -> Result<()> {
        match self.format {
            InputFormat::Parquet => parquet::open(&self.path, &options.text_field).map(drop),
            _ => check_beginning(&self.path, self.compression),
        }
    }

    /// Reads this input and passes batches to `sink`, until it returns `false` or the input ends. Returns `true` in the
    /// latter case. Calls `progress` with the number of bytes read from disk.
    ///
    /// # Errors
    /// If the file cannot be read or decompressed, or holds content that `options` reject. The error names the place.
    pub fn read(
        &self,
        options: &ReadOptions,
        progress: &(dyn Fn(u64) + Sync),
        sink: &mut dyn FnMut(TextBatch) -> bool,
    ) -> Result<bool> {
        self.read_range(0..self.bytes, options, progress, sink)
    }

    /// Reads a byte range of the file like [`Input::read`]; of a compressed file, the range is the whole file.
    pub(super) fn read_range(
        &self,
        range: Range<u64>,
        options: &ReadOptions,
        progress: &(dyn Fn(u64) + Sync),
        sink: &mut dyn FnMut(TextBatch) -> bool,
    ) -> Result<bool> {
        let mut batches = BatchWriter::new(&self.path, options, sink);
        if self.format == InputFormat::Parquet {
            parquet::read(&self.path, self.bytes, progress, &mut batches)?;
            return Ok(batches.finish());
        }
        let mut source = Decompressed::open(&self.path, self.compression, range.clone(), progress)?;
        match (self.format, source.start()?) {
            (InputFormat::Wikimedia, _) => wikimedia::read(&mut source, &mut batches)?,
            (InputFormat::JsonLines, _) => jsonl::read(&mut source, &mut batches)?,
            // WikiExtractor writes files without extension, with `--json` too.
            (InputFormat::WikiExtractor, start) if start.starts_with(b"{") => jsonl::read(&mut source, &mut batches)?,
            (InputFormat::WikiExtractor, _) => wiki_extractor::read(&mut source, &mut batches)?,
            (_, start) if range.start == 0 && start.starts_with(wiki_extractor::START) => {
                let next = "name it wiki_00, wiki_01 …, as WikiExtractor does";
                return Err(DataError::file(
                    &self.path,
                    "plain text, as its name says",
                    "WikiExtractor's <doc id=…>",
                    next,
                ));
            }
            _ => text::read(&mut source, &mut batches)?,
        }
        Ok(batches.finish())
    }
}
