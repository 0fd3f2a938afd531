//! BERT's WordPiece: its normalizer and pre-tokenizer split text into words, and greedy longest match splits words into pieces.
//!
//! Words with non-ASCII characters go through the `tokenizers` crate, which defines the result. ASCII words, nearly all
//! of English, take a faster path to the same words: split at white space, drop control characters, separate
//! punctuation. A test compares the result with the crate's `encode_fast`, id by id.
//!
//! `[MASK]` in a text is plain text, as in google-research/bert: never the special token.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::pieces::{Pieces, piece_of};
use super::vocabulary::Vocabulary;
use crate::data::error::{DataError, Result};

/// Characters of the longest word; longer ones become `[UNK]`, as in every BERT tokenizer.
pub const LONGEST_WORD: usize = 100;

/// The rules that split text into words: the settings of Hugging Face's `BertTokenizer` and `BertNormalizer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenRules", into = "WrittenRules")]
pub struct WordRules {
    /// Lower-case, for an "uncased" model.
    pub lowercase: bool,
    /// Remove accents: decompose characters and drop nonspacing marks. In scripts of India and South-East Asia these
    /// include vowel signs.
    pub strip_accents: bool,
    /// Make every Chinese character a word.
    pub tokenize_chinese_chars: bool,
}

/// [`WordRules`] as files state them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRules {
    lowercase: bool,
    /// Absent if accents are removed if and only if text is lower-cased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strip_accents: Option<bool>,
    /// Absent for `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenize_chinese_chars: Option<bool>,
}

impl From<WrittenRules> for WordRules {
    fn from(written: WrittenRules) -> Self {
        let WrittenRules { lowercase, strip_accents, tokenize_chinese_chars } = written;
        WordRules::from_settings(lowercase, strip_accents, tokenize_chinese_chars)
    }
}

impl From<WordRules> for WrittenRules {
    fn from(rules: WordRules) -> Self {
        WrittenRules {
            lowercase: rules.lowercase,
            strip_accents: rules.written_strip_accents(),
            tokenize_chinese_chars: (!rules.tokenize_chinese_chars).then_some(false),
        }
    }
}

impl std::fmt::Display for WordRules {
    /// Writes the settings, those with BERT's values only if they are not.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "lower-casing {}", self.lowercase)?;
        if let Some(strip_accents) = self.written_strip_accents() {
            write!(f, ", strip_accents {strip_accents}")?;
        }
        if !self.tokenize_chinese_chars {
            write!(f, ", tokenize_chinese_chars false")?;
        }
        Ok(())
    }
}

impl WordRules {
    /// Returns BERT's rules: accents are removed if and only if text is lower-cased, and Chinese characters are words.
    pub const fn bert(lowercase: bool) -> Self {
        WordRules { lowercase, strip_accents: lowercase, tokenize_chinese_chars: true }
    }

    /// Returns the rules of settings that may be absent, as in files of Hugging Face.
    pub fn from_settings(lowercase: bool, strip_accents: Option<bool>, tokenize_chinese_chars: Option<bool>) -> Self {
        WordRules {
            lowercase,
            strip_accents: strip_accents.unwrap_or(lowercase),
            tokenize_chinese_chars: tokenize_chinese_chars.unwrap_or(true),
        }
    }

    /// Returns the settings by name.
    pub(in crate::data) fn settings(self) -> [(&'static str, bool); 3] {
        [
            ("lowercase", self.lowercase),
            ("strip_accents", self.strip_accents),
            ("tokenize_chinese_chars", self.tokenize_chinese_chars),
        ]
    }

    /// Returns `strip_accents` as files state it: nothing if accents are removed if and only if text is lower-cased.
    pub(in crate::data) fn written_strip_accents(self) -> Option<bool> {
        (self.strip_accents != self.lowercase).then_some(self.strip_accents)
    }

    fn normalizer(self) -> BertNormalizer {
        let clean_text = true;
        BertNormalizer::new(clean_text, self.tokenize_chinese_chars, Some(self.strip_accents), self.lowercase)
    }

    /// Calls `each` with every word of `text`, in order.
    pub fn words(self, text: &str, mut each: impl FnMut(&str)) -> Result<()> {
        let mut word = String::with_capacity(32);
        // The normalizer never works across a space.
        for part in text.split([' ', '\t', '\n', '\r']) {
            if !part.is_ascii() {
                self.words_by_crate(part, &mut each)?;
                continue;
            }
            for byte in part.bytes() {
                if byte.is_ascii_punctuation() {
                    if !word.is_empty() {
                        each(&word);
                        word.clear();
                    }
                    each(char::from(byte).encode_utf8(&mut [0; 4]));
                } else if !byte.is_ascii_control() {
                    let byte = if self.lowercase { byte.to_ascii_lowercase() } else { byte };
                    word.push(byte as char);
                }
            }
            if !word.is_empty() {
                each(&word);
                word.clear();
            }
        }
        Ok(())
    }

    fn words_by_crate(self, text: &str, each: &mut impl FnMut(&str)) -> Result<()> {
        for (word, ..) in self.split(text)?.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            each(word);
        }
        Ok(())
    }

    /// Returns the bytes of `text` that each word stands for, in order.
    pub fn word_ranges(self, text: &str) -> Result<Vec<Range<usize>>> {
        let words = self.split(text)?;
        let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte).into_iter();
        Ok(splits.map(|(_, (start, end), _)| start..end).collect())
    }

    /// Splits a text into words by the `tokenizers` crate.
    fn split(self, text: &str) -> Result<PreTokenizedString> {
        let failed = |e: tokenizers::Error| DataError::Corpus {
            subject: "the tokenizer".into(),
            required: "text that it can split into words".into(),
            found: format!("{e}, at {:?}", text.chars().take(40).collect::<String>()),
            next: "remove this text from the input".into(),
        };
        let mut normalized = NormalizedString::from(text);
        self.normalizer().normalize(&mut normalized).map_err(failed)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words).map_err(failed)?;
        Ok(words)
    }
}

/// BERT's WordPiece: the rules of words, and the pieces of a vocabulary.
#[derive(Clone)]
pub struct WordPiece {
    rules: WordRules,
    pieces: Pieces,
    unk: u32,
}

impl WordPiece {
    /// Creates the tokenizer of a vocabulary.
    pub(super) fn new(vocabulary: &Vocabulary, rules: WordRules) -> Self {
        let mut pieces = Pieces::default();
        vocabulary.tokens().iter().zip(0..).for_each(|(token, id)| pieces.insert(token, id));
        WordPiece { rules, pieces, unk: vocabulary.special().unk }
    }

    /// Returns the rules of words.
    pub fn rules(&self) -> WordRules {
        self.rules
    }

    /// Appends the ids of `text` to `ids`, without `[CLS]` and `[SEP]`.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.rules.words(text, |word| self.push_pieces(word, ids))
    }

    /// Returns the id of `[UNK]`.
    pub(super) fn unk(&self) -> u32 {
        self.unk
    }

    /// Returns the pieces of the vocabulary.
    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Appends the ids of the pieces of a word, or one `[UNK]` for the whole word if a rest starts with no piece.
    pub(super) fn push_pieces(&self, word: &str, ids: &mut Vec<u32>) {
        self.push_split(word, false, ids);
    }

    /// Returns the ids of the pieces that the vocabulary has for a token that it may lack, such as `##ologist`; `[UNK]` if it has
    /// none.
    pub(super) fn pieces_of_token(&self, token: &str) -> Vec<u32> {
        let (continues, text) = piece_of(token);
        let mut ids = Vec::new();
        self.push_split(text, continues, &mut ids);
        ids
    }

    /// Appends the longest piece that starts the text, then the longest that starts the rest, and so on; or one `[UNK]` if a rest
    /// starts with no piece. The text is a word, or the rest of one (`continues`).
    fn push_split(&self, text: &str, continues: bool, ids: &mut Vec<u32>) {
        let (before, mut start) = (ids.len(), 0);
        while start < text.len() && !is_longer(text, LONGEST_WORD) {
            let Some((id, bytes)) = self.pieces.longest(&text[start..], continues || start > 0) else { break };
            ids.push(id);
            start += bytes;
        }
        if start < text.len() {
            ids.truncate(before);
            ids.push(self.unk);
        }
    }
}

/// Returns whether a word has more characters than `longest`.
pub(super) fn is_longer(word: &str, longest: usize) -> bool {
    word.len() > longest && word.chars().nth(longest).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::data::tokenizer::encode::Tokenizer;
    use crate::data::tokenizer::special_tokens::SPECIAL_TOKENS;

    /// Builds the crate's tokenizer from the `tokenizer.json` written for other libraries.
    fn reference(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
        let mut reference = tokenizers::Tokenizer::from_bytes(&tokenizer.files()[0].1).unwrap();
        reference.set_encode_special_tokens(true);
        reference
    }

    fn tokenizer(lowercase: bool) -> Tokenizer {
        let pieces =
            "a b c d e é ß the cat un play ##a ##b ##c ##d ##e ##é ##able ##ing ##s A B The . , [ ] # ## 你 - 3";
        let tokens = SPECIAL_TOKENS.into_iter().chain(pieces.split(' ')).map(str::to_owned).collect();
        Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(lowercase))
    }

    fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids).unwrap();
        ids.into_iter().map(|id| tokenizer.vocabulary().token(id).unwrap().to_owned()).collect()
    }

    #[test]
    fn words_are_split_into_longest_pieces() {
        let shown = |text| tokens(&tokenizer(true), text).join(" ");
        assert_eq!(shown("The unplayable cats."), "the [UNK] cat ##s .");
        assert_eq!(shown("UNABLE, playing"), "un ##able , play ##ing");
        assert_eq!(shown("a[MASK]b"), "a [ [UNK] ] b", "text is never a special token");
        assert_eq!(shown("b\u{7}a\u{b}d 你a"), "b ##a ##d 你 a");
        assert_eq!(tokens(&tokenizer(false), "The the ÉA"), ["The", "the", "[UNK]"]);
    }

    #[test]
    fn words_have_places_in_their_text() {
        let text = "Éa, b\u{7}c 你好 d";
        let words: Vec<&str> =
            WordRules::bert(true).word_ranges(text).unwrap().into_iter().map(|word| &text[word]).collect();
        assert_eq!(words, ["Éa", ",", "b\u{7}c", "你", "好", "d"]);
    }

    #[test]
    fn words_over_100_characters_become_unk() {
        for (length, expected) in [(100, 100), (101, 1)] {
            assert_eq!(tokens(&tokenizer(true), &"a".repeat(length)).len(), expected);
            assert_eq!(tokens(&tokenizer(false), &format!("é{}", "a".repeat(length - 1))).len(), expected);
        }
    }

    proptest! {
        #[test]
        fn ids_equal_the_tokenizers_crate(
            text in r"([a-eA-B \t\n.,\[\]#3éßİΣ你\x00\x07\x0b\x1c\x7f\u{a0}\u{300}\u{fffd}\u{2019}-]|the|cat|un|able|ing){0,40}",
            lowercase: bool,
        ) {
            let tokenizer = tokenizer(lowercase);
            let mut ids = Vec::new();
            tokenizer.encode(&text, &mut ids).unwrap();
            let expected = reference(&tokenizer).encode_fast(text.as_str(), false).unwrap();
            prop_assert_eq!(ids.as_slice(), expected.get_ids());
        }
    }
}
