//! Lines and ends of documents, gathered into batches of text: the one thing that every form of input writes to.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use super::options::{ReadCounts, ReadOptions, SentenceMode, Tolerance};
use crate::data::error::{DataError, Result};

/// Bytes after which a line is cut.
pub const LONGEST_LINE: usize = 1 << 20;
/// Bytes of text after which a batch is handed on: enough for all cores to share, little enough to hold several.
const BATCH: usize = 1 << 20;

/// A part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextEvent {
    /// A line of text, or a paragraph of wrapped lines: a range of [`TextBatch::text`], not empty.
    Line(Range<usize>),
    /// The document at hand ends here; it has at least one line, maybe of an earlier batch.
    DocumentEnd,
}

/// About a mebibyte of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextBatch {
    pub text: String,
    pub pieces: Vec<TextEvent>,
    /// What was met while reading these pieces.
    pub counts: ReadCounts,
}

/// Gathers the pieces of one input and hands them on, a batch at a time.
pub(super) struct Batches<'a> {
    path: &'a Path,
    options: &'a ReadOptions,
    sink: &'a mut dyn FnMut(TextBatch) -> bool,
    wanted: bool,
    batch: TextBatch,
    /// The document at hand has a line.
    document_is_open: bool,
    /// The next line goes on with the paragraph at hand. Never, unless lines are wrapped.
    paragraph_is_open: bool,
    empty_lines: u32,
}

impl<'a> Batches<'a> {
    pub fn new(path: &'a Path, options: &'a ReadOptions, sink: &'a mut dyn FnMut(TextBatch) -> bool) -> Self {
        Batches {
            path,
            options,
            sink,
            wanted: true,
            batch: TextBatch::default(),
            document_is_open: false,
            paragraph_is_open: false,
            empty_lines: 0,
        }
    }

    /// False once the sink wants no more: what is added then is dropped.
    pub fn wanted(&self) -> bool {
        self.wanted
    }

    pub fn options(&self) -> &'a ReadOptions {
        self.options
    }

    /// The counts of the batch at hand.
    pub fn counts(&mut self) -> &mut ReadCounts {
        &mut self.batch.counts
    }

    /// The text of `bytes`; what of it is not UTF-8 is replaced and counted, or refused as standing at `place`.
    pub fn decode<'b>(&mut self, bytes: &'b [u8], place: impl FnOnce() -> String) -> Result<Cow<'b, str>> {
        let text = String::from_utf8_lossy(bytes);
        if let Cow::Owned(_) = text {
            let invalid: Vec<&[u8]> = bytes.utf8_chunks().map(|chunk| chunk.invalid()).collect();
            if self.options.invalid_utf8 == Tolerance::Refuse {
                let first = invalid.iter().find(|bytes| !bytes.is_empty()).copied().unwrap_or_default();
                return Err(self.not_utf8(first, &place()));
            }
            self.batch.counts.replaced_bytes += invalid.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        }
        Ok(text)
    }

    /// The error of `bytes` that are not UTF-8 and are refused.
    pub fn not_utf8(&self, bytes: &[u8], place: &str) -> DataError {
        let found = format!("the bytes {bytes:02x?} in {place}");
        let next = "convert the file, or have such bytes replaced and counted by --invalid-utf8 count";
        DataError::file(self.path, "text in UTF-8", found, next)
    }

    /// Takes a line of the document at hand, which may be wrapped. One that is too long is cut at white space.
    pub fn line(&mut self, mut line: &str) {
        self.batch.counts.cut_lines += (line.len() > LONGEST_LINE) as u64;
        while line.len() > LONGEST_LINE {
            let (start, rest) = line.split_at(cut_of(&line.as_bytes()[..LONGEST_LINE]));
            self.push(start);
            line = rest;
        }
        self.push(line);
    }

    /// Takes an empty line; true if it ends a document of plain text.
    pub fn empty_line(&mut self) -> bool {
        self.paragraph_is_open = false;
        self.empty_lines += 1;
        self.hand_on_if(BATCH);
        self.options.sentences != SentenceMode::Wrapped || self.empty_lines == 2
    }

    /// Ends the document at hand, if it has a line.
    pub fn end_document(&mut self) {
        self.paragraph_is_open = false;
        if std::mem::take(&mut self.document_is_open) {
            self.batch.pieces.push(TextEvent::DocumentEnd);
            self.batch.counts.documents += 1;
        }
        self.hand_on_if(BATCH);
    }

    /// Takes a whole document; one of white space alone is counted and passed over.
    pub fn document(&mut self, text: &str) {
        for line in text.lines() {
            match line.trim().is_empty() {
                true => drop(self.empty_line()),
                false => self.line(line),
            }
        }
        self.end_record();
    }

    /// Ends a document that is one whether or not it has a line; without one it is counted as empty.
    pub fn end_record(&mut self) {
        self.batch.counts.empty_documents += !self.document_is_open as u64;
        self.end_document();
    }

    /// Ends the document at hand and hands on what there is; false if the sink wanted no more.
    pub fn finish(mut self) -> bool {
        self.end_document();
        if self.batch != TextBatch::default() {
            self.hand_on_if(0);
        }
        self.wanted
    }

    fn push(&mut self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let batch = &mut self.batch;
        let start = batch.text.len();
        if self.paragraph_is_open {
            batch.text.push(' ');
        }
        for part in line.split_inclusive('\0') {
            let text = part.trim_end_matches('\0');
            batch.text.push_str(text);
            batch.counts.nul_bytes += (part.len() - text.len()) as u64;
        }
        let end = batch.text.len();
        match batch.pieces.last_mut() {
            _ if batch.text[start..].trim().is_empty() => return batch.text.truncate(start),
            Some(TextEvent::Line(paragraph)) if self.paragraph_is_open => paragraph.end = end,
            _ => batch.pieces.push(TextEvent::Line(start..end)),
        }
        self.document_is_open = true;
        self.paragraph_is_open = self.options.sentences == SentenceMode::Wrapped;
        self.empty_lines = 0;
        // A paragraph is handed on whole if it is not as long as a batch.
        let room = if self.paragraph_is_open { 2 * BATCH } else { BATCH };
        if self.batch.text.len() >= room {
            self.batch.counts.cut_lines += self.paragraph_is_open as u64;
            self.paragraph_is_open = false;
            self.hand_on_if(room);
        }
    }

    /// Hands the batch on if it has `length` bytes of text.
    fn hand_on_if(&mut self, length: usize) {
        if self.batch.text.len() >= length {
            let batch = std::mem::take(&mut self.batch);
            self.wanted = self.wanted && (self.sink)(batch);
        }
    }
}

/// Where to cut a line that is too long: after its last white space, or else between two characters.
pub(super) fn cut_of(line: &[u8]) -> usize {
    if let Some(space) = line.iter().rposition(u8::is_ascii_whitespace) {
        return space + 1;
    }
    // At most three bytes of a character can stand at the end without its last.
    let end = line.len();
    (end - 3..end).rev().find(|&at| line[at] >= 0xc0).unwrap_or(end)
}
