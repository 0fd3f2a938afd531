//! Counts the words of a text.

use std::collections::HashMap;
use std::ops::{AddAssign, Range};

use rayon::prelude::*;

use super::signs::lost_signs;
use crate::data::corpus::{Input, ReadOptions, TextEvent, read_text};
use crate::data::error::Result;
use crate::data::tokenizer::wordpiece::{LONGEST_WORD, WordRules, is_longer};

/// Counts of the words and signs of a text that the training or the extension of a vocabulary left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Words that are too long to take part: above 100 characters for WordPiece, where they are always `[UNK]`, and above 1,000 for
    /// other models.
    pub overlong_words: u64,
    /// Vowel signs and similar marks that the stripping of accents removed, although they make other words.
    pub signs: u64,
    /// Occurrences of rare words, left out because the text has more different words than are held in memory.
    pub rare_words: u64,
}

impl AddAssign for LeftOut {
    fn add_assign(&mut self, other: LeftOut) {
        self.overlong_words += other.overlong_words;
        self.signs += other.signs;
        self.rare_words += other.rare_words;
    }
}

/// Splits lines into the words of which a vocabulary is made.
pub(super) trait SplitWords: Sync {
    /// Returns whether accents are removed.
    fn strips_accents(&self) -> bool;

    /// Returns the characters of the longest word that takes part.
    fn longest(&self) -> usize;

    /// Calls `each` with every word of `line`, in order.
    fn split(&self, line: &str, each: impl FnMut(&str)) -> Result<()>;
}

impl SplitWords for WordRules {
    fn strips_accents(&self) -> bool {
        self.strip_accents
    }

    /// Longer words are always `[UNK]`.
    fn longest(&self) -> usize {
        LONGEST_WORD
    }

    fn split(&self, line: &str, each: impl FnMut(&str)) -> Result<()> {
        self.words(line, each)
    }
}

/// The words of a text, and how often each occurs.
#[derive(Default)]
pub(super) struct WordCounts {
    /// The occurrences of each word.
    pub counts: HashMap<String, u64>,
    /// The counts of what was left out.
    pub left_out: LeftOut,
}

impl WordCounts {
    /// Counts the words of a line.
    fn line(&mut self, line: &str, words: &impl SplitWords) -> Result<()> {
        if words.strips_accents() {
            self.left_out.signs += lost_signs(line);
        }
        let WordCounts { counts, left_out } = self;
        words.split(line, |word| match counts.get_mut(word) {
            _ if is_longer(word, words.longest()) => left_out.overlong_words += 1,
            Some(count) => *count += 1,
            None => drop(counts.insert(word.to_owned(), 1)),
        })
    }

    fn add(&mut self, other: WordCounts) {
        for (word, count) in other.counts {
            *self.counts.entry(word).or_default() += count;
        }
        self.left_out += other.left_out;
    }

    /// Forgets the rarest words if there are more than `most`, until half of that remain at most.
    fn forget_rare(&mut self, most: usize) {
        if self.counts.len() <= most {
            return;
        }
        let WordCounts { counts, left_out } = self;
        for rare in 1.. {
            counts.retain(|_, count| {
                left_out.rare_words += if *count > rare { 0 } else { *count };
                *count > rare
            });
            if counts.len() <= most / 2 {
                return;
            }
        }
    }
}

/// Counts the words of `inputs` in `N` groups of documents. `group_of` returns the group of a document by its number, from 0; `most` is
/// the number of different words of a group that are held in memory.
///
/// # Errors
/// If the inputs cannot be read.
pub(super) fn count_words<const N: usize>(
    inputs: &[Input],
    reading: &ReadOptions,
    words: &impl SplitWords,
    most: usize,
    group_of: &dyn Fn(u64) -> usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<[WordCounts; N]> {
    let mut all: [WordCounts; N] = std::array::from_fn(|_| WordCounts::default());
    let (mut document, mut failure) = (0, None);
    read_text(inputs, reading, progress, &mut |batch| {
        let mut lines: Vec<(usize, Range<usize>)> = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            match event {
                TextEvent::Line(range) => lines.push((group_of(document), range)),
                TextEvent::DocumentEnd => document += 1,
            }
        }
        let count = |mut groups: [WordCounts; N], (group, range): &(usize, Range<usize>)| {
            groups[*group].line(&batch.text[range.clone()], words)?;
            Ok(groups)
        };
        // Each thread counts several hundred lines at once: small tables cost more to merge than to fill.
        let parts = lines
            .par_chunks(256)
            .map(|lines| lines.iter().try_fold(std::array::from_fn(|_| WordCounts::default()), count));
        match parts.collect::<Result<Vec<[WordCounts; N]>>>() {
            Ok(parts) => {
                parts.into_iter().for_each(|part| all.iter_mut().zip(part).for_each(|(all, part)| all.add(part)));
                all.iter_mut().for_each(|group| group.forget_rare(most));
                true
            }
            Err(error) => {
                failure = Some(error);
                false
            }
        }
    })?;
    failure.map_or(Ok(all), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_are_forgotten_when_there_are_too_many() {
        let mut words = WordCounts::default();
        words.line("a a a b b c d e f", &WordRules::bert(true)).unwrap();
        words.forget_rare(6);
        assert_eq!((words.counts.len(), words.left_out.rare_words), (6, 0));
        words.forget_rare(5);
        let mut left: Vec<_> = words.counts.into_iter().collect();
        left.sort();
        assert_eq!(left, [("a".to_owned(), 3), ("b".to_owned(), 2)]);
        assert_eq!(words.left_out.rare_words, 4);
    }
}
