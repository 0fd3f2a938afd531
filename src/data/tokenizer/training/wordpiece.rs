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

use super::word_counts::{LeftOut, WordCounts, count_words};
use crate::data::corpus::{Input, ReadOptions, SentenceMode};
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::special_tokens::SPECIAL_TOKENS;
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::data::tokenizer::word_mark::CONTINUATION_PREFIX;
use crate::data::tokenizer::wordpiece::{LONGEST_WORD, WordRules};
use crate::settings::is_default;

/// The model of a tokenizer that is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerModel {
    /// BERT's WordPiece.
    #[default]
    WordPiece,
    /// Byte-level BPE, as RoBERTa's: every text can be encoded, so `[UNK]` never occurs.
    Bpe,
    /// Unigram, as XLM-RoBERTa's: the pieces of a language model, as SentencePiece trains it.
    Unigram,
}

impl TokenizerModel {
    /// Returns whether every Chinese character is a word of its own unless the user says otherwise: the other models form pieces
    /// of several.
    pub fn tokenizes_chinese_chars(self) -> bool {
        self == TokenizerModel::WordPiece
    }
}

/// Options of vocabulary training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyOptions {
    /// The model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub model: TokenizerModel,
    /// Vocabulary size, including special tokens. The result is smaller if the text does not yield enough tokens.
    pub size: usize,
    /// Pairs that occur less often are not merged.
    pub min_frequency: u64,
    /// Number of characters to keep, the most frequent ones. Words with other characters become `[UNK]`; with BPE, no character
    /// is lost.
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
        VocabularyOptions { model: TokenizerModel::WordPiece, size, min_frequency: 2, alphabet: 1000, rules, reading }
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

/// Requires a vocabulary size that the trainer can allocate.
pub(super) fn check_size(size: usize) -> Result<()> {
    match size > MAX_SIZE {
        true => Err(DataError::setting("vocab_size", format!("at most {MAX_SIZE} tokens"), size)),
        false => Ok(()),
    }
}

/// The error for inputs of which no word takes part; `overlong` words are above `longest` characters.
pub(super) fn no_text(overlong: u64, longest: usize) -> DataError {
    DataError::Corpus {
        subject: "the inputs".into(),
        required: "text to train a vocabulary on".into(),
        found: match overlong {
            0 => "none".into(),
            _ => format!("{overlong} words, all above {longest} characters"),
        },
        next: "name inputs with text".into(),
    }
}

/// The error for a trained vocabulary that is none.
pub(super) fn invalid_vocabulary((required, found): (String, String)) -> DataError {
    DataError::Corpus {
        subject: "the trained vocabulary".into(),
        required,
        found,
        next: "please report this error".into(),
    }
}

/// The error for a training that the library ends.
pub(super) fn training_failed(error: &tokenizers::Error) -> DataError {
    DataError::Corpus {
        subject: "vocabulary training".into(),
        required: "a vocabulary of the text's words".into(),
        found: error.to_string(),
        next: "please report this error with the text".into(),
    }
}

/// Merges the most frequent pairs in `words` until the vocabulary, which begins with `tokens`, is complete. With a `prefix`, pieces
/// that continue a word have it.
pub(super) fn train_merges<'w>(
    words: impl Iterator<Item = (&'w String, &'w u64)>,
    tokens: &[String],
    options: &VocabularyOptions,
    prefix: Option<&str>,
) -> Result<BPE> {
    let mut trainer = BpeTrainer::builder()
        .vocab_size(options.size)
        .min_frequency(options.min_frequency)
        .show_progress(false)
        // The trainer assigns these ids in this order. With an alphabet limit of 0 it adds no other character.
        .special_tokens(tokens.iter().map(|token| AddedToken::from(token.clone(), true)).collect())
        .limit_alphabet(0);
    if let Some(prefix) = prefix {
        trainer = trainer.continuing_subword_prefix(prefix.into());
    }
    let mut model = BPE::default();
    let words = words.map(|(word, &count)| (word.as_str().into(), count)).collect();
    trainer.build().do_train(&words, &mut model).map_err(|error| training_failed(&error))?;
    Ok(model)
}

/// Returns the tokens of a model by id.
pub(super) fn tokens_of(model: &BPE) -> Vec<String> {
    let mut by_id: Vec<(u32, String)> = model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
    by_id.sort_unstable();
    by_id.into_iter().map(|(_, token)| token).collect()
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
