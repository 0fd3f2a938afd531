//! Batches of text: the lines and document ends that all input formats write.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use super::options::{LONGEST_LINE, ReadCounts, ReadOptions, SentenceMode, Tolerance};
use crate::data::error::{DataError, Result};

/// Bytes of text after which a batch is passed on: enough to share among all cores, and small enough to hold several.
const BATCH: usize = 1 << 20;

/// An element of the text stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextEvent {
    /// A non-empty line of text, or a paragraph of wrapped lines: a range of [`TextBatch::text`].
    Line(Range<usize>),
    /// The end of the current document, which has at least one line, possibly in an earlier batch.
    DocumentEnd,
}

/// About 1 MiB of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextBatch {
    /// The text of all lines.
    pub text: String,
    /// Lines and document ends, in order.
    pub events: Vec<TextEvent>,
    /// The counters of reading these events.
    pub counts: ReadCounts,
}

/// Collects the events of one input and passes them on in batches.
pub(super) struct BatchWriter<'a> {
    path: &'a Path,
    options: &'a ReadOptions,
    sink: &'a mut dyn FnMut(TextBatch) -> bool,
    accepts_more: bool,
    batch: TextBatch,
    /// The current document has a line.
    document_is_open: bool,
    /// The next line continues the current paragraph. Always false unless lines are wrapped.
    paragraph_is_open: bool,
    empty_lines: u32,
}

impl<'a> BatchWriter<'a> {
    pub fn new(path: &'a Path, options: &'a ReadOptions, sink: &'a mut dyn FnMut(TextBatch) -> bool) -> Self {
        BatchWriter {
            path,
            options,
            sink,
            accepts_more: true,
            batch: TextBatch::default(),
            document_is_open: false,
            paragraph_is_open: false,
            empty_lines: 0,
        }
    }

    /// Returns `false` once the sink has stopped reading; text added later is dropped.
    pub fn accepts_more(&self) -> bool {
        self.accepts_more
    }

    pub fn options(&self) -> &'a ReadOptions {
        self.options
    }

    /// Returns the counters of the current batch.
    pub fn counts(&mut self) -> &mut ReadCounts {
        &mut self.batch.counts
    }

    /// Decodes `bytes` as UTF-8. Invalid bytes are replaced and counted, or rejected with an error at `place`.
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

    /// Returns the error for `bytes` that are not UTF-8 and are rejected.
    pub fn not_utf8(&self, bytes: &[u8], place: &str) -> DataError {
        let found = format!("the bytes {bytes:02x?} in {place}");
        let next = "convert the file, or set invalid_utf8 to \"count\" to replace and count such bytes";
        DataError::file(self.path, "text in UTF-8", found, next)
    }

    /// Adds a line of the current document, which may be wrapped. A line that is too long is split at white space.
    pub fn line(&mut self, mut line: &str) {
        self.batch.counts.overlong_lines += (line.len() > LONGEST_LINE) as u64;
        while line.len() > LONGEST_LINE {
            let (start, rest) = line.split_at(cut_position(&line.as_bytes()[..LONGEST_LINE]));
            self.push(start);
            line = rest;
        }
        self.push(line);
    }

    /// Adds an empty line. Returns `true` if it ends a document of plain text.
    pub fn empty_line(&mut self) -> bool {
        self.paragraph_is_open = false;
        self.empty_lines += 1;
        self.flush_if(BATCH);
        self.options.sentences != SentenceMode::Wrapped || self.empty_lines == 2
    }

    /// Ends the current document if it has a line.
    pub fn end_document(&mut self) {
        self.paragraph_is_open = false;
        if std::mem::take(&mut self.document_is_open) {
            self.batch.events.push(TextEvent::DocumentEnd);
            self.batch.counts.documents += 1;
        }
        self.flush_if(BATCH);
    }

    /// Adds a whole document. One of only white space is counted and skipped.
    pub fn document(&mut self, text: &str) {
        for line in text.lines() {
            match line.trim().is_empty() {
                true => drop(self.empty_line()),
                false => self.line(line),
            }
        }
        self.end_record();
    }

    /// Ends a document that exists whether or not it has a line; without a line it is counted as empty.
    pub fn end_record(&mut self) {
        self.batch.counts.empty_documents += !self.document_is_open as u64;
        self.end_document();
    }

    /// Ends the current document and passes on the rest. Returns `false` if the sink stopped reading.
    pub fn finish(mut self) -> bool {
        self.end_document();
        if self.batch != TextBatch::default() {
            self.flush_if(0);
        }
        self.accepts_more
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
        match batch.events.last_mut() {
            _ if batch.text[start..].trim().is_empty() => return batch.text.truncate(start),
            Some(TextEvent::Line(paragraph)) if self.paragraph_is_open => paragraph.end = end,
            _ => batch.events.push(TextEvent::Line(start..end)),
        }
        self.document_is_open = true;
        self.paragraph_is_open = self.options.sentences == SentenceMode::Wrapped;
        self.empty_lines = 0;
        // A paragraph shorter than a batch is passed on whole.
        let room = if self.paragraph_is_open { 2 * BATCH } else { BATCH };
        if self.batch.text.len() >= room {
            self.batch.counts.overlong_lines += self.paragraph_is_open as u64;
            self.paragraph_is_open = false;
            self.flush_if(room);
        }
    }

    /// Passes the batch on if it has at least `length` bytes of text.
    fn flush_if(&mut self, length: usize) {
        if self.batch.text.len() >= length {
            let batch = std::mem::take(&mut self.batch);
            self.accepts_more = self.accepts_more && (self.sink)(batch);
        }
    }
}

/// Returns the position at which to split a line that is too long: after its last white space, or else between two
/// characters.
pub(super) fn cut_position(line: &[u8]) -> usize {
    if let Some(space) = line.iter().rposition(u8::is_ascii_whitespace) {
        return space + 1;
    }
    // At most three bytes of an incomplete character can stand at the end.
    let end = line.len();
    (end - 3..end).rev().find(|&at| line[at] >= 0xc0).unwrap_or(end)
}
