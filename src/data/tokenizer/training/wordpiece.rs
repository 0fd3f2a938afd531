//! Trains a WordPiece vocabulary: special tokens, then characters, then merges found by the `tokenizers` crate.
//!
//! The crate's trainer alone assigns ids in the order of a hash table. Here every character, and every character as a
//! continuation, gets its id before training starts; so merges depend only on counts and ids, and equal text gives
//! equal files.
//!
//! Words that are `[UNK]` whatever the vocabulary is do not take part: those above 100 characters, which would also take
//! time with the square of their length, and those with rare characters.

use std::collections::HashMap;

use super::merges::{check_size, invalid_vocabulary, no_text, tokens_of, train_merges};
use super::options::VocabularyOptions;
use super::word_counts::{LeftOut, WordCounts, count_words};
use crate::data::corpus::Input;
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::special_tokens::SPECIAL_TOKENS;
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::data::tokenizer::word_mark::CONTINUATION_PREFIX;
use crate::data::tokenizer::wordpiece::LONGEST_WORD;

/// A vocabulary, and the counts of words and signs that its training left out.
#[derive(Clone, Debug)]
pub struct TrainedVocabulary {
    /// The vocabulary.
    pub vocabulary: Vocabulary,
    /// The counts of words and signs that were left out.
    pub left_out: LeftOut,
}

/// Trains a WordPiece vocabulary on the text of `inputs`. The distinct words of the text are held in memory.
///
/// # Errors
/// If the inputs cannot be read or hold no text, or if `size` is too large or too small for the characters.
pub fn train_vocabulary(
    inputs: &[Input],
    options: &VocabularyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<TrainedVocabulary> {
    check_size(options.size)?;
    let [WordCounts { counts, left_out, .. }] =
        count_words(inputs, &options.reading, &options.rules, usize::MAX, &|_| 0, progress)?;
    let vocabulary = vocabulary_of(&counts, options, left_out.overlong_words)?;
    Ok(TrainedVocabulary { vocabulary, left_out })
}

/// Trains a vocabulary on words. `overlong` is the number of words that were left out because of their length.
fn vocabulary_of(counts: &HashMap<String, u64>, options: &VocabularyOptions, overlong: u64) -> Result<Vocabulary> {
    let (letters, continuations) = alphabet(counts, options.alphabet);
    let mut tokens: Vec<String> = SPECIAL_TOKENS.map(str::to_owned).to_vec();
    tokens.extend(letters.iter().map(char::to_string));
    tokens.extend(continuations.iter().map(|c| format!("{CONTINUATION_PREFIX}{c}")));
    if letters.is_empty() {
        return Err(no_text(overlong, LONGEST_WORD));
    }
    if options.size < tokens.len() {
        let required = format!("at least {} tokens, for the characters of this text alone", tokens.len());
        return Err(DataError::setting("vocab_size", required, options.size));
    }

    // Words with a character outside the alphabet become [UNK] with any merges.
    let mut letters = letters;
    letters.sort_unstable();
    let words = counts.iter().filter(|(word, _)| word.chars().all(|c| letters.binary_search(&c).is_ok()));
    let model = train_merges(words, &tokens, options, Some(CONTINUATION_PREFIX))?;
    Vocabulary::new(tokens_of(&model)).map_err(invalid_vocabulary)
}

/// Returns the `most` most frequent characters, and those of them that occur inside a word, both ordered by code point.
pub(super) fn alphabet(counts: &HashMap<String, u64>, most: usize) -> (Vec<char>, Vec<char>) {
    let mut characters: HashMap<char, (u64, bool)> = HashMap::new();
    for (word, count) in counts {
        for (i, c) in word.chars().enumerate() {
            let entry = characters.entry(c).or_default();
            entry.0 += count;
            entry.1 |= i > 0;
        }
    }
    let mut alphabet: Vec<(char, (u64, bool))> = characters.into_iter().collect();
    alphabet.sort_unstable_by_key(|&(c, (count, _))| (std::cmp::Reverse(count), c));
    alphabet.truncate(most);
    alphabet.sort_unstable();
    let continuing = alphabet.iter().filter(|(_, (_, continues))| *continues).map(|&(c, _)| c).collect();
    (alphabet.into_iter().map(|(c, _)| c).collect(), continuing)
}
