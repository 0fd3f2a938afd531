//! The comparison of vocabularies, token by token. Line ends, a missing last one, and the format of the file (`vocab.txt` or
//! `tokenizer.json`) make no difference.

use std::fmt;
use std::path::{Path, PathBuf};

use super::files::{TOKENIZER_JSON, VOCABULARY, vocabulary_of_json};
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
    /// Reads the vocabulary of the tokenizer whose files have the names and contents of `content`, in `directory`; none if there
    /// is no `vocab.txt` and no `tokenizer.json`.
    ///
    /// # Errors
    /// If a file holds no WordPiece vocabulary, or the two files hold different ones.
    pub fn of_tokenizer<'c>(
        directory: &Path,
        content: impl Fn(&str) -> Option<&'c [u8]>,
    ) -> Result<Option<VocabularyFile>> {
        let read = |name: &str, parse: fn(&Path, &[u8]) -> Result<Vocabulary>| -> Result<Option<VocabularyFile>> {
            let Some(content) = content(name) else { return Ok(None) };
            let path = directory.join(name);
            Ok(Some(VocabularyFile { vocabulary: parse(&path, content)?, path }))
        };
        match (read(VOCABULARY, Vocabulary::parse)?, read(TOKENIZER_JSON, vocabulary_of_json)?) {
            (Some(text), Some(json)) => {
                text.check_equal(&json, "remove the wrong file")?;
                Ok(Some(text))
            }
            (text, json) => Ok(text.or(json)),
        }
    }

    /// Checks that both vocabularies have the same tokens with the same ids.
    ///
    /// # Errors
    /// [`DataError::Vocabularies`] with the first difference and `next`, the next step for the user.
    pub fn check_equal(&self, other: &VocabularyFile, next: &str) -> Result<()> {
        match VocabularyDifference::between(self, other) {
            Some(difference) => {
                Err(DataError::Vocabularies { difference: Box::new(difference), next: next.to_owned() })
            }
            None => Ok(()),
        }
    }
}

/// The difference between two vocabularies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyDifference {
    /// The two files.
    pub files: [PathBuf; 2],
    /// The token of the lowest id that has different tokens: that of the first vocabulary or, behind its end, of the second.
    pub token: String,
    /// The ids of this token.
    pub ids: [Option<u32>; 2],
    /// The number of ids with different tokens. An id of only one vocabulary counts, too.
    pub differing: usize,
    /// The number of ids of the larger vocabulary.
    pub of: usize,
}

impl VocabularyDifference {
    /// Returns the difference between two vocabularies; none if they are equal.
    pub fn between(a: &VocabularyFile, b: &VocabularyFile) -> Option<VocabularyDifference> {
        let [first, second] = [a, b].map(|file| file.vocabulary.tokens());
        let of = first.len().max(second.len());
        let mut differing = (0..of).filter(|&id| first.get(id) != second.get(id));
        let lowest = differing.next()?;
        let token = first.get(lowest).or(second.get(lowest))?;
        let id_in = |tokens: &[String]| tokens.iter().position(|other| other == token).map(|id| id as u32);
        Some(VocabularyDifference {
            files: [a.path.clone(), b.path.clone()],
            token: token.clone(),
            ids: [id_in(first), id_in(second)],
            differing: 1 + differing.count(),
            of,
        })
    }
}

impl fmt::Display for VocabularyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.files;
        let [in_first, in_second] = self.ids.map(|id| id.map_or("no id".to_owned(), |id| format!("id {id}")));
        write!(
            f,
            "{} and {} hold different vocabularies: token {:?} has {in_first} in the first and {in_second} in the second, and {} \
             of {} ids have different tokens",
            first.display(),
            second.display(),
            self.token,
            self.differing,
            self.of
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
