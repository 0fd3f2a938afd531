//! The comparison of tokenizers: of their vocabularies, token by token, and of their rules. Line ends, a missing last one,
//! and the format of the files (`vocab.txt` and `tokenizer_config.json`, or `tokenizer.json`) make no difference.

use std::path::PathBuf;

use super::difference::{RulesDifference, VocabularyDifference};
use super::rules::TokenizerRules;
use super::vocabulary::Vocabulary;
use crate::data::error::{DataError, Result};

/// The vocabulary and the rules of a tokenizer, which together determine all ids. Each is stored with the file that states it.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// The vocabulary.
    pub vocabulary: VocabularyFile,
    /// The rules; none if no file states them.
    pub rules: Option<RulesFile>,
}

impl TokenizerFiles {
    /// Checks that both tokenizers have the same tokens with the same ids and, if files state both, the same rules.
    ///
    /// # Errors
    /// [`DataError::Vocabularies`] or [`DataError::Rules`] with the difference and `next`, the next step for the user.
    pub fn check_equal(&self, other: &TokenizerFiles, next: &str) -> Result<()> {
        self.vocabulary.check_equal(&other.vocabulary, next)?;
        let (Some(own), Some(others)) = (&self.rules, &other.rules) else { return Ok(()) };
        let [own, others] = [own, others].map(|file| (file.path.as_path(), file.rules.settings()));
        match RulesDifference::between(own, others) {
            Some(difference) => Err(DataError::Rules { difference: Box::new(difference), next: next.to_owned() }),
            None => Ok(()),
        }
    }
}

/// Rules and the file that states them.
#[derive(Clone, Debug)]
pub struct RulesFile {
    /// The file, or the directory of the tokenizer, for messages.
    pub path: PathBuf,
    /// The rules.
    pub rules: TokenizerRules,
}

/// A vocabulary and the file that holds it.
#[derive(Clone, Debug)]
pub struct VocabularyFile {
    /// The file, or the directory of the tokenizer, for messages.
    pub path: PathBuf,
    /// The vocabulary.
    pub vocabulary: Vocabulary,
}

impl VocabularyFile {
    /// Checks that both vocabularies have the same tokens with the same ids.
    ///
    /// # Errors
    /// [`DataError::Vocabularies`] with the first difference and `next`, the next step for the user.
    pub fn check_equal(&self, other: &VocabularyFile, next: &str) -> Result<()> {
        let [own, others] = [self, other].map(|file| (file.path.as_path(), file.vocabulary.tokens()));
        match VocabularyDifference::between(own, others) {
            Some(difference) => {
                Err(DataError::Vocabularies { difference: Box::new(difference), next: next.to_owned() })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::tokenizer::names::{CONFIG, TOKENIZER_JSON, VOCABULARY};
    use crate::data::tokenizer::special_tokens::SPECIAL_TOKENS;

    fn text(words: &[&str]) -> String {
        SPECIAL_TOKENS.iter().chain(words).map(|token| format!("{token}\n")).collect()
    }

    fn vocab_txt(directory: &str, text: &str) -> VocabularyFile {
        read(directory, &[(VOCABULARY, text)]).unwrap().unwrap().vocabulary
    }

    fn read(directory: &str, files: &[(&str, &str)]) -> Result<Option<TokenizerFiles>> {
        let content = |name: &str| files.iter().find(|(other, _)| *other == name).map(|(_, text)| text.as_bytes());
        TokenizerFiles::read(Path::new(directory), content)
    }

    /// Returns a lower-casing `tokenizer.json` with the tokens of a `vocab.txt`.
    fn json_of(text: &str) -> String {
        let vocab: serde_json::Map<_, _> =
            text.lines().zip(0..).map(|(token, id): (&str, u32)| (token.to_owned(), id.into())).collect();
        let normalizer = serde_json::json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true
        });
        serde_json::json!({
            "model": {"type": "WordPiece", "vocab": vocab}, "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}
        })
        .to_string()
    }

    fn message(a: &[&str], b: &[&str]) -> String {
        vocab_txt("A", &text(a)).check_equal(&vocab_txt("B", &text(b)), "choose one").unwrap_err().to_string()
    }

    #[test]
    fn line_ends_and_the_format_of_the_file_make_no_difference() {
        let words = text(&["cat", "##s", "été"]);
        let plain = vocab_txt("A", &words);
        for other in [words.replace('\n', "\r\n"), words.trim_end().to_owned()] {
            plain.check_equal(&vocab_txt("B", &other), "").unwrap();
        }
        let json = read("B", &[(TOKENIZER_JSON, &json_of(&words))]).unwrap().unwrap().vocabulary;
        assert_eq!(json.path, Path::new("B/tokenizer.json"));
        plain.check_equal(&json, "").unwrap();
        assert!(read("B", &[]).unwrap().is_none());
    }

    #[test]
    fn rules_of_words_are_compared_in_every_form_of_the_files() {
        let words = text(&["cat"]);
        let json = json_of(&words);
        let of_json = |from: &str, to: &str| read("A", &[(TOKENIZER_JSON, &json.replace(from, to))]).unwrap().unwrap();
        let of_config = |config: &str| read("B", &[(VOCABULARY, &words), (CONFIG, config)]).unwrap().unwrap();
        let shown = |a: &TokenizerFiles, b: &TokenizerFiles| {
            a.check_equal(b, "choose one").map_or_else(|error| error.to_string(), |()| "equal".to_owned())
        };
        let uncased = of_json("", "");
        // Absent settings, null and the value that null stands for are equal.
        for config in [
            r#"{"do_lower_case": true}"#,
            r#"{"do_lower_case": true, "strip_accents": null, "tokenize_chinese_chars": true}"#,
            r#"{"do_lower_case": true, "strip_accents": true}"#,
        ] {
            assert_eq!(shown(&uncased, &of_config(config)), "equal", "{config}");
        }
        let cased = of_json("\"lowercase\":true", "\"lowercase\":false");
        assert_eq!(shown(&cased, &of_config(r#"{"do_lower_case": false}"#)), "equal");
        assert_eq!(
            shown(&cased, &of_config(r#"{"do_lower_case": true}"#)),
            "A/tokenizer.json and B/tokenizer_config.json state different rules of words: lowercase is false in the first and true in \
             the second, strip_accents is false in the first and true in the second; choose one"
        );
        for (config, differing) in [
            (
                r#"{"do_lower_case": true, "strip_accents": false}"#,
                "words: strip_accents is true in the first and false in",
            ),
            (
                r#"{"do_lower_case": true, "tokenize_chinese_chars": false}"#,
                "words: tokenize_chinese_chars is true in the first",
            ),
            (
                r#"{"do_lower_case": false, "strip_accents": true}"#,
                "words: lowercase is true in the first and false in the second;",
            ),
        ] {
            let message = shown(&uncased, &of_config(config));
            assert!(message.contains(differing), "{message}");
        }
        // Without a file that states them, there is nothing to compare.
        for config in ["{}", r#"{"do_lower_case": null, "strip_accents": false}"#] {
            assert!(of_config(config).rules.is_none(), "{config}");
            assert_eq!(shown(&uncased, &of_config(config)), "equal");
        }
    }

    #[test]
    fn the_first_difference_and_their_number_are_reported() {
        assert_eq!(
            message(&["cat", "dog", "owl"], &["cat", "owl", "dog"]),
            "A/vocab.txt and B/vocab.txt hold different vocabularies: token \"dog\" has id 6 in the first and id 7 in the second, \
             and 2 of 8 ids have different tokens; choose one"
        );
        let replaced = message(&["cat", "dog"], &["cat", "elk"]);
        assert!(
            replaced.contains("\"dog\" has id 6 in the first and no id in the second, and 1 of 7 ids"),
            "{replaced}"
        );
        // One begins with the other.
        let longer = message(&["cat"], &["cat", "dog", "owl"]);
        assert!(longer.contains("\"dog\" has no id in the first and id 6 in the second, and 2 of 8 ids"), "{longer}");
        let shorter = message(&["cat", "dog"], &["cat"]);
        assert!(shorter.contains("\"dog\" has id 6 in the first and no id in the second, and 1 of 7 ids"), "{shorter}");
    }

    #[test]
    fn files_of_one_tokenizer_must_agree() {
        let (json, other) = (json_of(&text(&["cat"])), text(&["dog"]));
        let message = read("D", &[(TOKENIZER_JSON, &json), (VOCABULARY, &other)]).unwrap_err().to_string();
        assert!(message.starts_with("D/vocab.txt and D/tokenizer.json hold different vocabularies"), "{message}");
        for (json, required) in [
            ("{}", "a model of type WordPiece"),
            ("{", "JSON"),
            (r#"{"model": {"type": "BPE", "vocab": {}}}"#, "what the tokenizers library"),
        ] {
            let message = read("D", &[(TOKENIZER_JSON, json)]).unwrap_err().to_string();
            assert!(message.starts_with("D/tokenizer.json: requires ") && message.contains(required), "{message}");
        }
        let lowercase = json.replace("\"lowercase\":true", "\"lowercase\":null");
        let message = read("D", &[(TOKENIZER_JSON, &lowercase)]).unwrap_err().to_string();
        assert!(message.starts_with("D/tokenizer.json: requires a normalizer of type BertNormalizer"), "{message}");
        let cased = read("D", &[(TOKENIZER_JSON, &json), (CONFIG, r#"{"do_lower_case": false}"#)]);
        let message = cased.unwrap_err().to_string();
        assert!(
            message.starts_with("D/tokenizer_config.json: requires do_lower_case to be true, as in the rest"),
            "{message}"
        );
    }
}
