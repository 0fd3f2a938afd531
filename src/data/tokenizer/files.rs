//! Reads and writes the files of a tokenizer in the format of Hugging Face's libraries. The files repeat many settings,
//! and libraries differ in which file they trust; so files that contradict each other are rejected.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::comparison::{RulesFile, TokenizerFiles, VocabularyFile};
use super::encode::{Algorithm, Tokenizer};
use super::names::{ADDED_TOKENS, CONFIG, SPECIAL_TOKENS_MAP, TOKENIZER_JSON, VOCABULARY};
use super::parts::{added_token, normalizer, post_processor, vocabulary_json};
use super::pipeline::{Pipeline, Settings};
use super::rules::TokenizerRules;
use super::special_tokens::{ROLES, SPECIAL_TOKENS};
use super::vocabulary::Vocabulary;
use super::word_mark::CONTINUATION_PREFIX;
use super::wordpiece::{LONGEST_WORD, WordRules};
use crate::data::error::{DataError, Result};
use crate::files;

/// Names of all files that [`Tokenizer::files`] may return.
pub const TOKENIZER_FILES: [&str; 3] = [TOKENIZER_JSON, VOCABULARY, CONFIG];
/// Those of a tokenizer that is not BERT's WordPiece.
const PIPELINE_FILES: [&str; 2] = [TOKENIZER_JSON, CONFIG];

const NEXT: &str = "name a directory with a tokenizer.json or vocab.txt, or train one with `lambert tokenizer train`";
const CORRECT: &str = "correct the wrong file";

impl Tokenizer {
    /// Reads a tokenizer: a directory with `tokenizer.json` or `vocab.txt` (with `tokenizer_config.json` for its rules of
    /// words), or one of these files. A bare `vocab.txt` is lower-case unless `cased`.
    ///
    /// # Errors
    /// If there is no tokenizer, if the library does not read it, or if two files of the directory, or a file and
    /// `cased`, contradict each other.
    pub fn open(path: &Path, cased: bool) -> Result<Self> {
        let tokenizer = match path.extension() {
            _ if path.is_dir() => Tokenizer::from_directory(path, cased)?,
            _ if !path.exists() => {
                return Err(DataError::file(path, "a tokenizer", "no such file or directory", NEXT));
            }
            Some(extension) if extension == "json" => Tokenizer::from_json(path, &[])?,
            _ => Tokenizer::new(Vocabulary::read(path)?, WordRules::bert(!cased)),
        };
        if cased && tokenizer.word_piece().is_some_and(|word_piece| word_piece.rules().lowercase) {
            let next = "set cased to false, or name another tokenizer";
            return Err(DataError::file(path, "a cased tokenizer", "a lower-casing one", next));
        }
        Ok(tokenizer)
    }

    fn from_directory(directory: &Path, cased: bool) -> Result<Self> {
        let there = |name: &str| Some(directory.join(name)).filter(|path| path.exists());
        let settings = |name: &str| there(name).map(|path| Ok((read_object(&path)?, path))).transpose();
        let (config, map) = (settings(CONFIG)?, settings(SPECIAL_TOKENS_MAP)?);
        let from_text = there(VOCABULARY).map(|path| Ok((Vocabulary::read(&path)?, path)));
        let all_settings: Vec<Settings> = config.iter().chain(&map).cloned().collect();
        let tokenizer = match there(TOKENIZER_JSON) {
            Some(json) => {
                let tokenizer = Tokenizer::from_json(&json, &all_settings)?;
                if let Some((vocabulary, path)) = from_text.filter(|_| tokenizer.word_piece().is_some()).transpose()? {
                    let other = VocabularyFile { path: json, vocabulary: tokenizer.vocabulary().clone() };
                    VocabularyFile { path, vocabulary }.check_equal(&other, "remove the wrong file")?;
                }
                tokenizer
            }
            None => match from_text.transpose()? {
                Some((vocabulary, _)) => Tokenizer::new(vocabulary, rules_of(config.as_ref(), !cased)?),
                None => {
                    let found = format!("no {TOKENIZER_JSON} and no {VOCABULARY}");
                    return Err(DataError::file(directory, "a tokenizer", found, NEXT));
                }
            },
        };
        for (settings, path) in &all_settings {
            if let Some(word_piece) = tokenizer.word_piece() {
                check_settings(path, settings, word_piece.rules())?;
            }
            let added = settings["added_tokens_decoder"].as_object().into_iter().flatten();
            let added = added.map(|(id, token)| (id.parse().ok(), &token["content"]));
            check_added(path, added, tokenizer.vocabulary())?;
        }
        if let Some((added, path)) = settings(ADDED_TOKENS)? {
            let tokens: Vec<(Option<u64>, Value)> =
                added.as_object().into_iter().flatten().map(|(token, id)| (id.as_u64(), json!(token))).collect();
            check_added(&path, tokens.iter().map(|(id, token)| (*id, token)), tokenizer.vocabulary())?;
        }
        Ok(tokenizer)
    }

    /// Reads the `tokenizer.json` at `path`; `settings` are those of the other files in its directory.
    fn from_json(path: &Path, settings: &[Settings]) -> Result<Self> {
        let content = files::read(path).map_err(DataError::io("read", path))?;
        let json = parse_json(path, &content)?;
        if !is_bert(&json) {
            let (vocabulary, pipeline) = Pipeline::parse(path, &content, settings)?;
            return Ok(Tokenizer::of_pipeline(vocabulary, pipeline));
        }
        let vocabulary = vocabulary_in(path, &json)?;
        let model = &json["model"];
        for (key, required) in [
            ("unk_token", json!("[UNK]")),
            ("continuing_subword_prefix", json!(CONTINUATION_PREFIX)),
            ("max_input_chars_per_word", json!(LONGEST_WORD)),
        ] {
            if model[key] != required {
                return Err(wrong_value(path, &format!("model.{key} to be {required}"), &model[key]));
            }
        }
        let rules = rules_in(path, &json)?;
        let added = json["added_tokens"].as_array().into_iter().flatten();
        check_added(path, added.map(|token| (token["id"].as_u64(), &token["content"])), &vocabulary)?;
        Ok(Tokenizer::new(vocabulary, rules))
    }

    /// Returns the name and content of each file. With these files, a directory is a tokenizer for Hugging Face's
    /// `AutoTokenizer`.
    pub fn files(&self) -> Vec<(&'static str, String)> {
        match self.algorithm() {
            Algorithm::WordPiece(word_piece) => self.files_of_word_piece(word_piece.rules()).into(),
            Algorithm::Pipeline(pipeline) => {
                PIPELINE_FILES.into_iter().zip(pipeline.files().map(str::to_owned)).collect()
            }
        }
    }

    fn files_of_word_piece(&self, rules: WordRules) -> [(&'static str, String); 3] {
        let special = self.vocabulary().special();
        let mut by_id: Vec<(&str, u32)> = SPECIAL_TOKENS.into_iter().zip(special.by_role()).collect();
        by_id.sort_by_key(|&(_, id)| id);
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": by_id.into_iter().map(|(token, id)| added_token(token, id, false)).collect::<Vec<_>>(),
            "normalizer": normalizer(rules),
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": post_processor(("[CLS]", special.cls), ("[SEP]", special.sep)),
            "decoder": { "type": "WordPiece", "prefix": CONTINUATION_PREFIX, "cleanup": true },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": CONTINUATION_PREFIX,
                "max_input_chars_per_word": LONGEST_WORD,
            },
        });
        let tokenizer = vocabulary_json(tokenizer, self.vocabulary());
        let config = json!({
            "tokenizer_class": "BertTokenizer", "do_lower_case": rules.lowercase,
            "strip_accents": rules.written_strip_accents(),
            "tokenize_chinese_chars": rules.tokenize_chinese_chars, "model_max_length": 512, "pad_token": "[PAD]", "unk_token": "[UNK]",
            "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
        });
        [(TOKENIZER_JSON, tokenizer), (VOCABULARY, self.vocabulary().to_text()), (CONFIG, format!("{config:#}\n"))]
    }
}

impl TokenizerRules {
    /// Returns the names of the files that [`Tokenizer::files`] returns for a tokenizer with these rules.
    pub fn file_names(&self) -> &'static [&'static str] {
        match self {
            TokenizerRules::WordPiece(_) => &TOKENIZER_FILES,
            TokenizerRules::Pipeline(_) => &PIPELINE_FILES,
        }
    }
}

/// Returns whether a `tokenizer.json` is for BERT's WordPiece, or for nothing that is known. Other models, and WordPiece with
/// another normalizer or pre-tokenizer, are for the library.
fn is_bert(json: &Value) -> bool {
    let model = &json["model"];
    let is_other = match model["type"].as_str() {
        Some("WordPiece") => {
            json["normalizer"]["type"] != "BertNormalizer" || json["pre_tokenizer"]["type"] != "BertPreTokenizer"
        }
        Some("BPE" | "Unigram" | "WordLevel") => true,
        // Files of early versions do not name the model.
        None => model["merges"].is_array() || model["vocab"].is_array(),
        Some(_) => false,
    };
    !is_other
}

/// Returns the vocabulary in the `tokenizer.json` at `path`.
fn vocabulary_in(path: &Path, json: &Value) -> Result<Vocabulary> {
    let wrong = |required: &str, found: &Value| wrong_value(path, required, found);
    let model = &json["model"];
    if model["vocab"].is_null() || model["type"].as_str().is_some_and(|t| t != "WordPiece") {
        return Err(wrong("a model of type WordPiece, BPE, Unigram or WordLevel", &model["type"]));
    }
    let entries = model["vocab"].as_object().ok_or_else(|| wrong("model.vocab to be an object", &model["vocab"]))?;
    let mut tokens = vec![String::new(); entries.len()];
    for (token, id) in entries {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(id as usize));
        *slot.ok_or_else(|| wrong("ids from 0 to the number of tokens minus one", id))? = token.clone();
    }
    if let Some(id) = tokens.iter().position(String::is_empty) {
        let required = format!("a token for each id from 0 to {}", tokens.len() - 1);
        return Err(DataError::file(path, required, format!("none for {id}, and another id twice"), NEXT));
    }
    Vocabulary::new(tokens).map_err(|(required, found)| DataError::file(path, required, found, NEXT))
}

/// Returns the rules of words in the `tokenizer.json` at `path`.
fn rules_in(path: &Path, json: &Value) -> Result<WordRules> {
    let wrong = |required: &str, found: &Value| wrong_value(path, required, found);
    let normalizer = &json["normalizer"];
    let lowercase = normalizer["lowercase"].as_bool();
    let Some(lowercase) = lowercase.filter(|_| normalizer["type"] == "BertNormalizer") else {
        return Err(wrong("a normalizer of type BertNormalizer", normalizer));
    };
    let chinese = normalizer["handle_chinese_chars"].as_bool();
    let strips = &normalizer["strip_accents"];
    if normalizer["clean_text"] != true || chinese.is_none() || !(strips.is_null() || strips.is_boolean()) {
        return Err(wrong("a normalizer that cleans text, with BERT's settings", normalizer));
    }
    if json["pre_tokenizer"]["type"] != "BertPreTokenizer" {
        return Err(wrong("a pre_tokenizer of type BertPreTokenizer", &json["pre_tokenizer"]));
    }
    Ok(WordRules::from_settings(lowercase, strips.as_bool(), chinese))
}

fn wrong_value(path: &Path, required: &str, found: &Value) -> DataError {
    let found: String = found.to_string().chars().take(80).collect();
    DataError::file(path, required, found, NEXT)
}

/// Returns the rules of words that `tokenizer_config.json` states; `lowercase` is for a file that does not state it, or no
/// file.
fn rules_of(config: Option<&(Value, PathBuf)>, lowercase: bool) -> Result<WordRules> {
    let setting = |key: &str| match config.map(|(config, path)| (&config[key], path)) {
        None | Some((Value::Null, _)) => Ok(None),
        Some((Value::Bool(value), _)) => Ok(Some(*value)),
        Some((other, path)) => {
            Err(DataError::file(path, format!("{key} to be true or false"), other.to_string(), CORRECT))
        }
    };
    let lowercase = setting("do_lower_case")?.unwrap_or(lowercase);
    Ok(WordRules::from_settings(lowercase, setting("strip_accents")?, setting("tokenize_chinese_chars")?))
}

/// Returns an error if a settings file contradicts the tokenizer in the same directory.
fn check_settings(path: &Path, settings: &Value, rules: WordRules) -> Result<()> {
    check_rules(path, settings, rules)?;
    let tokens = ROLES.into_iter().zip(SPECIAL_TOKENS.map(|token| json!(token)));
    check_values(path, settings, [("do_basic_tokenize", json!(true))].into_iter().chain(tokens))
}

/// Returns an error if a settings file states other rules of words than the rest of its tokenizer.
fn check_rules(path: &Path, settings: &Value, rules: WordRules) -> Result<()> {
    let as_lowercase = settings.get("strip_accents").is_some_and(Value::is_null);
    if as_lowercase && let Some(strips) = rules.written_strip_accents() {
        let required = format!("strip_accents to be {strips}, as in the rest of the tokenizer");
        return Err(DataError::file(path, required, "null, which means as do_lower_case", CORRECT));
    }
    let required = [
        ("do_lower_case", rules.lowercase),
        ("strip_accents", rules.strip_accents),
        ("tokenize_chinese_chars", rules.tokenize_chinese_chars),
    ];
    check_values(path, settings, required.into_iter().map(|(key, value)| (key, json!(value))))
}

/// Returns an error if a settings file has another value than `required` for a key.
fn check_values<'k>(path: &Path, settings: &Value, required: impl Iterator<Item = (&'k str, Value)>) -> Result<()> {
    for (key, required) in required {
        // A token is written as its text, or as an object with `content`.
        let found = settings[key].get("content").unwrap_or(&settings[key]);
        if !found.is_null() && *found != required {
            let required = format!("{key} to be {required}, as in the rest of the tokenizer");
            return Err(DataError::file(path, required, found.to_string(), CORRECT));
        }
    }
    Ok(())
}

/// Returns an error if an added token is not the token of its id in the vocabulary.
fn check_added<'a>(
    path: &Path,
    added: impl Iterator<Item = (Option<u64>, &'a Value)>,
    vocabulary: &Vocabulary,
) -> Result<()> {
    for (id, token) in added {
        let entry = id.and_then(|id| vocabulary.token(u32::try_from(id).ok()?));
        if entry.is_none() || entry != token.as_str() {
            let required = format!("added tokens to have their ids in the vocabulary of {} tokens", vocabulary.len());
            let found = format!("{token} of id {}", id.map_or("none".into(), |id| id.to_string()));
            return Err(DataError::file(
                path,
                required,
                found,
                "put it at an unused id of the vocabulary, or remove it",
            ));
        }
    }
    Ok(())
}

pub(super) fn parse_json(path: &Path, content: &[u8]) -> Result<Value> {
    let invalid = |e: serde_json::Error| DataError::file(path, "JSON", e.to_string(), NEXT);
    serde_json::from_slice(content).map_err(|e| DataError::of_content(path, "JSON", content, invalid(e)))
}

fn read_object(path: &Path) -> Result<Value> {
    as_object(path, parse_json(path, &files::read(path).map_err(DataError::io("read", path))?)?)
}

fn as_object(path: &Path, value: Value) -> Result<Value> {
    match value.is_object() {
        true => Ok(value),
        false => Err(DataError::file(path, "a JSON object", "another value", CORRECT)),
    }
}

impl TokenizerFiles {
    /// Reads the vocabulary and the rules of the tokenizer whose files have the names and contents of `content`, in `directory`; none
    /// if there is no `vocab.txt` and no `tokenizer.json`. With a `vocab.txt` alone, the rules are known if `tokenizer_config.json`
    /// states `do_lower_case`: libraries differ in its default.
    ///
    /// # Errors
    /// As [`Tokenizer::open`].
    pub fn read<'c>(directory: &Path, content: impl Fn(&str) -> Option<&'c [u8]>) -> Result<Option<TokenizerFiles>> {
        let file = |name: &str| content(name).map(|content| (directory.join(name), content));
        let object = |name: &str| -> Result<Option<Settings>> {
            let Some((path, content)) = file(name) else { return Ok(None) };
            Ok(Some((as_object(&path, parse_json(&path, content)?)?, path)))
        };
        let config = object(CONFIG)?;
        let text = || -> Result<Option<VocabularyFile>> {
            let Some((path, content)) = file(VOCABULARY) else { return Ok(None) };
            Ok(Some(VocabularyFile { vocabulary: Vocabulary::parse(&path, content)?, path }))
        };
        let Some((path, content)) = file(TOKENIZER_JSON) else {
            let stated = config.filter(|(config, _)| !config["do_lower_case"].is_null());
            let rules = stated.map(|config| -> Result<RulesFile> {
                Ok(RulesFile { rules: TokenizerRules::WordPiece(rules_of(Some(&config), true)?), path: config.1 })
            });
            let rules = rules.transpose()?;
            return Ok(text()?.map(|vocabulary| TokenizerFiles { vocabulary, rules }));
        };
        let json = parse_json(&path, content)?;
        if !is_bert(&json) {
            let settings: Vec<Settings> = config.into_iter().chain(object(SPECIAL_TOKENS_MAP)?).collect();
            let (vocabulary, pipeline) = Pipeline::parse(&path, content, &settings)?;
            let rules = RulesFile { rules: TokenizerRules::Pipeline(pipeline.rules().clone()), path: path.clone() };
            return Ok(Some(TokenizerFiles { vocabulary: VocabularyFile { vocabulary, path }, rules: Some(rules) }));
        }
        let (vocabulary, rules) = (vocabulary_in(&path, &json)?, rules_in(&path, &json)?);
        if let Some((config, path)) = &config {
            check_rules(path, config, rules)?;
        }
        let vocabulary = VocabularyFile { vocabulary, path: path.clone() };
        let text = text()?;
        if let Some(text) = &text {
            text.check_equal(&vocabulary, "remove the wrong file")?;
        }
        let rules = Some(RulesFile { rules: TokenizerRules::WordPiece(rules), path });
        Ok(Some(TokenizerFiles { vocabulary: text.unwrap_or(vocabulary), rules }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(lowercase: bool) -> Tokenizer {
        let tokens =
            SPECIAL_TOKENS.into_iter().chain("a b the cat ##ing ##s .".split(' ')).map(str::to_owned).collect();
        Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(lowercase))
    }

    /// Returns the error for a tokenizer directory in which some files have other content, or are missing; "read" if
    /// there is none.
    fn message(lowercase: bool, others: &[(&str, Option<String>)]) -> String {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in tokenizer(lowercase).files() {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        for (name, content) in others {
            match content {
                Some(content) => std::fs::write(directory.path().join(name), content).unwrap(),
                None => std::fs::remove_file(directory.path().join(name)).unwrap(),
            }
        }
        Tokenizer::open(directory.path(), false).map_or_else(|e| e.to_string(), |_| "read".to_owned())
    }

    /// The keys of `tokenizer_config.json` that a directory without `tokenizer.json` may choose freely.
    const WORD_RULES: [&str; 3] = ["do_lower_case", "strip_accents", "tokenize_chinese_chars"];

    fn without(name: &'static str) -> (&'static str, Option<String>) {
        (name, None)
    }

    #[test]
    fn files_round_trip_and_contradictions_are_rejected() {
        for lowercase in [true, false] {
            let (directory, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer(lowercase));
            for (name, content) in tokenizer.files() {
                std::fs::write(directory.path().join(name), content).unwrap();
            }
            let same =
                |other: Tokenizer| other.vocabulary() == tokenizer.vocabulary() && other.rules() == tokenizer.rules();
            let at = |name: &str| directory.path().join(name);
            assert!(same(Tokenizer::open(directory.path(), false).unwrap()));
            std::fs::remove_file(at("tokenizer.json")).unwrap();
            assert!(
                same(Tokenizer::open(directory.path(), false).unwrap()),
                "from vocab.txt and tokenizer_config.json"
            );
            std::fs::remove_file(at("tokenizer_config.json")).unwrap();
            assert!(same(Tokenizer::open(directory.path(), !lowercase).unwrap()), "from vocab.txt alone");

            std::fs::write(at("tokenizer.json"), &tokenizer.files()[0].1).unwrap();
            std::fs::write(at("vocab.txt"), tokenizer.vocabulary().to_text().replace("cat", "dog")).unwrap();
            let message = Tokenizer::open(directory.path(), false).unwrap_err().to_string();
            assert!(message.contains("vocab.txt"), "{message}");
            for (from, to) in [("WordPiece", "BPE"), ("WordPiece", "Other"), ("\"lowercase\"", "\"x\""), ("{", "")] {
                std::fs::write(at("tokenizer.json"), tokenizer.files()[0].1.replace(from, to)).unwrap();
                let message = Tokenizer::open(&at("tokenizer.json"), false).unwrap_err().to_string();
                assert!(message.contains("tokenizer.json"), "{message}");
            }
        }
    }

    #[test]
    fn rules_of_words_survive_in_every_file() {
        for case in 0..8 {
            let rules = WordRules {
                lowercase: case & 1 > 0,
                strip_accents: case & 2 > 0,
                tokenize_chinese_chars: case & 4 > 0,
            };
            let directory = tempfile::tempdir().unwrap();
            let tokenizer = Tokenizer::new(tokenizer(true).vocabulary().clone(), rules);
            for (name, content) in tokenizer.files() {
                std::fs::write(directory.path().join(name), content).unwrap();
            }
            let json = directory.path().join(TOKENIZER_JSON);
            let opened = |path: &Path| Tokenizer::open(path, false).unwrap().word_piece().unwrap().rules();
            assert_eq!(opened(directory.path()), rules);
            assert_eq!(opened(&json), rules);
            std::fs::remove_file(json).unwrap();
            assert_eq!(opened(directory.path()), rules);
            let written = serde_json::to_value(rules).unwrap();
            assert_eq!(serde_json::from_value::<WordRules>(written).unwrap(), rules);
        }
        assert_eq!(serde_json::to_value(WordRules::bert(true)).unwrap(), json!({ "lowercase": true }));

        // In the settings file, null means "as do_lower_case".
        let json = tokenizer(true).files()[0].1.replace("\"strip_accents\":null", "\"strip_accents\":false");
        let error = message(true, &[(TOKENIZER_JSON, Some(json))]);
        assert!(error.contains("strip_accents to be false"), "{error}");
    }

    #[test]
    fn contradicting_settings_are_rejected_by_name() {
        let config = |key: &str, value: Value| {
            let mut config: Value = serde_json::from_str(&tokenizer(true).files()[2].1).unwrap();
            config[key] = value;
            (CONFIG, Some(config.to_string()))
        };
        for (key, value) in [
            ("do_lower_case", json!(false)),
            ("strip_accents", json!(false)),
            ("tokenize_chinese_chars", json!(false)),
            ("do_basic_tokenize", json!(false)),
            ("pad_token", json!("<pad>")),
            ("unk_token", json!({ "content": "<unk>", "special": true })),
            ("cls_token", json!("[SEP]")),
            ("sep_token", json!(3)),
            ("mask_token", json!("<mask>")),
        ] {
            let error = message(true, &[config(key, value.clone())]);
            assert!(error.contains(CONFIG) && error.contains(key), "{key}: {error}");
            if !WORD_RULES.contains(&key) {
                let error = message(true, &[config(key, value), without(TOKENIZER_JSON)]);
                assert!(error.contains(CONFIG) && error.contains(key), "{key}: {error}");
            }
        }
        for key in WORD_RULES {
            let error = message(true, &[config(key, json!("yes")), without(TOKENIZER_JSON)]);
            assert!(error.contains(&format!("{key} to be true or false")), "{error}");
        }
        let error = message(true, &[(SPECIAL_TOKENS_MAP, Some(json!({ "cls_token": "<s>" }).to_string()))]);
        assert!(error.contains(SPECIAL_TOKENS_MAP) && error.contains("cls_token"), "{error}");
        assert!(message(true, &[(CONFIG, Some("[1]".into()))]).contains("a JSON object"));
        // Missing settings, and equal ones in another form, are no contradiction.
        for (key, value) in [
            ("strip_accents", json!(true)),
            ("mask_token", json!({ "content": "[MASK]" })),
            ("cls_token", Value::Null),
            ("never_split", json!(["[MASK]"])),
            ("added_tokens_decoder", json!({ "4": { "content": "[MASK]", "special": true } })),
        ] {
            assert_eq!(message(true, &[config(key, value)]), "read", "{key}");
        }
        let directory = tempfile::tempdir().unwrap();
        tokenizer(true)
            .files()
            .iter()
            .for_each(|(name, text)| std::fs::write(directory.path().join(name), text).unwrap());
        assert!(Tokenizer::open(directory.path(), true).unwrap_err().to_string().contains("a cased tokenizer"));
    }

    #[test]
    fn files_of_another_kind_are_named() {
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 231508\n";
        for (name, content, found) in [
            (TOKENIZER_JSON, pointer, "JSON, got a pointer of Git LFS; fetch the content with `git lfs pull`"),
            (CONFIG, "<!DOCTYPE html>", "JSON, got a web page; download the file itself"),
            (SPECIAL_TOKENS_MAP, "\u{feff}{}", "JSON, got a byte order mark at its start; save it as UTF-8 without"),
            (VOCABULARY, pointer, "a vocabulary, one token a line, got a pointer of Git LFS"),
            (VOCABULARY, "\u{feff}[PAD]\n", "a vocabulary, one token a line, got a byte order mark at its start"),
        ] {
            let error = message(true, &[(name, Some(content.to_owned()))]);
            assert!(error.contains(&format!("{name}: requires {found}")), "{error}");
        }
    }

    #[test]
    fn added_tokens_must_be_in_the_vocabulary() {
        let files = tokenizer(true).files();
        for (id, token) in [(12u64, "<url>"), (5, "<url>"), (4_294_967_296, "a")] {
            let mut json: Value = serde_json::from_str(&files[0].1).unwrap();
            json["added_tokens"].as_array_mut().unwrap().push(json!({ "id": id, "content": token, "special": false }));
            let mut config: Value = serde_json::from_str(&files[2].1).unwrap();
            config["added_tokens_decoder"] = json!({ (id.to_string()): { "content": token } });
            let added = json!({ token: id });
            for (name, content) in [(TOKENIZER_JSON, json), (CONFIG, config), (ADDED_TOKENS, added)] {
                let error = message(true, &[(name, Some(content.to_string()))]);
                assert!(error.contains(name) && error.contains(&format!("{token:?} of id {id}")), "{error}");
            }
        }
    }

    #[test]
    fn token_ids_must_be_complete_and_unique() {
        let files = tokenizer(true).files();
        let list = |text: String| message(true, &[without(TOKENIZER_JSON), (VOCABULARY, Some(text))]);
        assert_eq!(list(files[1].1.replace('\n', "\r\n")), "read", "line ends of Windows");
        for token in SPECIAL_TOKENS {
            assert!(list(files[1].1.replace(token, "x")).contains(&format!("the token {token}")));
        }
        assert!(list(files[1].1.clone() + "cat\n").contains("\"cat\" on lines 9 and 13"));
        assert!(list(files[1].1.replace("cat\n", "\n")).contains("\"\" on line 9"));
        assert!(list(files[1].1.clone() + "\n").contains("\"\" on line 13"));
        assert!(list(String::new()).contains("the token [PAD]"));
        let json = |from: &str, to: &str| {
            message(true, &[without(VOCABULARY), (TOKENIZER_JSON, Some(files[0].1.replace(from, to)))])
        };
        assert!(json("\"cat\":8", "\"cat\":7").contains("none for 8"));
        for beyond in ["12", "-1", "4294967296", "\"8\"", "8.5"] {
            assert!(json("\"cat\":8", &format!("\"cat\":{beyond}")).contains("ids from 0 to the number of tokens"));
        }
    }
}
