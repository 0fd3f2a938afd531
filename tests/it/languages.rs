//! Sentences and words of 18 languages: sentences against marks made by hand, words against BERT's rules in plain Python.
//! scripts/check/languages_reference.py writes the fixture.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lambert::data::{
    ReadOptions, TEXT_RULES, TextEvent, Tokenizer, Vocabulary, WordRules, find_inputs, read_text, sentences,
};
use lambert::digest::sha256_hex;
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

/// A preparation that was interrupted may be continued by a later program, if that has the same rules.
#[test]
fn the_version_of_the_text_rules_changes_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let markup = "'''A''' is a [[b|c]].&lt;ref>d&lt;/ref> {{convert|5|ft|11|in}} &amp;nbsp;\n\n== E ==\n* f\n{| class=\"g\"\n| h || i\n|}\n\
                  {{lang|fr|j}} &lt;math>k&lt;/math> [[File:l.jpg|thumb|m]] [http://n o]\n";
    let dump = format!(
        "<mediawiki xml:lang=\"en\"><page><title>T</title><ns>0</ns><id>1</id><revision><text>{markup}</text></revision></page>\
         </mediawiki>"
    );
    let texts: Vec<String> = languages().into_iter().map(|language| language.text).collect();
    let json = texts.iter().map(|text| serde_json::json!({ "text": text }).to_string() + "\n").collect();
    let files = [("dump.xml", dump), ("text.jsonl", json), ("text.txt", texts.join("\n\n"))];
    let paths = files.map(|(name, content)| {
        fs::write(folder.path().join(name), content).unwrap();
        folder.path().join(name)
    });
    let mut read = String::new();
    let mut add = |line: &str| read.extend([line, "\n"]);
    let inputs = find_inputs(&paths).unwrap().inputs;
    let read_all = read_text(&inputs, &ReadOptions::default(), &|_| (), &mut |batch| {
        for event in &batch.events {
            match event {
                TextEvent::Line(line) => sentences(&batch.text[line.clone()]).for_each(&mut add),
                TextEvent::DocumentEnd => add(""),
            }
        }
        true
    });
    read_all.unwrap();
    let found = (TEXT_RULES, sha256_hex(read.as_bytes()));
    let recorded = (1, "67226d2336280bec3ce80d5cba63a7be90955715d3d23de26ff4d85260465f18".to_owned());
    assert_eq!(
        found, recorded,
        "the rules have changed: raise TEXT_RULES, and record the digest of its texts here:\n{read}"
    );
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
