//! Lines of an input. A line that is too long is returned in pieces.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use super::decompress::Decompressed;
use super::options::LONGEST_LINE;
use super::text_batch::{BatchWriter, cut_position};
use crate::data::error::Result;

/// A line, or a piece of a line longer than [`LONGEST_LINE`].
pub(super) struct Line<'a> {
    pub text: Cow<'a, str>,
    /// This is the continuation of a line that was split. It may be empty without being an empty line.
    pub is_rest: bool,
}

/// Iterates over the lines of an input.
pub(super) struct Lines<'s, 'a> {
    source: &'s mut Decompressed<'a>,
    /// Bytes read from the input; the first `taken` have been returned.
    read: Vec<u8>,
    taken: usize,
    /// Number of the current line, from 1.
    pub number: u64,
    is_cut: bool,
}

impl<'s, 'a> Lines<'s, 'a> {
    pub fn new(source: &'s mut Decompressed<'a>) -> Self {
        Lines { source, read: Vec::new(), taken: 0, number: 0, is_cut: false }
    }

    /// Returns the next line, decoded and counted by `batches`.
    pub fn next(&mut self, batches: &mut BatchWriter) -> Result<Option<Line<'_>>> {
        self.read.drain(..self.taken);
        let room = (LONGEST_LINE - self.read.len()) as u64;
        let read = self.source.reader.by_ref().take(room).read_until(b'\n', &mut self.read);
        if read.map_err(|error| self.source.broken(error))? == 0 && self.read.is_empty() {
            return Ok(None);
        }
        let is_rest = self.is_cut;
        self.number += !is_rest as u64;
        self.is_cut = self.read.len() == LONGEST_LINE && !self.read.ends_with(b"\n");
        self.taken = if self.is_cut { cut_position(&self.read) } else { self.read.len() };
        batches.counts().overlong_lines += (self.is_cut && !is_rest) as u64;
        let text = batches.decode(&self.read[..self.taken], || format!("line {}", self.number))?;
        Ok(Some(Line { text, is_rest }))
    }
}
