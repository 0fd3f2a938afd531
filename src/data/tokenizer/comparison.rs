//! The comparison of vocabularies, token by token. Line ends, a missing last one, and the format of the file (`vocab.txt` or
//! `tokenizer.json`) make no difference.

use std::path::PathBuf;

use super::difference::VocabularyDifference;
use super::vocabulary::Vocabulary;
use crate::data::error::{DataError, Result};

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
    use crate::data::tokenizer::files::{TOKENIZER_JSON, VOCABULARY};
    use crate::data::tokenizer::vocabulary::SPECIAL_TOKENS;

    fn text(words: &[&str]) -> String {
        SPECIAL_TOKENS.iter().chain(words).map(|token| format!("{token}\n")).collect()
    }

    fn vocab_txt(directory: &str, text: &str) -> VocabularyFile {
        let content = |name: &str| (name == VOCABULARY).then_some(text.as_bytes());
        VocabularyFile::of_tokenizer(Path::new(directory), content).unwrap().unwrap()
    }

    /// Returns a `tokenizer.json` with the tokens of a `vocab.txt`.
    fn json_of(text: &str) -> String {
        let vocab: serde_json::Map<_, _> =
            text.lines().zip(0..).map(|(token, id): (&str, u32)| (token.to_owned(), id.into())).collect();
        serde_json::json!({"model": {"type": "WordPiece", "vocab": vocab}}).to_string()
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
        let json = json_of(&words);
        let json = |name: &str| (name == TOKENIZER_JSON).then_some(json.as_bytes());
        let json = VocabularyFile::of_tokenizer(Path::new("B"), json).unwrap().unwrap();
        assert_eq!(json.path, Path::new("B/tokenizer.json"));
        plain.check_equal(&json, "").unwrap();
        assert!(VocabularyFile::of_tokenizer(Path::new("B"), |_| None).unwrap().is_none());
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
        let content = |name: &str| match name {
            TOKENIZER_JSON => Some(json.as_bytes()),
            VOCABULARY => Some(other.as_bytes()),
            _ => None,
        };
        let message = VocabularyFile::of_tokenizer(Path::new("D"), content).unwrap_err().to_string();
        assert!(message.starts_with("D/vocab.txt and D/tokenizer.json hold different vocabularies"), "{message}");
        for (json, required) in [
            ("{}", "a model of type WordPiece"),
            ("{", "JSON"),
            (r#"{"model": {"type": "BPE", "vocab": {}}}"#, "WordPiece"),
        ] {
            let content = |name: &str| (name == TOKENIZER_JSON).then_some(json.as_bytes());
            let message = VocabularyFile::of_tokenizer(Path::new("D"), content).unwrap_err().to_string();
            assert!(message.starts_with("D/tokenizer.json: requires ") && message.contains(required), "{message}");
        }
    }
}
