//! Names of the files of a tokenizer.

/// The whole tokenizer, as the `tokenizers` library of Hugging Face reads it.
pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";
/// The tokens of WordPiece, one a line.
pub(super) const VOCABULARY: &str = "vocab.txt";
/// The settings for `AutoTokenizer`.
pub(super) const CONFIG: &str = "tokenizer_config.json";
/// Special tokens by role; older versions of transformers write it.
pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// Tokens that were added to a vocabulary; older versions of transformers write it.
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";
