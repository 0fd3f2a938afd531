//! Pairs of segments: a document is split into chunks, and a chunk into `a` and `b`. For next sentence prediction, `b`
//! is replaced half of the time by text of another document; for sentence order prediction, `a` and `b` are swapped
//! half of the time.
//!
//! The rules are those of `create_instances_from_document` in google-research/bert, `create_pretraining_data.py`, with
//! two differences. The other document is drawn from all others; there, after ten draws of the same document, "random"
//! text may come from the document itself. And each draw comes from a key instead of one generator, so that any pair
//! can be built alone. Sentence order follows the file of the same name in google-research/albert: a chunk of a single
//! sentence has no order and gets a random `b` there, too.
//!
//! This module reads no tokens: lengths suffice, and an [`ExampleLayout`] holds the token ranges to read.

use std::ops::Range;

use crate::rng::{Key, Stream};

use super::config::ExampleMode;
use super::layout::{ExampleLayout, Segment};
use crate::data::store::documents::{Document, Documents};

/// Splits one document into chunks and pairs.
#[derive(Clone, Copy, Debug)]
pub struct PairSampler {
    key: Key,
    mode: ExampleMode,
    /// Tokens after which a chunk is complete.
    target: u32,
    max_tokens: u32,
}

/// Consecutive sentences of one document, of which those before `a_end` are `a`.
#[derive(Clone, Debug)]
struct Chunk {
    sentences: Range<usize>,
    a_end: usize,
    is_random_next: bool,
}

impl Chunk {
    /// Returns the first sentence of the next chunk. A chunk with a random `b` returns the sentences it did not use.
    fn next(&self) -> usize {
        if self.is_random_next { self.a_end } else { self.sentences.end }
    }
}

impl PairSampler {
    /// Creates the sampler of the document with the key `key`. `max_tokens` is the room for `a` and `b`. With
    /// probability `short_seq_prob` the whole document is split for a shorter target, to train on short sequences, too.
    pub fn new(key: Key, mode: ExampleMode, max_tokens: u32, short_seq_prob: f64) -> Self {
        // Draws of chunks use the key itself, indexed by their first sentence.
        let mut stream = key.fold_in(0).stream();
        let target = match stream.uniform() < short_seq_prob {
            true => stream.between(2, max_tokens as u64) as u32,
            false => max_tokens,
        };
        PairSampler { key, mode, target, max_tokens }
    }

    /// Returns the first sentence of each chunk of the document; each chunk gives one pair. `starts` as in
    /// [`Document::starts`].
    pub fn chunk_starts(self, starts: &[u32]) -> impl Iterator<Item = usize> {
        let first = (starts.len() > 1).then_some(0);
        std::iter::successors(first, move |&first| {
            let next = self.chunk(starts, first).next();
            (next + 1 < starts.len()).then_some(next)
        })
    }

    /// Returns the chunk that starts at sentence `first` and ends when the target is reached or the document ends.
    fn chunk(&self, starts: &[u32], first: usize) -> Chunk {
        let target = starts[first].saturating_add(self.target);
        let sentences = first..end_of_segment(starts, first, target);
        if sentences.len() == 1 {
            return Chunk { a_end: sentences.end, sentences, is_random_next: true };
        }
        // A chunk starts at each sentence at most once, so the sentence indexes its one draw: the lowest bit is the
        // coin, and the upper half selects the first sentence of `b` (within 2⁻³² of uniform).
        let bits = self.key.bits(first as u64);
        let a_end = first + 1 + (((bits >> 32) * (sentences.len() as u64 - 1)) >> 32) as usize;
        Chunk { a_end, sentences, is_random_next: self.mode == ExampleMode::NextSentence && bits & 1 == 0 }
    }

    /// Sets `layout` to the pair of the chunk that starts at sentence `first` of `document`. Draws from `stream`
    /// everything specific to this epoch: the random `b`, the swap, the truncation.
    ///
    /// `documents` are all documents of the split; there must be at least two.
    pub fn pair(
        &self,
        documents: &Documents,
        document: &Document,
        first: usize,
        stream: &mut Stream,
        layout: &mut ExampleLayout,
    ) {
        let Chunk { sentences, a_end, is_random_next } = self.chunk(document.starts, first);
        let starts = document.starts;
        let mut a = Segment { document: document.index, tokens: starts[first]..starts[a_end] };
        let mut b = if is_random_next {
            // Uniform over the others: skips this document's own index.
            let draw = stream.below(documents.len() as u64 - 1) as usize;
            let other = documents.get(if draw < document.index { draw } else { draw + 1 });
            let first = stream.below(other.starts.len() as u64 - 1) as usize;
            let target = other.starts[first].saturating_add(self.target.saturating_sub(a.tokens.len() as u32));
            let end = end_of_segment(other.starts, first, target);
            Segment { document: other.index, tokens: other.starts[first]..other.starts[end] }
        } else {
            Segment { document: document.index, tokens: starts[a_end]..starts[sentences.end] }
        };
        let swapped = self.mode == ExampleMode::SentenceOrder && !is_random_next && stream.uniform() < 0.5;
        if swapped {
            std::mem::swap(&mut a, &mut b);
        }
        truncate(&mut a.tokens, &mut b.tokens, self.max_tokens, stream);
        layout.segments.clear();
        layout.segments.extend([a, b]);
        layout.label = (is_random_next || swapped) as i32;
    }
}

/// Returns the (exclusive) end of the shortest run of sentences from `first` that reaches token `target`: at least one
/// sentence, at most up to the document's end.
fn end_of_segment(starts: &[u32], first: usize, target: u32) -> usize {
    let sentences = starts.len() - 1;
    (first + 1..sentences).find(|&end| starts[end] >= target).unwrap_or(sentences)
}

/// Removes single tokens from the longer range (from `b` if they are equal), at the front or back by a coin toss, until
/// both have at most `max` tokens together.
fn truncate(a: &mut Range<u32>, b: &mut Range<u32>, max: u32, stream: &mut Stream) {
    while a.len() + b.len() > max as usize {
        let longer = if a.len() > b.len() { &mut *a } else { &mut *b };
        if stream.uniform() < 0.5 {
            longer.start += 1;
        } else {
            longer.end -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the starts of sentences of these lengths.
    fn starts(lengths: &[u32]) -> Vec<u32> {
        let mut sum = 0;
        let ends = lengths.iter().map(|length| {
            sum += length;
            sum
        });
        std::iter::once(0).chain(ends).collect()
    }

    #[test]
    fn chunks_reach_the_target_and_cover_every_sentence() {
        let lengths: Vec<u32> = (0..200).map(|i| 1 + (i * 7) % 40).collect();
        let starts = starts(&lengths);
        for seed in 0..50 {
            let cut = PairSampler::new(Key::new(seed), ExampleMode::NextSentence, 125, 0.1);
            let firsts: Vec<usize> = cut.chunk_starts(&starts).collect();
            let mut covered = 0;
            for (i, &first) in firsts.iter().enumerate() {
                let chunk = cut.chunk(&starts, first);
                let tokens = |range: Range<usize>| starts[range.end] - starts[range.start];
                let Range { start, end } = chunk.sentences.clone();
                assert!(end == 200 || tokens(start..end) >= cut.target);
                assert!(end - start == 1 || tokens(start..end - 1) < cut.target, "a sentence too many");
                assert!(chunk.a_end > start && (chunk.a_end < end || end - start == 1));
                assert_eq!(start, covered, "no sentence is left out or used twice as `a`");
                covered = chunk.next();
                assert_eq!(firsts.get(i + 1).copied().unwrap_or(200), covered);
            }
            assert_eq!(covered, 200);
        }
    }

    #[test]
    fn a_one_sentence_document_gives_one_random_pair() {
        let starts = starts(&[300]);
        let cut = PairSampler::new(Key::new(1), ExampleMode::NextSentence, 125, 0.0);
        assert_eq!(cut.chunk_starts(&starts).collect::<Vec<_>>(), [0]);
        assert!(cut.chunk(&starts, 0).is_random_next);
    }

    #[test]
    fn a_tenth_of_the_documents_is_split_short() {
        let short = (0..20_000)
            .filter(|&i| PairSampler::new(Key::new(5).fold_in(i), ExampleMode::NextSentence, 125, 0.1).target < 125)
            .count();
        // A draw of exactly 125 is short but not visible: 0.1 · 123/124. Five standard deviations are 211.
        assert!(short.abs_diff(1984) < 212, "{short} of 20000");
    }

    #[test]
    fn truncation_shortens_the_longer_at_both_ends() {
        let mut front = 0;
        for seed in 0..1000 {
            let (mut a, mut b) = (10..70, 100..190);
            truncate(&mut a, &mut b, 125, &mut Key::new(seed).stream());
            // `b` stays the longer one until both fit: all 25 tokens are removed from it.
            assert_eq!((a.len(), b.len()), (60, 65));
            front += b.start - 100;
        }
        // 25,000 coin tosses; five standard deviations are 395.
        assert!(front.abs_diff(12_500) < 396, "{front}");
    }
}
