//! Text to token ids: BERT's normalizer and pre-tokenizer make words, and greedy longest match makes pieces of them.
//!
//! Words that are not ASCII go through the `tokenizers` crate, which is the definition. ASCII ones, nearly all of English,
//! take a short path to the same words: white space parts them, control characters vanish, punctuation stands alone.
//! A test holds the whole to the crate's `encode_fast`, id by id.
//!
//! "[MASK]" in a text is text here, as in google-research/bert: five characters in brackets, never the special token.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::tokenizer::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use super::error::{DataError, Result};
use super::vocabulary::{CONTINUATION_PREFIX, SPECIAL_TOKENS, Vocabulary};

/// Longer words become `[UNK]`, as in every BERT tokenizer.
const LONGEST_WORD: usize = 100;

const NEXT: &str =
    "name a directory with a BERT tokenizer.json or vocab.txt, or train one with `lambert tokenizer train`";

/// How text becomes words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordRules {
    /// Lower-case, and strip accents: an "uncased" model.
    pub lowercase: bool,
}

impl WordRules {
    fn normalizer(self) -> BertNormalizer {
        // Clean text, part Chinese characters, strip accents exactly if lower-casing, lower-case.
        BertNormalizer::new(true, true, None, self.lowercase)
    }

    /// Calls `each` with every word of `text`, in order.
    pub fn words(self, text: &str, mut each: impl FnMut(&str)) -> Result<()> {
        let mut word = String::with_capacity(32);
        // Nothing that the normalizer does reaches across a space.
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
        let failed = |e: tokenizers::Error| DataError::Corpus {
            subject: "the tokenizer".into(),
            required: "text that it can part into words".into(),
            found: format!("{e}, at {:?}", text.chars().take(40).collect::<String>()),
            next: "take this text out of the input".into(),
        };
        let mut normalized = NormalizedString::from(text);
        self.normalizer().normalize(&mut normalized).map_err(failed)?;
        let mut words = PreTokenizedString::from(normalized);
        BertPreTokenizer.pre_tokenize(&mut words).map_err(failed)?;
        for (word, ..) in words.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            each(word);
        }
        Ok(())
    }
}

/// FNV-1a: words are short, and the table is not open to an adversary's choice of keys.
#[derive(Clone, Copy)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ byte as u64).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Pieces = HashMap<Box<str>, u32, BuildHasherDefault<Fnv>>;

/// A vocabulary with the rules of its words: all that ids depend on.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    rules: WordRules,
    /// Pieces that start a word, and pieces that continue one (without the `##`), with the bytes of the longest.
    first: (Pieces, usize),
    continuing: (Pieces, usize),
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens, {:?})", self.vocabulary.len(), self.rules)
    }
}

impl Tokenizer {
    pub fn new(vocabulary: Vocabulary, rules: WordRules) -> Self {
        let mut first = (Pieces::default(), 0);
        let mut continuing = (Pieces::default(), 0);
        for (id, token) in vocabulary.tokens().iter().enumerate() {
            // A piece "##" alone would continue a word with nothing; greedy match never reaches it.
            let ((pieces, longest), piece) = match token.strip_prefix(CONTINUATION_PREFIX) {
                Some(rest) if !rest.is_empty() => (&mut continuing, rest),
                _ => (&mut first, token.as_str()),
            };
            *longest = (*longest).max(piece.len());
            pieces.insert(piece.into(), id as u32);
        }
        Tokenizer { vocabulary, rules, first, continuing }
    }

    /// Reads a tokenizer: a directory with `tokenizer.json` or `vocab.txt` (with `tokenizer_config.json` for its case),
    /// or one of these files. A bare `vocab.txt` is lower-case unless `cased`.
    ///
    /// # Errors
    /// If there is none, if it is not BERT's WordPiece, or if two files in the directory contradict each other.
    pub fn open(path: &Path, cased: bool) -> Result<Self> {
        let (json, text, config) = match path.is_dir() {
            true => (path.join("tokenizer.json"), path.join("vocab.txt"), path.join("tokenizer_config.json")),
            false if path.extension().is_some_and(|e| e == "json") => (path.into(), "".into(), "".into()),
            false => ("".into(), path.to_owned(), "".into()),
        };
        let from_text = text.is_file().then(|| Vocabulary::read(&text)).transpose()?;
        if json.is_file() {
            let tokenizer = Tokenizer::from_json(&json)?;
            if let Some(other) = from_text.filter(|v| v.sha256() != tokenizer.vocabulary.sha256()) {
                return Err(DataError::file(
                    &text,
                    format!("the {} tokens of tokenizer.json beside it", tokenizer.vocabulary.len()),
                    format!("{} tokens, not the same", other.len()),
                    "remove the file that is wrong",
                ));
            }
            return Ok(tokenizer);
        }
        let Some(vocabulary) = from_text else {
            return Err(DataError::file(path, "a tokenizer", "no tokenizer.json and no vocab.txt", NEXT));
        };
        let mut lowercase = !cased;
        if config.is_file() {
            let setting = read_json(&config)?["do_lower_case"].as_bool();
            lowercase = setting.unwrap_or(lowercase);
        }
        Ok(Tokenizer::new(vocabulary, WordRules { lowercase }))
    }

    fn from_json(path: &Path) -> Result<Self> {
        let json = read_json(path)?;
        let wrong = |required: &str, found: &Value| {
            let found: String = found.to_string().chars().take(80).collect();
            DataError::file(path, required, found, NEXT)
        };
        let (model, normalizer) = (&json["model"], &json["normalizer"]);
        if model["vocab"].is_null() || model["type"].as_str().is_some_and(|t| t != "WordPiece") {
            return Err(wrong("a model of type WordPiece", &model["type"]));
        }
        for (key, required) in [
            ("unk_token", json!("[UNK]")),
            ("continuing_subword_prefix", json!(CONTINUATION_PREFIX)),
            ("max_input_chars_per_word", json!(LONGEST_WORD)),
        ] {
            if model[key] != required {
                return Err(wrong(&format!("model.{key} to be {required}"), &model[key]));
            }
        }
        let lowercase = normalizer["lowercase"].as_bool();
        let Some(lowercase) = lowercase.filter(|_| normalizer["type"] == "BertNormalizer") else {
            return Err(wrong("a normalizer of type BertNormalizer", normalizer));
        };
        let strips = normalizer["strip_accents"].as_bool().unwrap_or(lowercase);
        if normalizer["clean_text"] != true || normalizer["handle_chinese_chars"] != true || strips != lowercase {
            return Err(wrong(
                "a normalizer with BERT's settings (accents stripped exactly if lower-cased)",
                normalizer,
            ));
        }
        if json["pre_tokenizer"]["type"] != "BertPreTokenizer" {
            return Err(wrong("a pre_tokenizer of type BertPreTokenizer", &json["pre_tokenizer"]));
        }
        let entries =
            model["vocab"].as_object().ok_or_else(|| wrong("model.vocab to be an object", &model["vocab"]))?;
        let mut tokens = vec![String::new(); entries.len()];
        for (token, id) in entries {
            let slot = id.as_u64().and_then(|id| tokens.get_mut(id as usize));
            *slot.ok_or_else(|| wrong("ids from 0 to the number of tokens less one", id))? = token.clone();
        }
        let vocabulary =
            Vocabulary::new(tokens).map_err(|(required, found)| DataError::file(path, required, found, NEXT))?;
        Ok(Tokenizer::new(vocabulary, WordRules { lowercase }))
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn rules(&self) -> WordRules {
        self.rules
    }

    /// Appends the ids of `text` to `ids`, without `[CLS]` and `[SEP]`.
    pub fn encode(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.rules.words(text, |word| self.push_pieces(word, ids))
    }

    /// The longest piece that the word starts with, then the longest of what remains, and so on; one `[UNK]` for the
    /// whole word if a remainder has none.
    fn push_pieces(&self, word: &str, ids: &mut Vec<u32>) {
        let before = ids.len();
        let mut rest = word;
        while !rest.is_empty() {
            let (pieces, longest) = if ids.len() == before { &self.first } else { &self.continuing };
            let mut end = floor_char_boundary(rest, *longest);
            let id = loop {
                if let Some(&id) = pieces.get(&rest[..end]) {
                    break Some(id);
                }
                if end == 0 {
                    break None;
                }
                end = floor_char_boundary(rest, end - 1);
            };
            match id {
                Some(id) if word.len() <= LONGEST_WORD || word.chars().count() <= LONGEST_WORD => ids.push(id),
                _ => {
                    ids.truncate(before);
                    ids.push(self.vocabulary.special().unk);
                    return;
                }
            }
            rest = &rest[end..];
        }
    }

    /// The files that make a directory a tokenizer for Hugging Face's `AutoTokenizer`: name and content.
    pub fn files(&self) -> [(&'static str, String); 3] {
        let special = self.vocabulary.special();
        let specials: Vec<(&str, u32)> = SPECIAL_TOKENS
            .into_iter()
            .zip([special.pad, special.unk, special.cls, special.sep, special.mask])
            .collect();
        let mut by_id = specials.clone();
        by_id.sort_by_key(|&(_, id)| id);
        let added = by_id.iter().map(|(token, id)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        });
        let sequence = |id: &str, kind: u32| json!({ "Sequence": { "id": id, "type_id": kind } });
        let token = |id: &str, kind: u32| json!({ "SpecialToken": { "id": id, "type_id": kind } });
        let template = |id: &str, token_id: u32| json!({ "id": id, "ids": [token_id], "tokens": [id] });
        // In the order of ids: a JSON object keeps the order in which it is written.
        let entries = self.vocabulary.tokens().iter().enumerate().map(|(id, token)| format!("{}:{id}", json!(token)));
        let vocabulary = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
        let placeholder = "vocabulary";
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
                "lowercase": self.rules.lowercase,
            },
            "pre_tokenizer": { "type": "BertPreTokenizer" },
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0)],
                "pair": [
                    token("[CLS]", 0), sequence("A", 0), token("[SEP]", 0), sequence("B", 1), token("[SEP]", 1)
                ],
                "special_tokens": { "[CLS]": template("[CLS]", special.cls), "[SEP]": template("[SEP]", special.sep) },
            },
            "decoder": { "type": "WordPiece", "prefix": CONTINUATION_PREFIX, "cleanup": true },
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": CONTINUATION_PREFIX,
                "max_input_chars_per_word": LONGEST_WORD, "vocab": placeholder,
            },
        });
        let tokenizer =
            tokenizer.to_string().replace(&format!("\"vocab\":\"{placeholder}\""), &format!("\"vocab\":{vocabulary}"));
        let config = json!({
            "tokenizer_class": "BertTokenizer", "do_lower_case": self.rules.lowercase, "strip_accents": null,
            "tokenize_chinese_chars": true, "model_max_length": 512, "pad_token": "[PAD]", "unk_token": "[UNK]",
            "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
        });
        [
            ("tokenizer.json", tokenizer + "\n"),
            ("vocab.txt", self.vocabulary.to_text()),
            ("tokenizer_config.json", format!("{config:#}\n")),
        ]
    }
}

/// The last boundary between characters at or before byte `at`.
fn floor_char_boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&byte| text.is_char_boundary(byte)).unwrap_or(0)
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(DataError::io("read", path))?;
    serde_json::from_slice(&text).map_err(|e| DataError::file(path, "JSON", e.to_string(), NEXT))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The crate's tokenizer, from the file that we write for others.
    fn reference(tokenizer: &Tokenizer) -> tokenizers::Tokenizer {
        let mut reference = tokenizers::Tokenizer::from_bytes(&tokenizer.files()[0].1).unwrap();
        reference.set_encode_special_tokens(true);
        reference
    }

    fn tokenizer(lowercase: bool) -> Tokenizer {
        let pieces =
            "a b c d e é ß the cat un play ##a ##b ##c ##d ##e ##é ##able ##ing ##s A B The . , [ ] # ## 你 - 3";
        let tokens = SPECIAL_TOKENS.into_iter().chain(pieces.split(' ')).map(str::to_owned).collect();
        Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules { lowercase })
    }

    fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids).unwrap();
        ids.into_iter().map(|id| tokenizer.vocabulary.token(id).unwrap().to_owned()).collect()
    }

    #[test]
    fn words_become_their_longest_pieces() {
        let shown = |text| tokens(&tokenizer(true), text).join(" ");
        assert_eq!(shown("The unplayable cats."), "the [UNK] cat ##s .");
        assert_eq!(shown("UNABLE, playing"), "un ##able , play ##ing");
        assert_eq!(shown("a[MASK]b"), "a [ [UNK] ] b", "text is never a special token");
        assert_eq!(shown("b\u{7}a\u{b}d 你a"), "b ##a ##d 你 a");
        assert_eq!(tokens(&tokenizer(false), "The the ÉA"), ["The", "the", "[UNK]"]);
    }

    #[test]
    fn a_word_has_at_most_a_hundred_characters() {
        for (length, expected) in [(100, 100), (101, 1)] {
            assert_eq!(tokens(&tokenizer(true), &"a".repeat(length)).len(), expected);
            assert_eq!(tokens(&tokenizer(false), &format!("é{}", "a".repeat(length - 1))).len(), expected);
        }
    }

    proptest! {
        #[test]
        fn ids_are_those_of_the_crate(
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

    #[test]
    fn files_are_read_back_and_contradictions_refused() {
        for lowercase in [true, false] {
            let (directory, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer(lowercase));
            for (name, content) in tokenizer.files() {
                std::fs::write(directory.path().join(name), content).unwrap();
            }
            let same = |other: Tokenizer| other.vocabulary == tokenizer.vocabulary && other.rules == tokenizer.rules;
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
            std::fs::write(at("vocab.txt"), tokenizer.vocabulary.to_text().replace("cat", "dog")).unwrap();
            let message = Tokenizer::open(directory.path(), false).unwrap_err().to_string();
            assert!(message.contains("vocab.txt"), "{message}");
            for (from, to) in [("WordPiece", "BPE"), ("BertNormalizer", "NFC"), ("\"lowercase\"", "\"x\""), ("{", "")] {
                std::fs::write(at("tokenizer.json"), tokenizer.files()[0].1.replace(from, to)).unwrap();
                let message = Tokenizer::open(&at("tokenizer.json"), false).unwrap_err().to_string();
                assert!(message.contains("tokenizer.json"), "{message}");
            }
        }
    }
}
