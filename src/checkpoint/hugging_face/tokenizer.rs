//! The tokenizer files of a directory. Import and export copy them byte for byte, because tokenizers differ in more than their
//! vocabulary: added tokens, normalizers, byte-level BPE.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::PublishedModel;
use crate::checkpoint::{CheckpointError, TOKENIZER_FILES};
use crate::file_kind::WrongKind;
use crate::panics::caught;

const CONFIG: &str = "tokenizer_config.json";

/// The keys of the `tokenizer_config.json` of every tokenizer that lambert trained, and those of WordPiece or of other models.
const OWN_KEYS: [&str; 7] =
    ["cls_token", "mask_token", "model_max_length", "pad_token", "sep_token", "tokenizer_class", "unk_token"];
const OWN_KEYS_OF_MODELS: [&[&str]; 2] =
    [&["do_lower_case", "strip_accents", "tokenize_chinese_chars"], &["model_input_names"]];

/// Checks the tokenizer files that `content` returns for their names: each can be read, Hugging Face's library loads
/// `tokenizer.json`, and each token has a row in the embedding of `model`. `directory` is for messages.
///
/// # Errors
/// [`CheckpointError::WrongKind`], or [`CheckpointError::Config`] with the file and the token.
pub(super) fn check<'c>(
    directory: &Path,
    content: impl Fn(&str) -> Option<&'c [u8]>,
    model: &PublishedModel,
) -> Result<(), CheckpointError> {
    for name in TOKENIZER_FILES {
        let Some(content) = content(name) else { continue };
        let path = directory.join(name);
        let wrong = |key: String, required: String, found: String| {
            WrongKind::of(&path, "a file of a tokenizer", content).map_or_else(
                || CheckpointError::Config { path: path.clone(), key, required, found },
                CheckpointError::from,
            )
        };
        let invalid =
            |error: String| wrong("the file".to_owned(), "what Hugging Face's tokenizers read".to_owned(), error);
        let last = last_token(name, content).map_err(invalid)?;
        if let (Some((token, id)), Some(rows)) = (last, model.size("vocab_size"))
            && id >= rows
        {
            let required = format!("less than {rows}, the vocab_size of config.json");
            return Err(wrong(format!("the id of token {token:?}"), required, id.to_string()));
        }
    }
    Ok(())
}

/// Returns the token with the largest id in the tokenizer file `name`; none if the file has no tokens.
///
/// # Errors
/// The reason why the content cannot be read.
fn last_token(name: &str, content: &[u8]) -> Result<Option<(String, u64)>, String> {
    let object = || serde_json::from_slice::<Map<String, Value>>(content).map_err(|error| error.to_string());
    match name {
        "tokenizer.json" => {
            let read = || Tokenizer::from_bytes(content).map_err(|error| error.to_string());
            let tokenizer = caught(read)??;
            let tokens = tokenizer.get_vocab(false).into_iter().map(|(token, id)| (token, u64::from(id)));
            // The library numbers added tokens again, without gaps.
            let added = object()?.remove("added_tokens").unwrap_or_default();
            let added = added.as_array().into_iter().flatten();
            let added = added.filter_map(|token| Some((token["content"].as_str()?.to_owned(), token["id"].as_u64()?)));
            Ok(tokens.chain(added).max_by_key(|(_, id)| *id))
        }
        "vocab.txt" => {
            let text = std::str::from_utf8(content).map_err(|error| format!("bytes that are not UTF-8 ({error})"))?;
            Ok(text.lines().map(str::to_owned).zip(0..).last())
        }
        "vocab.json" | "added_tokens.json" => {
            let id = |(token, id): (String, Value)| id.as_u64().map(|id| (token, id));
            let tokens: Option<Vec<(String, u64)>> = object()?.into_iter().map(id).collect();
            let tokens = tokens.ok_or("a value that is no id")?;
            Ok(tokens.into_iter().max_by_key(|(_, id)| *id))
        }
        name if name.ends_with(".json") => object().map(|_| None),
        _ => Ok(None),
    }
}

/// Returns the files of the tokenizer of a checkpoint for an export of `model`. All are unchanged, except that the settings of a
/// tokenizer that lambert trained state the length of the model.
pub(super) fn exported<'c>(
    content: impl Fn(&str) -> Option<&'c [u8]>,
    model: &PublishedModel,
) -> Vec<(&'static str, Vec<u8>)> {
    let file = |name: &'static str| {
        let content = content(name)?;
        let own = (name == CONFIG).then(|| with_length(content, model)).flatten();
        Some((name, own.unwrap_or_else(|| content.to_vec())))
    };
    TOKENIZER_FILES.into_iter().filter_map(file).collect()
}

/// Returns the settings of a tokenizer that lambert trained with the length of the model; none for other settings.
fn with_length(settings: &[u8], model: &PublishedModel) -> Option<Vec<u8>> {
    let mut settings: Map<String, Value> = serde_json::from_slice(settings).ok()?;
    let has_keys = |of_model: &&[&str]| {
        settings.len() == OWN_KEYS.len() + of_model.len()
            && OWN_KEYS.iter().chain(of_model.iter()).all(|key| settings.contains_key(*key))
    };
    if !OWN_KEYS_OF_MODELS.iter().any(has_keys) {
        return None;
    }
    settings.insert("model_max_length".to_owned(), json!(model.size("max_position_embeddings")?));
    Some(format!("{:#}\n", Value::Object(settings)).into_bytes())
}
