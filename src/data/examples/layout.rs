//! Which tokens an example holds, known from where sentences start and without reading any.

use std::ops::Range;

/// The label of an example without one, as Hugging Face and PyTorch have it: it counts in no loss.
pub const IGNORED_LABEL: i32 = -100;

/// Consecutive tokens of one document, as a range of its shard's tokens. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Index of the document in the split.
    pub document: usize,
    pub tokens: Range<u32>,
}

/// The text of one example: `[CLS]`, then each segment with a `[SEP]` behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExampleLayout {
    /// `a` and `b`; or, in the modes without pairs, one segment of each document.
    pub segments: Vec<Segment>,
    /// 0: `b` follows `a`; 1: it is random, or both are swapped; [`IGNORED_LABEL`]: not a pair.
    pub label: i32,
}

impl Default for ExampleLayout {
    fn default() -> Self {
        ExampleLayout { segments: Vec::new(), label: IGNORED_LABEL }
    }
}

impl ExampleLayout {
    pub fn is_pair(&self) -> bool {
        self.label != IGNORED_LABEL
    }

    /// Tokens, `[CLS]` and `[SEP]` counted.
    pub fn length(&self) -> usize {
        1 + self.segments.iter().map(|segment| segment.tokens.len() + 1).sum::<usize>()
    }

    /// Tokens of type 0: those of `[CLS] a [SEP]`, or all if this is not a pair.
    pub fn first_segment(&self) -> usize {
        match (self.is_pair(), self.segments.first()) {
            (true, Some(a)) => a.tokens.len() + 2,
            _ => self.length(),
        }
    }
}
