//! Options of the training of a tokenizer.

use serde::{Deserialize, Serialize};

use crate::data::corpus::{ReadOptions, SentenceMode};
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

    /// Returns the characters of the longest word that takes part in training, whose time grows with the square of the length.
    /// WordPiece reads longer words as `[UNK]` anyway. The other models form pieces of languages without spaces, whose words are long.
    pub fn longest_word(self) -> usize {
        match self {
            TokenizerModel::WordPiece => LONGEST_WORD,
            TokenizerModel::Bpe | TokenizerModel::Unigram => 1000,
        }
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
