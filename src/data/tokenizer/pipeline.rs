//! Tokenizers that the `tokenizers` library runs: byte-level BPE, Unigram (SentencePiece), and whatever else a `tokenizer.json`
//! describes. The file is kept as it is, so that what is exported encodes as what was trained with.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};
use tokenizers::tokenizer::{Encoding, Token};

use super::names::CONFIG;
use super::rules::PipelineRules;
use super::special_tokens::{PairForm, ROBERTA_TOKENS, ROLES, SPECIAL_TOKENS, SpecialIds};
use super::vocabulary::Vocabulary;
use super::word_mark::WordMark;
use crate::data::error::{DataError, Result};
use crate::digest::sha256_hex;
use crate::panics::caught;

/// The requirement on a file that the library does not read.
const READABLE: &str = "what the tokenizers library of Hugging Face reads";

/// The next step for a user whose tokenizer cannot be used.
const NEXT: &str = "name another tokenizer, or train one with `lambert tokenizer train`";

/// A tokenizer of the library.
#[derive(Clone)]
pub(super) struct Pipeline {
    /// Without padding and truncation; special tokens in a text are plain text.
    tokenizer: Arc<tokenizers::Tokenizer>,
    /// The same, for which special tokens in a text are special; made when it is needed.
    with_special_tokens: Arc<OnceLock<tokenizers::Tokenizer>>,
    special: SpecialIds,
    rules: PipelineRules,
    json: Arc<str>,
    config: Arc<str>,
}

/// A settings file of a tokenizer, as an object, and its path.
pub(super) type Settings = (Value, PathBuf);

impl Pipeline {
    /// Parses the `tokenizer.json` at `path`. `settings` are those of the other files in its directory: they name the special tokens
    /// by role.
    ///
    /// # Errors
    /// If the library does not read the file, a role has no token, ids have gaps, or the special tokens do not surround texts as
    /// `[CLS] a [SEP]`.
    pub fn parse(path: &Path, content: &[u8], settings: &[Settings]) -> Result<(Vocabulary, Pipeline)> {
        // The library panics on some files, such as a template that names a token without an id.
        caught(|| Pipeline::parse_file(path, content, settings))
            .unwrap_or_else(|panic| Err(DataError::file(path, READABLE, panic, NEXT)))
    }

    fn parse_file(path: &Path, content: &[u8], settings: &[Settings]) -> Result<(Vocabulary, Pipeline)> {
        let wrong = |required: &str, found: String| DataError::file(path, required, found, NEXT);
        let text = std::str::from_utf8(content).map_err(|error| wrong("UTF-8 text", error.to_string()))?;
        let mut tokenizer: tokenizers::Tokenizer =
            text.parse().map_err(|error: tokenizers::Error| wrong(READABLE, error.to_string()))?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| wrong("a tokenizer without truncation", error.to_string()))?;
        let json: Value = serde_json::from_str(text).map_err(|error| wrong("JSON", error.to_string()))?;
        check_added_tokens(path, &json, &tokenizer)?;
        let tokens = tokens_by_id(&tokenizer).map_err(|(required, found)| wrong(&required, found))?;
        let special = special_tokens(path, &tokenizer, settings)?;
        let ids = special.each_ref().map(|token| tokenizer.token_to_id(token).expect("the roles have tokens"));
        let pair = pair_form(&tokenizer, ids.into())
            .ok_or_else(|| wrong("a post_processor that writes [CLS] a [SEP] b [SEP]", post_processor(&json)))?;
        let model = part(tokenizer.get_model());
        if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
            return Err(wrong(
                "model.dropout to be null, so that a text always has the same ids",
                model["dropout"].to_string(),
            ));
        }
        let mark = word_mark(&json, &tokens);
        let vocabulary = Vocabulary::with_forms(tokens, special.each_ref().map(String::as_str), pair, mark)
            .map_err(|(required, found)| wrong(&required, found))?;
        let rules = PipelineRules {
            model: model["type"].as_str().unwrap_or("unknown").to_owned(),
            sha256: sha256_hex(identity(&tokenizer, model).to_string().as_bytes()),
        };
        tokenizer.set_encode_special_tokens(true);
        let pipeline = Pipeline {
            tokenizer: Arc::new(tokenizer),
            with_special_tokens: Arc::default(),
            special: vocabulary.special(),
            rules,
            json: text.into(),
            config: config(&special, settings).into(),
        };
        Ok((vocabulary, pipeline))
    }

    /// Returns the identity for comparisons.
    pub fn rules(&self) -> &PipelineRules {
        &self.rules
    }

    /// Returns the text of `tokenizer.json`, and that of a `tokenizer_config.json` which names the special tokens.
    pub fn files(&self) -> [&str; 2] {
        [&self.json, &self.config]
    }

    /// Appends the ids of `text`. A special token that the model finds in a text, as Unigram does, becomes the unknown one: only
    /// we write special tokens.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let encoding = encoded(text, || self.tokenizer.encode_fast(text, false))?;
        let SpecialIds { pad, unk, cls, sep, mask } = self.special;
        let plain = |&id: &u32| if [pad, cls, sep, mask].contains(&id) { unk } else { id };
        ids.extend(encoding.get_ids().iter().map(plain));
        Ok(())
    }

    /// Returns the ids of a text in which special tokens are written as text.
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>> {
        let tokenizer = self.with_special_tokens.get_or_init(|| {
            let mut tokenizer = (*self.tokenizer).clone();
            tokenizer.set_encode_special_tokens(false);
            tokenizer
        });
        Ok(encoded(text, || tokenizer.encode_fast(text, false))?.get_ids().to_vec())
    }

    /// Returns the bytes of `text` that each token stands for.
    pub fn token_ranges(&self, text: &str) -> Result<Vec<Range<usize>>> {
        let encoding = encoded(text, || self.tokenizer.encode(text, false))?;
        Ok(encoding.get_offsets().iter().map(|&(start, end)| start..end).collect())
    }
}

/// Returns the result of encoding `text` by the library.
fn encoded(text: &str, encode: impl FnOnce() -> tokenizers::Result<Encoding>) -> Result<Encoding> {
    let result = caught(encode).and_then(|result| result.map_err(|error| error.to_string()));
    result.map_err(|error| DataError::Corpus {
        subject: "the tokenizer".into(),
        required: "text that it can encode".into(),
        found: format!("{error}, at {:?}", text.chars().take(40).collect::<String>()),
        next: "remove this text from the input".into(),
    })
}

/// Returns a part of a tokenizer as JSON, in the form of this version of the library.
fn part(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).expect("the library writes what it has read")
}

/// Returns everything that determines ids, but the tokens of the vocabulary. Unigram's scores are part of it.
fn identity(tokenizer: &tokenizers::Tokenizer, mut model: Value) -> Value {
    if model["vocab"].is_object() {
        model["vocab"].take();
    }
    let (normalizer, pre_tokenizer) = (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer());
    json!([normalizer.map(part), pre_tokenizer.map(part), model])
}

/// Returns the tokens in the order of their ids; else what is required, and what was found.
fn tokens_by_id(tokenizer: &tokenizers::Tokenizer) -> std::result::Result<Vec<String>, (String, String)> {
    let by_token = tokenizer.get_vocab(true);
    let mut tokens = vec![None; by_token.len()];
    for (token, id) in by_token {
        let required = || ("ids from 0 to the number of tokens minus one".to_owned(), format!("{token:?} of id {id}"));
        *tokens.get_mut(id as usize).ok_or_else(required)? = Some(token.clone());
    }
    let missing = |id: usize| ("a token for each id".to_owned(), format!("none for {id}"));
    tokens.into_iter().enumerate().map(|(id, token)| token.ok_or_else(|| missing(id))).collect()
}

/// Returns an error if the library gives an added token another id than the file: it numbers them without gaps.
fn check_added_tokens(path: &Path, json: &Value, tokenizer: &tokenizers::Tokenizer) -> Result<()> {
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        let content = token["content"].as_str().unwrap_or_default();
        let Some(id) = tokenizer.token_to_id(content).filter(|id| token["id"] != *id) else { continue };
        let required = format!("the added token {content:?} to have the id that follows the others, {id}");
        return Err(DataError::file(path, required, token["id"].to_string(), "correct the ids of added_tokens"));
    }
    Ok(())
}

/// Returns the token of each role: as the settings name it (those of at most two files), else as BERT or RoBERTa does.
fn special_tokens<'s>(
    path: &'s Path,
    tokenizer: &tokenizers::Tokenizer,
    settings: &'s [Settings],
) -> Result<[String; 5]> {
    let mut tokens = <[String; 5]>::default();
    for (role, (token, key)) in tokens.iter_mut().zip(ROLES).enumerate() {
        let of_file = |(settings, path): &'s Settings| Some((text_of(&settings[key])?, path.as_path()));
        let named: Vec<(&str, &Path)> = settings.iter().filter_map(of_file).collect();
        if let [(first, _), (other, path)] = named[..]
            && first != other
        {
            let required = format!("{key} to be {first:?}, as in the rest of the tokenizer");
            return Err(DataError::file(path, required, format!("{other:?}"), "correct the wrong file"));
        }
        let usual = || [SPECIAL_TOKENS[role], ROBERTA_TOKENS[role]].into_iter();
        let is_there = |name: &&str| tokenizer.token_to_id(name).is_some();
        let found = match named.first() {
            Some((name, _)) => Some(*name).filter(is_there),
            None => usual().find(is_there),
        };
        let name = found.ok_or_else(|| {
            let required = format!("{key} to name a token of the vocabulary");
            let (found, path) = named.first().copied().unwrap_or(("none", path));
            DataError::file(path, required, found, "name the special tokens in tokenizer_config.json")
        })?;
        *token = name.to_owned();
    }
    match (1..tokens.len()).find(|&later| tokens[..later].contains(&tokens[later])) {
        None => Ok(tokens),
        Some(later) => {
            let required = format!("{} to be another token than those of other roles", ROLES[later]);
            Err(DataError::file(path, required, &tokens[later], "name the special tokens in tokenizer_config.json"))
        }
    }
}

/// Returns the text of a token in a settings file, where it is a string or an object with `content`.
fn text_of(token: &Value) -> Option<&str> {
    token.get("content").unwrap_or(token).as_str()
}

/// Returns the form of a pair of texts, as the post-processor of the tokenizer writes one; none if it is another form than BERT's
/// or RoBERTa's.
fn pair_form(tokenizer: &tokenizers::Tokenizer, special: SpecialIds) -> Option<PairForm> {
    let SpecialIds { cls, sep, unk, .. } = special;
    let text = |kind| Encoding::from_tokens(vec![Token::new(unk, String::new(), (0, 0))], kind);
    let single = tokenizer.post_process(text(0), None, true).ok()?;
    let pair = tokenizer.post_process(text(0), Some(text(1)), true).ok()?;
    let separators = pair.get_ids().len().checked_sub(4)?;
    let form = PairForm { separators, second_type: *pair.get_type_ids().last()? as i32 };
    let ids = [&[cls, unk][..], &vec![sep; separators], &[unk, sep]].concat();
    let types = [vec![0; 2 + separators], vec![form.second_type as u32; 2]].concat();
    let is_known = single.get_ids() == [cls, unk, sep]
        && single.get_type_ids() == [0; 3]
        && (1..=2).contains(&separators)
        && (0..=1).contains(&form.second_type)
        && pair.get_ids() == ids
        && pair.get_type_ids() == types;
    is_known.then_some(form)
}

fn post_processor(json: &Value) -> String {
    json["post_processor"].to_string().chars().take(200).collect()
}

/// Returns how the tokens of a `tokenizer.json` mark words.
fn word_mark(json: &Value, tokens: &[String]) -> WordMark {
    let is_byte_level = |part: &Value| part.to_string().contains("\"ByteLevel\"");
    if is_byte_level(&json["pre_tokenizer"]) || is_byte_level(&json["normalizer"]) {
        return WordMark::ByteLevelSpace;
    }
    WordMark::of_tokens(tokens)
}

/// Returns the text of a `tokenizer_config.json`: that of the settings, with all special tokens by role.
fn config(special: &[String; 5], settings: &[Settings]) -> String {
    let of_file =
        settings.iter().find(|(_, path)| path.ends_with(CONFIG)).and_then(|(settings, _)| settings.as_object());
    let mut config = of_file
        .cloned()
        .unwrap_or_else(|| Map::from_iter([("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"))]));
    for (key, token) in ROLES.into_iter().zip(special) {
        if config.get(key).is_none_or(Value::is_null) {
            config.insert(key.to_owned(), json!(token));
        }
    }
    format!("{:#}\n", Value::Object(config))
}
