//! Examples of one segment, as RoBERTa makes them (arXiv 1907.11692, section 4.2): consecutive whole sentences while they
//! fit. With FULL-SENTENCES an example goes on into the next document, behind one more `[SEP]`; with DOC-SENTENCES it
//! ends where its document does.
//!
//! Documents are taken in groups that no example reaches over, so that each group can be cut by itself. Nothing of the cut
//! is random: masks and order are drawn anew in every epoch, boundaries are not.

use std::ops::Range;

use crate::rng::Stream;

use super::config::ExampleMode;
use super::layout::{ExampleLayout, IGNORED_LABEL, Segment};
use crate::data::store::documents::Documents;

/// Documents of a group of FULL-SENTENCES: enough for the examples that end early with one to be few.
const DOCUMENTS_TOGETHER: usize = 256;

/// A sentence by its document (index in the split) and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub document: usize,
    pub sentence: usize,
}

/// Consecutive documents that are cut together.
pub fn documents_together(mode: ExampleMode) -> usize {
    if mode == ExampleMode::FullSentences { DOCUMENTS_TOGETHER } else { 1 }
}

/// Sets `text` to the example that starts at `first`, in the group that ends before document `end`, and returns where the
/// next one starts; none at the group's end. `room` is what is left of the length beside `[CLS]` and the last `[SEP]`.
///
/// A sentence longer than `room` is an example by itself, whole: see [`window`].
pub fn take(documents: &Documents, first: Place, end: usize, room: u32, text: &mut ExampleLayout) -> Option<Place> {
    text.label = IGNORED_LABEL;
    text.segments.clear();
    let (mut at, mut room) = (first, room);
    loop {
        let starts = documents.get(at.document).starts;
        let sentences = starts.len() - 1;
        let begin = starts[at.sentence];
        let mut next = at.sentence + starts[at.sentence + 1..].partition_point(|&end| end - begin <= room);
        if next == at.sentence && text.segments.is_empty() {
            next += 1;
        }
        if next > at.sentence {
            text.segments.push(Segment { document: at.document, tokens: begin..starts[next] });
            room = room.saturating_sub(starts[next] - begin);
        }
        if next < sentences {
            return Some(Place { document: at.document, sentence: next });
        }
        at = Place { document: at.document + 1, sentence: 0 };
        if at.document == end {
            return None;
        }
        // A separator, and a token behind it.
        if room < 2 {
            return Some(at);
        }
        room -= 1;
    }
}

/// The places at which the examples of the documents `group` start.
pub fn starts(documents: &Documents, group: Range<usize>, room: u32) -> impl Iterator<Item = Place> {
    let mut text = ExampleLayout::default();
    let first = Place { document: group.start, sentence: 0 };
    std::iter::successors(Some(first), move |&place| take(documents, place, group.end, room, &mut text))
}

/// Of a sentence that is longer than `room`, a window of that many tokens, drawn uniformly.
pub fn window(text: &mut ExampleLayout, room: u32, stream: &mut Stream) {
    if let [Segment { tokens, .. }] = text.segments.as_mut_slice()
        && tokens.len() > room as usize
    {
        tokens.start += stream.between(0, tokens.len() as u64 - room as u64) as u32;
        tokens.end = tokens.start + room;
    }
}
