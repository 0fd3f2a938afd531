//! A WordPiece vocabulary: token of id `n` is line `n` of `vocab.txt`. Its identity is the sha256 of those lines, which
//! every shard carries: ids mean nothing without the list that they index.

use std::path::Path;

use crate::data::error::{DataError, Result};
use crate::digest::Sha256Hasher;

/// The tokens that every BERT vocabulary has, in the order in which a vocabulary trained here begins.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Marks a piece that continues a word.
pub const CONTINUATION_PREFIX: &str = "##";

/// Ids of the special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialIds {
    pub pad: u32,
    pub unk: u32,
    pub cls: u32,
    pub sep: u32,
    pub mask: u32,
}

/// A list of tokens, with what the rest of the room asks of it most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<String>,
    continuation: Vec<bool>,
    special: SpecialIds,
    sha256: String,
}

impl Vocabulary {
    /// The vocabulary whose id `n` is `tokens[n]`.
    ///
    /// # Errors
    /// If a token is empty, holds a line break, comes twice, or if a special token is missing: said as
    /// `(required, found)`, for the caller to add the file.
    pub fn new(tokens: Vec<String>) -> std::result::Result<Self, (String, String)> {
        let mut seen = std::collections::HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() || token.contains(['\n', '\r']) {
                return Err(("a token on every line".into(), format!("{token:?} on line {}", id + 1)));
            }
            if let Some(first) = seen.insert(token.as_str(), id as u32) {
                return Err((
                    "every token once".into(),
                    format!("{token:?} on the lines {} and {}", first + 1, id + 1),
                ));
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
    pub fn read(path: &Path) -> Result<Self> {
        const NEXT: &str = "name a WordPiece vocabulary, or train one with `lambert tokenizer train`";
        let text = match std::fs::read_to_string(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(DataError::file(path, "a vocabulary, one token a line", "no such file", NEXT));
            }
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
                return Err(DataError::file(path, "UTF-8 text, one token a line", "other bytes", NEXT));
            }
            text => text.map_err(DataError::io("read", path))?,
        };
        Vocabulary::new(text.lines().map(str::to_owned).collect())
            .map_err(|(required, found)| DataError::file(path, required, found, NEXT))
    }

    /// The content of `vocab.txt`.
    pub fn to_text(&self) -> String {
        let mut text = self.tokens.join("\n");
        text.push('\n');
        text
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: the special tokens are there.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The token of an id; `None` beyond the end.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize).map(String::as_str)
    }

    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// True for `##ing`: a piece that continues the word before it.
    pub fn is_continuation(&self, id: u32) -> bool {
        self.continuation.get(id as usize).copied().unwrap_or(false)
    }

    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// sha256 of `vocab.txt`, in hexadecimal.
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
    fn specials_are_found_where_they_stand() {
        let vocabulary = Vocabulary::new(list(&["a", "[MASK]", "[SEP]", "[CLS]", "[UNK]", "[PAD]", "##b"])).unwrap();
        assert_eq!(vocabulary.special(), SpecialIds { pad: 5, unk: 4, cls: 3, sep: 2, mask: 1 });
        assert!(vocabulary.is_continuation(6) && !vocabulary.is_continuation(0));
        assert_eq!(vocabulary.token(7), None);
    }

    #[test]
    fn repeated_and_missing_tokens_are_named() {
        let error = Vocabulary::new(list(&["[PAD]", "x", "x"])).unwrap_err();
        assert_eq!(error.1, "\"x\" on the lines 2 and 3");
        let error = Vocabulary::new(list(&["[PAD]", "[UNK]", "[CLS]", "[SEP]"])).unwrap_err();
        assert_eq!(error.0, "the token [MASK]");
    }
}
