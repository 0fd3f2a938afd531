//! Groups text into blocks of whole documents. A block is tokenized by one thread and is the unit of work after an
//! interruption. Block boundaries depend only on the part of the corpus, never on threads.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::data::corpus::{ReadCounts, TextBatch, TextEvent};

/// Bytes of text after which a block ends, at the end of a document: about a tenth of a second of tokenizing, and small
/// enough for every thread to hold one and queue another.
const BLOCK: usize = 4 << 20;
/// Bytes of text after which a document is split, because a block holds whole documents.
const LONGEST_DOCUMENT: usize = 16 << 20;

/// The position of a block in the corpus. Blocks in order are the text in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct BlockId {
    pub part: u32,
    pub index: u32,
}

/// Some documents of one part.
#[derive(Debug, Default)]
pub(super) struct TextBlock {
    text: String,
    lines: Vec<Range<usize>>,
    /// Number of lines up to the end of each document.
    document_ends: Vec<usize>,
    /// Fingerprint of the document that the first one continues.
    rest_of: Option<u128>,
    pub counts: ReadCounts,
    /// Documents that were split because they were longer than [`LONGEST_DOCUMENT`].
    pub overlong_documents: u64,
}

/// One document of a [`TextBlock`].
#[derive(Clone, Copy, Debug)]
pub(super) struct TextDocument<'a> {
    text: &'a str,
    lines: &'a [Range<usize>],
    rest_of: Option<u128>,
}

impl<'a> TextDocument<'a> {
    pub fn lines(self) -> impl Iterator<Item = &'a str> + Clone {
        self.lines.iter().map(move |line| &self.text[line.clone()])
    }

    /// Returns the bytes of the lines.
    pub fn bytes(self) -> usize {
        self.lines.last().map_or(0, |last| last.end - self.lines[0].start)
    }

    /// Returns a 128-bit hash of the text, ignoring white space at line ends. Equal documents have equal fingerprints;
    /// a collision of others is practically impossible (2⁻⁶⁴ for four billion documents).
    pub fn fingerprint(self) -> u128 {
        let mut hash = Xxh3::new();
        for line in self.lines() {
            hash.update(line.trim().as_bytes());
            hash.update(b"\n");
        }
        hash.digest128()
    }

    /// Returns the fingerprint of the whole document, of which this may be a continuation.
    pub fn origin(self) -> u128 {
        self.rest_of.unwrap_or_else(|| self.fingerprint())
    }
}

impl TextBlock {
    pub fn documents(&self) -> impl Iterator<Item = TextDocument<'_>> {
        (0..self.document_ends.len()).map(|index| self.document(index))
    }

    fn document(&self, index: usize) -> TextDocument<'_> {
        let start = if index == 0 { 0 } else { self.document_ends[index - 1] };
        TextDocument {
            text: &self.text,
            lines: &self.lines[start..self.document_ends[index]],
            rest_of: self.rest_of.filter(|_| index == 0),
        }
    }
}

/// Groups the batches of one part into blocks.
pub(super) struct BlockBuilder<'a> {
    block: TextBlock,
    /// Number of the current block.
    index: u32,
    sink: &'a mut dyn FnMut(u32, TextBlock) -> bool,
}

impl<'a> BlockBuilder<'a> {
    /// Creates a builder. `sink` takes each block with its number, and returns `false` to stop.
    pub fn new(sink: &'a mut dyn FnMut(u32, TextBlock) -> bool) -> Self {
        BlockBuilder { block: TextBlock::default(), index: 0, sink }
    }

    /// Adds a batch. Returns `false` if the sink stopped.
    pub fn push_batch(&mut self, batch: &TextBatch) -> bool {
        self.block.counts += batch.counts;
        for piece in &batch.events {
            let accepts_more = match piece {
                TextEvent::Line(range) => self.line(&batch.text[range.clone()]),
                TextEvent::DocumentEnd => self.end_document(),
            };
            if !accepts_more {
                return false;
            }
        }
        true
    }

    /// Passes on the last block and returns the number of blocks.
    pub fn finish(mut self) -> u32 {
        self.end_document();
        if !self.block.lines.is_empty() || self.block.counts != ReadCounts::default() {
            self.pass_on(None);
        }
        self.index
    }

    fn line(&mut self, line: &str) -> bool {
        let block = &mut self.block;
        let start = block.text.len();
        block.text.push_str(line);
        block.lines.push(start..block.text.len());
        let first = block.lines[block.document_ends.last().copied().unwrap_or(0)].start;
        if block.text.len() - first < LONGEST_DOCUMENT {
            return true;
        }
        block.overlong_documents += 1;
        block.document_ends.push(block.lines.len());
        let origin = block.document(block.document_ends.len() - 1).origin();
        self.pass_on(Some(origin))
    }

    /// Ends the current document, if it has lines.
    fn end_document(&mut self) -> bool {
        let block = &mut self.block;
        if block.lines.len() > block.document_ends.last().copied().unwrap_or(0) {
            block.document_ends.push(block.lines.len());
        } else if block.lines.is_empty() {
            // The document was split exactly at its end.
            block.rest_of = None;
        }
        block.text.len() < BLOCK || self.pass_on(None)
    }

    fn pass_on(&mut self, rest_of: Option<u128>) -> bool {
        let next = TextBlock { rest_of, ..TextBlock::default() };
        let block = std::mem::replace(&mut self.block, next);
        self.index += 1;
        (self.sink)(self.index - 1, block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds blocks of documents of `lengths` bytes, each a single line, from batches of one document.
    fn blocks(lengths: &[usize]) -> Vec<TextBlock> {
        let mut blocks = Vec::new();
        let mut sink = |index, block| {
            assert_eq!(index as usize, blocks.len());
            blocks.push(block);
            true
        };
        let mut builder = BlockBuilder::new(&mut sink);
        for (number, &length) in lengths.iter().enumerate() {
            let line = format!("{number:08} ").repeat(length / 9);
            for part in line.as_bytes().chunks(9 << 17) {
                let text = String::from_utf8(part.to_vec()).unwrap();
                let events = vec![TextEvent::Line(0..text.len())];
                assert!(builder.push_batch(&TextBatch { text, events, ..TextBatch::default() }));
            }
            assert!(builder.push_batch(&TextBatch { events: vec![TextEvent::DocumentEnd], ..TextBatch::default() }));
        }
        let number = builder.finish();
        assert_eq!(number as usize, blocks.len());
        blocks
    }

    #[test]
    fn blocks_hold_whole_documents_and_split_documents_keep_their_fingerprint() {
        let documents: Vec<usize> =
            blocks(&[3 << 20, 3 << 20, 90, 900]).iter().map(|b| b.document_ends.len()).collect();
        assert_eq!(documents, [2, 2]);

        let blocks = blocks(&[900, 40 << 20, 900]);
        assert_eq!(blocks.iter().map(|block| block.document_ends.len()).collect::<Vec<_>>(), [2, 1, 1, 1]);
        let origins: Vec<Vec<u128>> =
            blocks.iter().map(|block| block.documents().map(TextDocument::origin).collect()).collect();
        assert_eq!((origins[0][1], origins[0][1]), (origins[1][0], origins[2][0]));
        assert_ne!(origins[2][0], origins[3][0]);
        assert_eq!(blocks.iter().map(|block| block.overlong_documents).sum::<u64>(), 2);
        let bytes: usize = blocks.iter().flat_map(TextBlock::documents).map(TextDocument::bytes).sum();
        assert_eq!(bytes, 2 * 900 + (40 << 20) / 9 * 9);
    }
}
