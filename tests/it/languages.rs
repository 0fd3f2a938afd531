//! Sentences and words of 18 languages: sentences against marks made by hand, words against BERT's rules in plain Python.
//! scripts/check/languages_reference.py writes the fixture.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lambert::data::{Tokenizer, Vocabulary, WordRules, sentences};
use serde::Deserialize;

#[derive(Deserialize)]
struct Language {
    language: String,
    text: String,
    sentences: Vec<String>,
    rules: Vec<Words>,
}

#[derive(Deserialize)]
struct Words {
    lowercase: bool,
    strip_accents: bool,
    tokenize_chinese_chars: bool,
    words: Vec<String>,
}

fn languages() -> Vec<Language> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/languages.json");
    let languages: Vec<Language> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(languages.len(), 18);
    languages
}

#[test]
fn sentences_of_18_languages_end_where_they_are_marked() {
    let wrong: BTreeMap<String, Vec<String>> = languages()
        .into_iter()
        .filter_map(|Language { language, text, sentences: expected, .. }| {
            let found: Vec<String> = sentences(&text).map(str::to_owned).collect();
            (found != expected).then_some((language, found))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn words_of_18_languages_follow_each_setting() {
    for Language { language, text, rules, .. } in languages() {
        assert_eq!(rules.len(), 8);
        for Words { lowercase, strip_accents, tokenize_chinese_chars, words } in rules {
            let rules = WordRules { lowercase, strip_accents, tokenize_chinese_chars };
            let mut found = Vec::new();
            rules.words(&text, |word| found.push(word.to_owned())).unwrap();
            assert_eq!(found, words, "{language}, {rules}");
        }
    }
}

/// The `tokenizers` crate reads the settings from our `tokenizer.json`, so equal ids mean that the file states them, too.
#[test]
fn ids_of_18_languages_equal_those_of_the_tokenizers_crate() {
    for Language { language, text, rules, .. } in languages() {
        for Words { lowercase, strip_accents, tokenize_chinese_chars, words } in rules {
            let rules = WordRules { lowercase, strip_accents, tokenize_chinese_chars };
            // Every second word is in the vocabulary, and the others are [UNK].
            let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
            let mut known: Vec<String> = words.iter().step_by(2).cloned().collect();
            known.sort_unstable();
            known.dedup();
            let vocabulary = Vocabulary::new(special.into_iter().chain(known).collect()).unwrap();
            let tokenizer = Tokenizer::new(vocabulary, rules);
            let mut ids = Vec::new();
            tokenizer.encode(&text, &mut ids).unwrap();
            let reference = tokenizers::Tokenizer::from_bytes(&tokenizer.files()[0].1).unwrap();
            let expected = reference.encode_fast(text.as_str(), false).unwrap();
            assert_eq!(ids, expected.get_ids(), "{language}, {rules}");
            assert!(ids.iter().any(|&id| id > 4), "{language}, {rules}");
        }
    }
}
