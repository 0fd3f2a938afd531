//! Trains a WordPiece vocabulary: special tokens, then characters, then merges found by the `tokenizers` crate.
//!
//! The crate's trainer alone assigns ids in the order of a hash table. Here every character, and every character as a
//! continuation, gets its id before training starts; so merges depend only on counts and ids, and equal text gives
//! equal files.
//!
//! Words that are `[UNK]` whatever the vocabulary is do not take part: those above 100 characters, which would also take
//! time with the square of their length, and those with rare characters.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{BPE, BpeTrainer};

use super::vocabulary::{CONTINUATION_PREFIX, SPECIAL_TOKENS, Vocabulary};
use super::word_counts::{LeftOut, WordCounts, count_words};
use super::wordpiece::{LONGEST_WORD, WordRules};
use crate::data::corpus::{Input, ReadOptions, SentenceMode};
use crate::data::error::{DataError, Result};

/// Options of vocabulary training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyOptions {
    /// Vocabulary size, including special tokens. The result is smaller if the text does not yield enough tokens.
    pub size: usize,
    /// Pairs that occur less often are not merged.
    pub min_frequency: u64,
    /// Number of characters to keep, the most frequent ones. Words with other characters become `[UNK]`.
    pub alphabet: usize,
    /// The rules that split text into words.
    pub rules: WordRules,
    /// Words end at line ends, so lines need not be sentences.
    pub reading: ReadOptions,
}

impl VocabularyOptions {
    /// Returns the usual options: pairs that occur at least twice, and 1,000 characters.
    pub fn new(size: usize, lowercase: bool) -> Self {
        let rules = WordRules::bert(lowercase);
        let reading = ReadOptions { sentences: SentenceMode::Lines, ..ReadOptions::default() };
        VocabularyOptions { size, min_frequency: 2, alphabet: 1000, rules, reading }
    }
}

/// Largest vocabulary size: the trainer allocates all tokens at the start.
const MAX_SIZE: usize = 1 << 24;

/// A vocabulary, and the counts of words and signs that its training left out.
#[derive(Clone, Debug)]
pub struct TrainedVocabulary {
    /// The vocabulary.
    pub vocabulary: Vocabulary,
    /// The counts of words and signs that were left out.
    pub left_out: LeftOut,
}

/// Trains a vocabulary on the text of `inputs`. The distinct words of the text are held in memory.
///
/// # Errors
/// If the inputs cannot be read or hold no text, or if `size` is too large or too small for the characters.
pub fn train_vocabulary(
    inputs: &[Input],
    options: &VocabularyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<TrainedVocabulary> {
    if options.size > MAX_SIZE {
        return Err(DataError::setting("vocab_size", format!("at most {MAX_SIZE} tokens"), options.size));
    }
    let [WordCounts { counts, left_out, .. }] =
        count_words(inputs, &options.reading, options.rules, usize::MAX, &|_| 0, progress)?;
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
        return Err(DataError::Corpus {
            subject: "the inputs".into(),
            required: "text to train a vocabulary on".into(),
            found: match overlong {
                0 => "none".into(),
                _ => format!("{overlong} words, all above {LONGEST_WORD} characters"),
            },
            next: "name inputs with text".into(),
        });
    }
    if options.size < tokens.len() {
        let required = format!("at least {} tokens, for the characters of this text alone", tokens.len());
        return Err(DataError::setting("vocab_size", required, options.size));
    }

    // Words with a character outside the alphabet become [UNK] with any merges.
    let mut letters = letters;
    letters.sort_unstable();
    let words = counts.iter().filter(|(word, _)| word.chars().all(|c| letters.binary_search(&c).is_ok()));
    let trainer = BpeTrainer::builder()
        .vocab_size(options.size)
        .min_frequency(options.min_frequency)
        .show_progress(false)
        .continuing_subword_prefix(CONTINUATION_PREFIX.into())
        // The trainer assigns these ids in this order. With an alphabet limit of 0 it adds no other character.
        .special_tokens(tokens.iter().map(|token| AddedToken::from(token.clone(), true)).collect())
        .limit_alphabet(0)
        .build();
    let mut model = BPE::default();
    let failed = |e: tokenizers::Error| DataError::Corpus {
        subject: "vocabulary training".into(),
        required: "merges of the text's words".into(),
        found: e.to_string(),
        next: "please report this error with the text".into(),
    };
    trainer
        .do_train(&words.map(|(word, &count)| (word.as_str().into(), count)).collect(), &mut model)
        .map_err(failed)?;

    let mut by_id: Vec<(u32, String)> = model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    by_id.sort_unstable();
    Vocabulary::new(by_id.into_iter().map(|(_, token)| token).collect()).map_err(|(required, found)| {
        DataError::Corpus {
            subject: "the trained vocabulary".into(),
            required,
            found,
            next: "please report this error".into(),
        }
    })
}

/// Returns the `most` most frequent characters, and those of them that occur inside a word, both ordered by code point.
fn alphabet(counts: &HashMap<String, u64>, most: usize) -> (Vec<char>, Vec<char>) {
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
