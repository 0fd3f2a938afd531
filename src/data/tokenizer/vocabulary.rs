//! A vocabulary: the token of id `n` is line `n` of a `vocab.txt`. The sha256 of that text identifies the vocabulary; every shard
//! stores it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use super::special_tokens::{PairForm, SPECIAL_TOKENS, SpecialIds};
use super::word_mark::WordMark;
use crate::data::error::{DataError, Result};
use crate::digest::Sha256Hasher;
use crate::files;

/// The next step for a user whose vocabulary cannot be used.
const NEXT: &str = "name a WordPiece vocabulary, or train one with `lambert tokenizer train`";

/// A list of tokens, with what the special ones are and how words are marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<String>,
    continuation: Vec<bool>,
    special: SpecialIds,
    pair: PairForm,
    mark: WordMark,
    sha256: String,
}

impl Vocabulary {
    /// Builds the WordPiece vocabulary in which id `n` is `tokens[n]`, with BERT's special tokens.
    ///
    /// # Errors
    /// If a token is empty, holds a line break or is repeated, or if a special token is missing. The error is
    /// `(required, found)`, to which the caller adds the file.
    pub fn new(tokens: Vec<String>) -> std::result::Result<Self, (String, String)> {
        Vocabulary::with_forms(tokens, SPECIAL_TOKENS, PairForm::BERT, WordMark::Continuation)
    }

    /// Builds a vocabulary with the special tokens `special`, in the order of [`SPECIAL_TOKENS`].
    ///
    /// # Errors
    /// As [`Vocabulary::new`].
    pub(in crate::data) fn with_forms(
        tokens: Vec<String>,
        special: [&str; 5],
        pair: PairForm,
        mark: WordMark,
    ) -> std::result::Result<Self, (String, String)> {
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() || token.contains(['\n', '\r']) {
                return Err(("a token on every line".into(), format!("{token:?} on line {}", id + 1)));
            }
            if let Some(first) = ids.insert(token.as_str(), id as u32) {
                return Err(("each token once".into(), format!("{token:?} on lines {} and {}", first + 1, id + 1)));
            }
        }
        let mut of_roles = [0; 5];
        for (id, token) in of_roles.iter_mut().zip(special) {
            let missing = || (format!("the token {token}"), format!("{} tokens without it", tokens.len()));
            *id = *ids.get(token).ok_or_else(missing)?;
        }
        let continuation = tokens.iter().map(|token| mark.continues(token)).collect();
        let mut hash = Sha256Hasher::default();
        for token in &tokens {
            hash.update(token.as_bytes());
            hash.update(b"\n");
        }
        Ok(Vocabulary { continuation, special: of_roles.into(), pair, mark, sha256: hash.finish(), tokens })
    }

    /// Reads a `vocab.txt`.
    ///
    /// # Errors
    /// If it cannot be read, or as [`Vocabulary::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        match files::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(DataError::file(path, "a vocabulary, one token a line", "no such file", NEXT))
            }
            read => Vocabulary::parse(path, &read.map_err(DataError::io("read", path))?),
        }
    }

    /// Parses the content of the `vocab.txt` at `path`.
    ///
    /// # Errors
    /// If it is not UTF-8, or as [`Vocabulary::new`].
    pub fn parse(path: &Path, content: &[u8]) -> Result<Self> {
        let invalid = |required: String, found: String| {
            let other = DataError::file(path, required, found, NEXT);
            DataError::of_content(path, "a vocabulary, one token a line", content, other)
        };
        let text = std::str::from_utf8(content)
            .map_err(|_| invalid("UTF-8 text, one token a line".to_owned(), "other bytes".to_owned()))?;
        Vocabulary::new(text.lines().map(str::to_owned).collect()).map_err(|(required, found)| invalid(required, found))
    }

    /// Returns the content of `vocab.txt`.
    pub fn to_text(&self) -> String {
        let mut text = self.tokens.join("\n");
        text.push('\n');
        text
    }

    /// Returns the vocabulary size.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Always `false`: the special tokens exist.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Returns the token of an id, or `None` beyond the end.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    /// Returns all tokens, by id.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Returns `true` for a token that continues a word, such as `##ing`. Always `false` without a [`WordMark`].
    pub fn is_continuation(&self, id: u32) -> bool {
        self.continuation.get(id as usize).copied().unwrap_or(false)
    }

    /// Returns how tokens mark the beginnings of words.
    pub fn word_mark(&self) -> WordMark {
        self.mark
    }

    /// Returns the characters that a token stands for, without its mark, and whether a space separates them from those of the
    /// token before; `None` beyond the end.
    pub fn text(&self, id: u32) -> Option<(bool, Cow<'_, str>)> {
        let text = self.mark.text(self.token(id)?);
        Some(match (self.mark, text.strip_prefix(' ')) {
            (WordMark::Continuation | WordMark::None, _) => (!self.is_continuation(id), text),
            (_, None) => (false, text),
            (_, Some(rest)) => (true, rest.to_owned().into()),
        })
    }

    /// Returns the ids of the special tokens.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// Returns the form of a pair of texts.
    pub fn pair_form(&self) -> PairForm {
        self.pair
    }

    /// Returns the sha256 of `vocab.txt`, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tokens: &[&str]) -> Vec<String> {
        tokens.iter().map(|t| t.to_string()).collect()
    }

    #[test]
    fn special_ids_are_found_at_any_position() {
        let vocabulary = Vocabulary::new(list(&["a", "[MASK]", "[SEP]", "[CLS]", "[UNK]", "[PAD]", "##b"])).unwrap();
        assert_eq!(vocabulary.special(), SpecialIds { pad: 5, unk: 4, cls: 3, sep: 2, mask: 1 });
        assert!(vocabulary.is_continuation(6) && !vocabulary.is_continuation(0));
        assert_eq!(vocabulary.token(7), None);
    }

    #[test]
    fn repeated_and_missing_tokens_are_reported() {
        let error = Vocabulary::new(list(&["[PAD]", "x", "x"])).unwrap_err();
        assert_eq!(error.1, "\"x\" on lines 2 and 3");
        let error = Vocabulary::new(list(&["[PAD]", "[UNK]", "[CLS]", "[SEP]"])).unwrap_err();
        assert_eq!(error.0, "the token [MASK]");
    }
}
