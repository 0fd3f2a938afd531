//! [`Tokenizer`]: text to token ids.
//!
//! BERT's WordPiece is implemented in [`wordpiece`](super::wordpiece). The `tokenizers` library runs byte-level BPE, Unigram and other
//! models (`pipeline.rs`), which takes about ten times as long.

use std::ops::Range;

use super::pipeline::Pipeline;
use super::rules::TokenizerRules;
use super::vocabulary::Vocabulary;
use super::wordpiece::{WordPiece, WordRules};
use crate::data::error::Result;

/// A vocabulary with the rules that turn text into its ids.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
}

/// The program that encodes.
#[derive(Clone)]
pub(super) enum Algorithm {
    WordPiece(WordPiece),
    Pipeline(Pipeline),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, {:?})", self.vocabulary.len(), self.rules())
    }
}

impl Tokenizer {
    /// Creates BERT's tokenizer of a vocabulary.
    pub fn new(vocabulary: Vocabulary, rules: WordRules) -> Self {
        let algorithm = Algorithm::WordPiece(WordPiece::new(&vocabulary, rules));
        Tokenizer { vocabulary, algorithm }
    }

    /// Creates a tokenizer that the library runs.
    pub(super) fn of_pipeline(vocabulary: Vocabulary, pipeline: Pipeline) -> Self {
        Tokenizer { vocabulary, algorithm: Algorithm::Pipeline(pipeline) }
    }

    /// Returns the vocabulary.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// Returns the rules, for comparisons.
    pub fn rules(&self) -> TokenizerRules {
        match &self.algorithm {
            Algorithm::WordPiece(word_piece) => TokenizerRules::WordPiece(word_piece.rules()),
            Algorithm::Pipeline(pipeline) => TokenizerRules::Pipeline(pipeline.rules().clone()),
        }
    }

    /// Returns BERT's WordPiece; none for other tokenizers.
    pub fn word_piece(&self) -> Option<&WordPiece> {
        match &self.algorithm {
            Algorithm::WordPiece(word_piece) => Some(word_piece),
            Algorithm::Pipeline(_) => None,
        }
    }

    pub(super) fn algorithm(&self) -> &Algorithm {
        &self.algorithm
    }

    /// Appends the ids of `text` to `ids`, without special tokens. The text of a special token is plain text.
    ///
    /// # Errors
    /// If the text cannot be split into words.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.algorithm {
            Algorithm::WordPiece(word_piece) => word_piece.encode(text, ids),
            Algorithm::Pipeline(pipeline) => pipeline.encode(text, ids),
        }
    }

    /// Appends the ids of a part of a longer text, which `follows` other text and a space, or not. Many tokenizers encode the first
    /// word of a text in another way than later ones.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_part(&self, text: &str, follows: bool, ids: &mut Vec<u32>) -> Result<()> {
        match &self.algorithm {
            Algorithm::Pipeline(pipeline) if follows => pipeline.encode(&format!(" {text}"), ids),
            _ => self.encode(text, ids),
        }
    }

    /// Returns the ids of a text in which the mask token stands for a masked token, without the special tokens around it.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_masked(&self, text: &str) -> Result<Vec<u32>> {
        let word_piece = match &self.algorithm {
            Algorithm::WordPiece(word_piece) => word_piece,
            Algorithm::Pipeline(pipeline) => return pipeline.encode_with_special_tokens(text),
        };
        let mut ids = Vec::new();
        for (index, part) in text.split(self.mask_token()).enumerate() {
            if index > 0 {
                ids.push(self.vocabulary.special().mask);
            }
            word_piece.encode(part, &mut ids)?;
        }
        Ok(ids)
    }

    /// Returns the text of the mask token, such as `[MASK]`.
    pub fn mask_token(&self) -> &str {
        self.vocabulary.token(self.vocabulary.special().mask).expect("the vocabulary has its special tokens")
    }

    /// Returns the bytes of the words of `text`, in order: runs of letters and digits, punctuation marks, and Chinese characters.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn word_ranges(&self, text: &str) -> Result<Vec<Range<usize>>> {
        self.word_piece().map_or(WordRules::bert(false), WordPiece::rules).word_ranges(text)
    }

    /// Returns the bytes of `text` that each of its tokens stands for; `follows` as in [`Tokenizer::encode_part`]. None for
    /// WordPiece, whose tokens are found by their text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub(in crate::data) fn token_ranges(&self, text: &str, follows: bool) -> Option<Result<Vec<Range<usize>>>> {
        let Algorithm::Pipeline(pipeline) = &self.algorithm else { return None };
        Some(match follows {
            false => pipeline.token_ranges(text),
            true => pipeline.token_ranges(&format!(" {text}")).map(|ranges| {
                ranges.into_iter().map(|range| range.start.saturating_sub(1)..range.end.saturating_sub(1)).collect()
            }),
        })
    }
}
