//! Chooses the pieces that shorten a text most when a vocabulary gets them.
//!
//! The *cost* of a word is its number of pieces; that of a word that becomes `[UNK]` is its number of characters plus one, so that a
//! piece that makes it readable is worth something, but at most 5, so that ruled lines are not worth more than words. A piece saves
//!
//! ```text
//! Σ over words w of  count(w) · (cost of w with the vocabulary − cost of w with the vocabulary and the piece)
//! ```
//!
//! Pieces are chosen one after the other, each the one that saves most with those before it; equal ones in the order of their tokens. The
//! candidates are the spans of consecutive pieces of a word: whole words, beginnings of words, and continuations (`##…`). Of words with
//! more than 12 pieces, only the whole word is one.
//!
//! Greedy longest match chooses a span from its first position on, and continues behind it as before. So the sum over the spans of all
//! words is a good estimate of what a piece saves, and is kept up to date as words get fewer pieces. It is not exact, because a piece may also
//! match a beginning of other pieces and change how the rest of a word is split, for better or worse. The best candidate is therefore split
//! into all words that it changes before it is chosen. A piece matches only where its own first piece was: these words are listed by piece.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::data::tokenizer::pieces::{Pieces, piece_of};
use crate::data::tokenizer::word_mark::CONTINUATION_PREFIX;

/// The cost of a word that becomes `[UNK]`, at most.
const MOST_OF_UNKNOWN: usize = 5;

/// The pieces of a word whose spans are candidates, at most.
const MOST_PARTS: usize = 12;

/// A piece that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewPiece {
    /// The token, with `##` if it continues a word.
    pub token: String,
    /// The number of pieces that it saves in the text.
    pub saved: u64,
    /// The number of its occurrences in the text, when it was chosen.
    pub occurrences: u64,
}

/// A part of a word: a piece, or a character that starts no piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// The end of the part in the word, in bytes.
    end: usize,
    /// Whether it is a piece.
    known: bool,
}

/// A word of the text.
struct Word<'w> {
    text: &'w str,
    count: u64,
    parts: Vec<Part>,
}

/// Splits a text into parts by greedy longest match, with the piece `new` beside those of the vocabulary. The text is a word, or the rest of
/// one (`continues`).
fn split(pieces: &Pieces, text: &str, continues: bool, new: Option<&str>) -> Vec<Part> {
    let new = new.map(piece_of);
    let (mut parts, mut end) = (Vec::new(), 0);
    while let Some(character) = text[end..].chars().next() {
        let (rest, continues) = (&text[end..], continues || end > 0);
        let old = pieces.longest(rest, continues).map_or(0, |(_, bytes)| bytes);
        let new = new.filter(|(continuing, new)| *continuing == continues && rest.starts_with(new));
        let bytes = old.max(new.map_or(0, |(_, new)| new.len()));
        end += if bytes > 0 { bytes } else { character.len_utf8() };
        parts.push(Part { end, known: bytes > 0 });
    }
    parts
}

/// Returns the cost of a word.
fn cost(text: &str, parts: &[Part]) -> u64 {
    let cost = match parts.iter().all(|part| part.known) {
        true => parts.len(),
        false => MOST_OF_UNKNOWN.min(text.chars().count() + 1),
    };
    cost as u64
}

/// Returns the token of the parts `first` to `last` of a word.
fn token(text: &str, parts: &[Part], first: usize, last: usize) -> String {
    match first {
        0 => text[..parts[last].end].to_owned(),
        _ => format!("{CONTINUATION_PREFIX}{}", &text[parts[first - 1].end..parts[last].end]),
    }
}

/// Returns the token of each part of a word.
fn tokens(text: &str, parts: &[Part]) -> Vec<String> {
    (0..parts.len()).map(|part| token(text, parts, part, part)).collect()
}

/// Returns the spans of a word, each as the token of a candidate and what it saves in one occurrence of the word.
fn spans(text: &str, parts: &[Part]) -> Vec<(String, u64)> {
    let (length, before) = (parts.len(), cost(text, parts));
    let saved = |first: usize, last: usize| {
        let others_are_known = parts[..first].iter().chain(&parts[last + 1..]).all(|part| part.known);
        let after = (length - (last - first)) as u64;
        before.checked_sub(after).filter(|saved| *saved > 0 && others_are_known)
    };
    let ends: Vec<(usize, usize)> = match length {
        0 => Vec::new(),
        1..=MOST_PARTS => (0..length).flat_map(|first| (first..length).map(move |last| (first, last))).collect(),
        _ => vec![(0, length - 1)],
    };
    ends.into_iter().filter_map(|(first, last)| Some((token(text, parts, first, last), saved(first, last)?))).collect()
}

/// The change of all words by a new piece.
struct Change {
    /// The pieces saved in some words, less those added in others.
    saved: i64,
    /// The occurrences of the words that it changes.
    occurrences: u64,
    /// The new parts of these words, by their index.
    words: Vec<(usize, Vec<Part>)>,
}

/// An entry of the queue; the largest is the next one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    saved: u64,
    token: Reverse<String>,
    /// The number of pieces that had been chosen when `saved` was computed from all words; none for an estimate.
    exact_after: Option<usize>,
}

/// The state of the choice.
struct Choice<'w> {
    pieces: Pieces,
    words: Vec<Word<'w>>,
    /// The words that have a part, by its token. A word stays in the list of a part that it has lost.
    words_with: HashMap<String, Vec<usize>>,
    /// The estimate of each candidate.
    estimates: HashMap<String, u64>,
    queue: BinaryHeap<Entry>,
}

impl<'w> Choice<'w> {
    fn new(pieces: &Pieces, counts: &'w HashMap<String, u64>) -> Self {
        let mut choice = Choice {
            pieces: pieces.clone(),
            words: Vec::with_capacity(counts.len()),
            words_with: HashMap::new(),
            estimates: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        for (text, &count) in counts {
            choice.words.push(Word { text, count, parts: Vec::new() });
            choice.set_parts(choice.words.len() - 1, split(pieces, text, false, None));
        }
        choice.queue = choice.estimates.iter().map(|(token, &saved)| estimate(token, saved)).collect();
        choice
    }

    /// Replaces the parts of a word, and brings lists and estimates up to date. Estimates that grow are queued again.
    fn set_parts(&mut self, index: usize, parts: Vec<Part>) {
        let word = &mut self.words[index];
        let before = std::mem::replace(&mut word.parts, parts);
        for (token, saved) in spans(word.text, &before) {
            if let Some(estimate) = self.estimates.get_mut(&token) {
                *estimate -= saved * word.count;
            }
        }
        for (token, saved) in spans(word.text, &word.parts) {
            let total = self.estimates.entry(token.clone()).or_default();
            *total += saved * word.count;
            if !before.is_empty() {
                self.queue.push(estimate(&token, *total));
            }
        }
        let earlier = tokens(word.text, &before);
        for token in tokens(word.text, &word.parts).into_iter().filter(|token| !earlier.contains(token)) {
            self.words_with.entry(token).or_default().push(index);
        }
    }

    /// Computes what a piece changes, over all words.
    fn change(&self, token: &str) -> Change {
        let (continues, text) = piece_of(token);
        let first = split(&self.pieces, text, continues, None).first().map_or(0, |part| part.end);
        let first = format!("{}{}", if continues { CONTINUATION_PREFIX } else { "" }, &text[..first]);
        let mut indices = self.words_with.get(&first).cloned().unwrap_or_default();
        indices.sort_unstable();
        indices.dedup();
        let mut change = Change { saved: 0, occurrences: 0, words: Vec::new() };
        for index in indices {
            let word = &self.words[index];
            if !word.text.contains(text) {
                continue;
            }
            let parts = split(&self.pieces, word.text, false, Some(token));
            if parts != word.parts {
                change.saved +=
                    (cost(word.text, &word.parts) as i64 - cost(word.text, &parts) as i64) * word.count as i64;
                change.occurrences += word.count;
                change.words.push((index, parts));
            }
        }
        change
    }

    /// Returns the piece that saves most of those with `min_frequency` occurrences, after `chosen` others; none if no piece saves anything.
    fn next(&mut self, chosen: usize, min_frequency: u64) -> Option<(NewPiece, Change)> {
        while let Some(Entry { saved, token: Reverse(token), exact_after }) = self.queue.pop() {
            let current = self.estimates.get(&token).copied().unwrap_or_default();
            if exact_after.is_none() && current != saved {
                if (1..saved).contains(&current) {
                    self.queue.push(estimate(&token, current));
                }
                continue;
            }
            let change = self.change(&token);
            let exact = u64::try_from(change.saved).unwrap_or_default();
            if exact == 0 || change.occurrences < min_frequency {
                continue;
            }
            if exact_after == Some(chosen) {
                return Some((NewPiece { token, saved: exact, occurrences: change.occurrences }, change));
            }
            self.queue.push(Entry { saved: exact, token: Reverse(token), exact_after: Some(chosen) });
        }
        None
    }
}

/// Returns the entry of an estimate.
fn estimate(token: &str, saved: u64) -> Entry {
    Entry { saved, token: Reverse(token.to_owned()), exact_after: None }
}

/// Chooses up to `most` new pieces for the words of a text, given with their counts. Each occurs in at least `min_frequency` words of the
/// text. The result depends on the words and counts alone.
pub(super) fn choose_pieces(
    pieces: &Pieces,
    counts: &HashMap<String, u64>,
    most: usize,
    min_frequency: u64,
) -> Vec<NewPiece> {
    let mut choice = Choice::new(pieces, counts);
    let mut chosen = Vec::new();
    while chosen.len() < most
        && let Some((piece, change)) = choice.next(chosen.len(), min_frequency)
    {
        // The id does not matter for the choice.
        choice.pieces.insert(&piece.token, 0);
        change.words.into_iter().for_each(|(index, parts)| choice.set_parts(index, parts));
        chosen.push(piece);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(tokens: &str) -> Pieces {
        let mut pieces = Pieces::default();
        tokens.split(' ').for_each(|token| pieces.insert(token, 0));
        pieces
    }

    fn counts(words: &[(&str, u64)]) -> HashMap<String, u64> {
        words.iter().map(|&(word, count)| (word.to_owned(), count)).collect()
    }

    fn chosen(tokens: &str, words: &[(&str, u64)], most: usize) -> Vec<(String, u64, u64)> {
        let chosen = choose_pieces(&pieces(tokens), &counts(words), most, 1);
        chosen.into_iter().map(|piece| (piece.token, piece.saved, piece.occurrences)).collect()
    }

    fn piece(token: &str, saved: u64, occurrences: u64) -> (String, u64, u64) {
        (token.to_owned(), saved, occurrences)
    }

    const LETTERS: &str = "a b c d ##a ##b ##c ##d";

    #[test]
    fn the_piece_that_saves_most_comes_first() {
        // The whole word saves 3 · 4, its end 2 · 6 with those of the other word.
        assert_eq!(chosen(LETTERS, &[("abcd", 4), ("bbcd", 1)], 1), [piece("abcd", 12, 4)]);
        assert_eq!(chosen(LETTERS, &[("abcd", 4), ("bbcd", 3)], 2), [piece("##bcd", 14, 7), piece("abcd", 4, 4)]);
        // Equal ones in the order of their tokens; nothing is left to save.
        assert_eq!(chosen(LETTERS, &[("ab", 1), ("ba", 1), ("c", 9)], 9), [piece("ab", 1, 1), piece("ba", 1, 1)]);
    }

    #[test]
    fn a_piece_that_makes_other_words_longer_is_worth_less() {
        // "ab" saves one piece of "abd", but "a ##bcd" becomes "ab ##c ##d".
        let change = Choice::new(&pieces("a ##b ##c ##d ##bcd"), &counts(&[("abd", 3), ("abcd", 2)])).change("ab");
        assert_eq!((change.saved, change.occurrences), (3 - 2, 5));
    }

    #[test]
    fn words_without_pieces_count_as_their_characters_and_one() {
        assert_eq!(chosen(LETTERS, &[("→", 7), ("ab", 3)], 2), [piece("→", 7, 7), piece("ab", 3, 3)]);
        assert_eq!(
            chosen(LETTERS, &[("─────────", 3), ("abcd", 5)], 2),
            [piece("abcd", 15, 5), piece("─────────", 12, 3)]
        );
        // One missing character cures both words, although one has it twice: their costs of 4 become 3.
        let change = Choice::new(&pieces("a é ##a"), &counts(&[("aéa", 5), ("ééé", 5)])).change("##é");
        assert_eq!((change.saved, change.occurrences), (10, 10));
    }

    #[test]
    fn rare_pieces_are_not_chosen() {
        let words = counts(&[("abcd", 2), ("aa", 3)]);
        let tokens: Vec<String> =
            choose_pieces(&pieces(LETTERS), &words, 9, 3).into_iter().map(|piece| piece.token).collect();
        assert_eq!(tokens, ["aa"]);
    }

    proptest! {
        #[test]
        fn the_cost_falls_by_what_each_piece_saves(
            words in prop::collection::hash_map("[a-dé]{1,6}", 1u64..9, 1..12),
            tokens in prop::collection::vec("(##)?[a-d]{1,3}", 0..6),
        ) {
            let mut pieces = pieces(LETTERS);
            tokens.iter().for_each(|token| pieces.insert(token, 0));
            let total = |pieces: &Pieces| -> u64 {
                words.iter().map(|(word, count)| count * cost(word, &split(pieces, word, false, None))).sum()
            };
            for piece in choose_pieces(&pieces.clone(), &words, 20, 1) {
                let before = total(&pieces);
                pieces.insert(&piece.token, 0);
                prop_assert_eq!(before - total(&pieces), piece.saved);
            }
        }
    }
}
