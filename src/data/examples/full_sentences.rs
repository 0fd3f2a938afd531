//! Examples of one segment, as in RoBERTa (arXiv 1907.11692, section 4.2): as many consecutive whole sentences as fit.
//! With FULL-SENTENCES, an example continues into the next document after another `[SEP]`; with DOC-SENTENCES it ends
//! with its document.
//!
//! Documents are taken in groups that no example crosses, so that groups can be processed independently. Boundaries are
//! not random; masks and order change in every epoch.

use std::ops::Range;

use crate::rng::Stream;

use super::config::ExampleMode;
use super::layout::{ExampleLayout, Segment};
use crate::batch::IGNORED_LABEL;
use crate::data::store::documents::Documents;

/// Documents per group in FULL-SENTENCES mode: enough that few examples end early with their group.
const GROUP_SIZE: usize = 256;

/// A sentence, by its document (index in the split) and its number in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentenceIndex {
    /// Index of the document in the split.
    pub document: usize,
    /// Index of the sentence in the document.
    pub sentence: usize,
}

/// Returns the number of consecutive documents in a group.
pub fn group_size(mode: ExampleMode) -> usize {
    if mode == ExampleMode::FullSentences { GROUP_SIZE } else { 1 }
}

/// Sets `layout` to the example that starts at `first`, in the group that ends before document `end`. Returns the start
/// of the next example, or `None` at the group's end. `room` is the number of tokens besides `[CLS]` and the last
/// `[SEP]`.
///
/// A sentence longer than `room` is a whole example of its own: see [`truncate_sentence`].
pub fn next_example(
    documents: &Documents,
    first: SentenceIndex,
    end: usize,
    room: u32,
    layout: &mut ExampleLayout,
) -> Option<SentenceIndex> {
    layout.label = IGNORED_LABEL;
    layout.segments.clear();
    let (mut at, mut room) = (first, room);
    loop {
        let starts = documents.get(at.document).starts;
        let sentences = starts.len() - 1;
        let begin = starts[at.sentence];
        let mut next = at.sentence + starts[at.sentence + 1..].partition_point(|&end| end - begin <= room);
        if next == at.sentence && layout.segments.is_empty() {
            next += 1;
        }
        if next > at.sentence {
            layout.segments.push(Segment { document: at.document, tokens: begin..starts[next] });
            room = room.saturating_sub(starts[next] - begin);
        }
        if next < sentences {
            return Some(SentenceIndex { document: at.document, sentence: next });
        }
        at = SentenceIndex { document: at.document + 1, sentence: 0 };
        if at.document == end {
            return None;
        }
        // A separator and at least one token after it.
        if room < 2 {
            return Some(at);
        }
        room -= 1;
    }
}

/// Iterates over the starts of the examples in the documents `group`.
pub fn starts(documents: &Documents, group: Range<usize>, room: u32) -> impl Iterator<Item = SentenceIndex> {
    let mut layout = ExampleLayout::default();
    let first = SentenceIndex { document: group.start, sentence: 0 };
    std::iter::successors(Some(first), move |&place| next_example(documents, place, group.end, room, &mut layout))
}

/// Reduces a sentence longer than `room` to a uniformly drawn window of that many tokens.
pub fn truncate_sentence(layout: &mut ExampleLayout, room: u32, stream: &mut Stream) {
    if let [Segment { tokens, .. }] = layout.segments.as_mut_slice()
        && tokens.len() > room as usize
    {
        tokens.start += stream.between(0, tokens.len() as u64 - room as u64) as u32;
        tokens.end = tokens.start + room;
    }
}
