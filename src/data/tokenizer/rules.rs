//! The rules of a tokenizer, which determine the ids of a text together with the vocabulary.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::wordpiece::WordRules;

/// The rules of a tokenizer. Two tokenizers with equal vocabularies and rules give equal ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerRules {
    /// BERT's WordPiece, with the rules that split text into words.
    WordPiece(WordRules),
    /// Another tokenizer.
    Pipeline(PipelineRules),
}

/// The identity of a tokenizer that the `tokenizers` library runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineRules {
    /// The model, such as `BPE` or `Unigram`.
    pub model: String,
    /// The sha256 of everything in `tokenizer.json` that determines ids, but the vocabulary.
    pub sha256: String,
}

impl TokenizerRules {
    /// Returns the name of the model, such as `BPE`, `Unigram`, or `BERT's WordPiece`: the library has WordPiece models with other rules
    /// of words.
    pub fn model(&self) -> &str {
        match self {
            TokenizerRules::WordPiece(_) => "BERT's WordPiece",
            TokenizerRules::Pipeline(PipelineRules { model, .. }) => model,
        }
    }

    /// Returns the settings by name, the model first.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![("model", self.model().to_owned())];
        match self {
            TokenizerRules::WordPiece(rules) => {
                settings.extend(rules.settings().map(|(name, value)| (name, value.to_string())));
            }
            TokenizerRules::Pipeline(PipelineRules { sha256, .. }) => {
                settings.push(("the sha256 of normalizer, pre-tokenizer and merges", sha256.clone()));
            }
        }
        settings
    }
}

impl fmt::Display for TokenizerRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenizerRules::WordPiece(rules) => rules.fmt(f),
            TokenizerRules::Pipeline(PipelineRules { model, sha256 }) => {
                write!(f, "a {model} tokenizer with the sha256 {sha256}")
            }
        }
    }
}
