//! The token ranges of an example, computed from sentence starts without reading tokens.

use std::ops::Range;

use crate::batch::IGNORED_LABEL;

/// Consecutive tokens of one document, as a non-empty range of its shard's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the document in the split.
    pub document: usize,
    /// The range among the tokens of the document's shard.
    pub tokens: Range<u32>,
}

/// The layout of one example: `[CLS]`, then each segment followed by `[SEP]`; some tokenizers have two between the segments of a
/// pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleLayout {
    /// `a` and `b`; in the modes without pairs, one segment per document.
    pub segments: Vec<Segment>,
    /// The number of `[SEP]` between the segments of a pair.
    pub separators: usize,
    /// 0: `b` follows `a`; 1: `b` is random, or both are swapped; [`IGNORED_LABEL`]: not a pair.
    pub label: i32,
}

impl Default for ExampleLayout {
    fn default() -> Self {
        ExampleLayout { segments: Vec::new(), separators: 1, label: IGNORED_LABEL }
    }
}

impl ExampleLayout {
    /// Returns `true` if the example has two segments with a label.
    pub fn is_pair(&self) -> bool {
        self.label != IGNORED_LABEL
    }

    /// Returns the number of tokens, including `[CLS]` and `[SEP]`.
    pub fn length(&self) -> usize {
        1 + (0..self.segments.len()).map(|i| self.segments[i].tokens.len() + self.separators_behind(i)).sum::<usize>()
    }

    /// Returns the number of `[SEP]` behind segment `i`.
    pub fn separators_behind(&self, i: usize) -> usize {
        if self.is_pair() && i == 0 { self.separators } else { 1 }
    }

    /// Returns the number of tokens before the second segment of a pair: `[CLS] a [SEP]`; otherwise of all.
    pub fn first_segment(&self) -> usize {
        match (self.is_pair(), self.segments.first()) {
            (true, Some(a)) => 1 + a.tokens.len() + self.separators,
            _ => self.length(),
        }
    }
}
