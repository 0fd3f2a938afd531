//! A WordPiece vocabulary: the token of id `n` is line `n` of `vocab.txt`. The sha256 of that file identifies the
//! vocabulary; every shard stores it.

use std::path::Path;

use crate::data::error::{DataError, Result};
use crate::digest::Sha256Hasher;
use crate::files;

/// The special tokens of every BERT vocabulary, in the order in which a newly trained vocabulary begins.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// The prefix of a token that continues a word.
pub const CONTINUATION_PREFIX: &str = "##";

/// The next step for a user whose vocabulary cannot be used.
const NEXT: &str = "name a WordPiece vocabulary, or train one with `lambert tokenizer train`";

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    /// Id of `[PAD]`.
    pub pad: u32,
    /// Id of `[UNK]`.
    pub unk: u32,
    /// Id of `[CLS]`.
    pub cls: u32,
    /// Id of `[SEP]`.
    pub sep: u32,
    /// Id of `[MASK]`.
    pub mask: u32,
}

/// A list of tokens, with the ids of the special ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<String>,
    continuation: Vec<bool>,
    special: SpecialIds,
    sha256: String,
}

impl Vocabulary {
    /// Builds the vocabulary in which id `n` is `tokens[n]`.
    ///
    /// # Errors
    /// If a token is empty, holds a line break or is repeated, or if a special token is missing. The error is
    /// `(required, found)`, to which the caller adds the file.
    pub fn new(tokens: Vec<String>) -> std::result::Result<Self, (String, String)> {
        let mut seen = std::collections::HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() || token.contains(['\n', '\r']) {
                return Err(("a token on every line".into(), format!("{token:?} on line {}", id + 1)));
            }
            if let Some(first) = seen.insert(token.as_str(), id as u32) {
                return Err(("each token once".into(), format!("{token:?} on lines {} and {}", first + 1, id + 1)));
            }
        }
        let id = |token: &str| {
            let missing = || (format!("the token {token}"), format!("{} tokens without it", tokens.len()));
            seen.get(token).copied().ok_or_else(missing)
        };
        let [pad, unk, cls, sep, mask] = SPECIAL_TOKENS.map(id);
        let special = SpecialIds { pad: pad?, unk: unk?, cls: cls?, sep: sep?, mask: mask? };
        let continuation = tokens.iter().map(|t| t.starts_with(CONTINUATION_PREFIX)).collect();
        let mut hash = Sha256Hasher::default();
        for token in &tokens {
            hash.update(token.as_bytes());
            hash.update(b"\n");
        }
        let sha256 = hash.finish();
        Ok(Vocabulary { continuation, special, sha256, tokens })
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

    /// Returns `true` for a token that continues a word, such as `##ing`.
    pub fn is_continuation(&self, id: u32) -> bool {
        self.continuation.get(id as usize).copied().unwrap_or(false)
    }

    /// Returns the ids of the special tokens.
    pub fn special(&self) -> SpecialIds {
        self.special
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
