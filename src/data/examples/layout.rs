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

/// The layout of one example: `[CLS]`, then each segment followed by `[SEP]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleLayout {
    /// `a` and `b`; in the modes without pairs, one segment per document.
    pub segments: Vec<Segment>,
    /// 0: `b` follows `a`; 1: `b` is random, or both are swapped; [`IGNORED_LABEL`]: not a pair.
    pub label: i32,
}

impl Default for ExampleLayout {
    fn default() -> Self {
        ExampleLayout { segments: Vec::new(), label: IGNORED_LABEL }
    }
}

impl ExampleLayout {
    /// Returns `true` if the example has two segments with a label.
    pub fn is_pair(&self) -> bool {
        self.label != IGNORED_LABEL
    }

    /// Returns the number of tokens, including `[CLS]` and `[SEP]`.
    pub fn length(&self) -> usize {
        1 + self.segments.iter().map(|segment| segment.tokens.len() + 1).sum::<usize>()
    }

    /// Returns the number of tokens of type 0: `[CLS] a [SEP]` of a pair, otherwise all.
    pub fn first_segment(&self) -> usize {
        match (self.is_pair(), self.segments.first()) {
            (true, Some(a)) => a.tokens.len() + 2,
            _ => self.length(),
        }
    }
}
