//! The documents of one split, addressed by document and by sentence across all shards.

use super::shard::Counts;
use super::shard_reader::Shard;
use crate::data::error::Result;

/// The documents and sentences of all shards of a split, numbered consecutively.
#[derive(Debug)]
pub struct Documents {
    shards: Vec<Shard>,
    /// Index of each shard's first document and first sentence, and the total as the last element.
    first_document: Vec<usize>,
    first_sentence: Vec<usize>,
}

impl Documents {
    pub(super) fn new(shards: Vec<Shard>) -> Self {
        let sums = |count: fn(&Counts) -> u64| {
            let mut sum = 0;
            let firsts = shards.iter().map(|shard| {
                let first = sum;
                sum += count(&shard.counts()) as usize;
                first
            });
            let mut firsts: Vec<usize> = firsts.collect();
            firsts.push(sum);
            firsts
        };
        let (first_document, first_sentence) = (sums(|c| c.documents), sums(|c| c.sentences));
        Documents { shards, first_document, first_sentence }
    }

    /// Returns the result of `read`, during which no other program has truncated or extended a shard.
    ///
    /// # Errors
    /// If a shard is not as long as when it was opened, before or after `read`; as `read`.
    pub fn unchanged<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        let check = || self.shards.iter().try_for_each(Shard::check_length);
        check()?;
        // What is read beyond the end of a truncated file is zeros, which may be no valid index.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
        check()?;
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Returns the number of documents.
    pub fn len(&self) -> usize {
        self.first_document[self.shards.len()]
    }

    /// Returns `true` for a split without documents.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of sentences of all documents.
    pub fn sentences(&self) -> usize {
        self.first_sentence[self.shards.len()]
    }

    /// Returns the number of documents that have one sentence only, from which no pair of consecutive sentences can be made.
    pub fn of_one_sentence(&self) -> usize {
        self.shards.iter().map(Shard::documents_of_one_sentence).sum()
    }

    /// Returns document `index` of the split.
    pub fn get(&self, index: usize) -> Document<'_> {
        let shard = self.first_document.partition_point(|&first| first <= index) - 1;
        let local = index - self.first_document[shard];
        let reader = &self.shards[shard];
        Document {
            index,
            first_sentence: self.first_sentence[shard] + reader.sentences_of(local).start,
            starts: reader.starts_of(local),
            shard: reader,
        }
    }

    /// Returns the document that holds sentence `sentence` of the split.
    pub fn of_sentence(&self, sentence: usize) -> Document<'_> {
        let shard = self.first_sentence.partition_point(|&first| first <= sentence) - 1;
        let local = self.shards[shard].document_of(sentence - self.first_sentence[shard]);
        self.get(self.first_document[shard] + local)
    }

    /// Returns how often each token of the vocabulary occurs in the split.
    pub fn token_counts(&self, vocabulary_size: usize) -> Vec<u64> {
        let mut sum = vec![0; vocabulary_size];
        for shard in &self.shards {
            for (total, count) in sum.iter_mut().zip(shard.token_counts()) {
                *total += count;
            }
        }
        sum
    }
}

/// One document: the starts of its sentences, and the shard that holds its tokens.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// Index of the document in the split.
    pub index: usize,
    /// Index of its first sentence in the split.
    pub first_sentence: usize,
    /// Start of each sentence among the shard's tokens, and the end of the last one.
    pub starts: &'a [u32],
    /// The shard that holds the document.
    pub shard: &'a Shard,
}
