//! Questions about paragraphs in the JSON of SQuAD v1.1 and v2.0 (Rajpurkar et al. 2016, 2018), whose answers are spans of
//! the paragraph.

use std::collections::HashSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::corpus::read_whole_text;
use crate::data::error::{DataError, Result};

/// The version of a SQuAD file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SquadVersion {
    /// Every question has an answer.
    #[default]
    #[serde(rename = "1.1")]
    V1,
    /// A question may have no answer.
    #[serde(rename = "2.0")]
    V2,
}

/// A paragraph, and its words: what stands between white space. Offsets count characters (code points), as in the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    text: String,
    words: Vec<ContextWord>,
    characters: usize,
}

/// A word of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ContextWord {
    bytes: Range<usize>,
    /// Characters before the word.
    start: usize,
}

/// A question about a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The id, unique in the file.
    pub id: String,
    /// The text of the question.
    pub text: String,
    /// The index of the context.
    pub context: usize,
    /// The answers.
    pub gold: Gold,
}

/// The answers of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gold {
    /// They are not known: a question for predictions.
    Unknown,
    /// The context holds no answer.
    Impossible,
    /// At least one. Training uses the first.
    Answers(Vec<Answer>),
}

/// An answer: a text of the context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// The number of characters of the context before it.
    pub start: usize,
}

/// The questions of a file, with their contexts.
#[derive(Clone, Debug)]
pub struct Questions {
    pub(super) path: PathBuf,
    contexts: Vec<Context>,
    questions: Vec<Question>,
}

#[derive(Deserialize)]
struct File {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<AnswerEntry>,
    #[serde(default)]
    is_impossible: bool,
}

#[derive(Deserialize)]
struct AnswerEntry {
    text: String,
    answer_start: usize,
}

impl Questions {
    /// Reads a file. Questions with `is_impossible` need `version` 2.0.
    ///
    /// # Errors
    /// If the file cannot be read, has another form or no question; if an id is repeated, a text is empty, or an answer is
    /// missing or outside of its context.
    pub fn read(path: &Path, version: SquadVersion) -> Result<Questions> {
        let file: File = serde_json::from_str(&read_whole_text(path)?).map_err(|error| {
            let required = "the JSON of SQuAD, {\"data\": [{\"paragraphs\": [{\"context\", \"qas\"}]}]}";
            DataError::file(path, required, format!("another form ({error})"), "correct the file")
        })?;
        let mut all = Questions { path: path.to_owned(), contexts: Vec::new(), questions: Vec::new() };
        let mut ids = HashSet::new();
        for Paragraph { context, qas } in file.data.into_iter().flat_map(|article| article.paragraphs) {
            let context = Context::new(context);
            for entry in qas {
                if !ids.insert(entry.id.clone()) {
                    return Err(all.wrong(
                        "each id once",
                        format!("{:?} twice", entry.id),
                        "give each question its own",
                    ));
                }
                let question = all.question(entry, &context, version)?;
                all.questions.push(question);
            }
            all.contexts.push(context);
        }
        match all.questions.is_empty() {
            true => Err(all.wrong("at least one question", "none", "add questions")),
            false => Ok(all),
        }
    }

    /// Takes questions without answers, each an id, a question and its context, for predictions.
    pub fn unlabelled(questions: impl IntoIterator<Item = [String; 3]>) -> Questions {
        let mut all = Questions { path: "questions".into(), contexts: Vec::new(), questions: Vec::new() };
        for [id, text, context] in questions {
            if all.contexts.last().is_none_or(|last| last.text != context) {
                all.contexts.push(Context::new(context));
            }
            all.questions.push(Question { id, text, context: all.contexts.len() - 1, gold: Gold::Unknown });
        }
        all
    }

    /// Checks a question of the context that comes next.
    fn question(&self, entry: Entry, context: &Context, version: SquadVersion) -> Result<Question> {
        let Entry { id, question, answers, is_impossible } = entry;
        if question.trim().is_empty() {
            let required = format!("a question with the id {id:?}");
            return Err(self.wrong(required, "an empty text", "add it, or remove the entry"));
        }
        if context.words.is_empty() {
            return Err(self.wrong(format!("a context for question {id:?}"), "an empty text", "remove the paragraph"));
        }
        let gold = match (is_impossible, version) {
            (true, SquadVersion::V2) => Gold::Impossible,
            (true, SquadVersion::V1) => {
                let required = format!("an answer to question {id:?}, as in every file of SQuAD 1.1");
                return Err(self.wrong(required, "is_impossible", "set version to \"2.0\""));
            }
            (false, _) if answers.is_empty() => {
                let next = "add it, or remove the question";
                return Err(self.wrong(format!("an answer to question {id:?}"), "none", next));
            }
            (false, _) => {
                let answers = answers.into_iter().map(|answer| self.answer(&id, answer, context));
                Gold::Answers(answers.collect::<Result<_>>()?)
            }
        };
        Ok(Question { id, text: question, context: self.contexts.len(), gold })
    }

    fn answer(&self, id: &str, answer: AnswerEntry, context: &Context) -> Result<Answer> {
        let AnswerEntry { text, answer_start: start } = answer;
        let next = "correct the answer, or remove it";
        if text.trim().is_empty() {
            return Err(self.wrong(format!("an answer to question {id:?}"), "an empty text", next));
        }
        let answer = Answer { text, start };
        match context.words_of(&answer) {
            Some(_) => Ok(answer),
            None => {
                let required = format!("the answer {:?} of question {id:?} at character {start}", answer.text);
                let found = context.text.chars().skip(start).take(answer.text.chars().count()).collect::<String>();
                let found = if found.is_empty() { "the end of the context".to_owned() } else { format!("{found:?}") };
                Err(self.wrong(required, found, next))
            }
        }
    }

    /// Returns the error that the file requires `required`.
    pub(super) fn wrong(&self, required: impl Into<String>, found: impl Into<String>, next: &str) -> DataError {
        DataError::file(&self.path, required, found, next)
    }

    /// Returns the contexts.
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Returns the questions in the order of the file.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }
}

impl Gold {
    /// Returns the texts that count as right: `""` if there is no answer, nothing if the answers are unknown.
    pub fn texts(&self) -> Vec<&str> {
        match self {
            Gold::Unknown => Vec::new(),
            Gold::Impossible => vec![""],
            Gold::Answers(answers) => answers.iter().map(|answer| answer.text.as_str()).collect(),
        }
    }
}

impl Context {
    /// Splits a text into its words.
    pub fn new(text: String) -> Context {
        let mut words: Vec<ContextWord> = Vec::new();
        let mut characters = 0;
        let mut is_inside = false;
        for (start, (byte, character)) in text.char_indices().enumerate() {
            let end = byte + character.len_utf8();
            characters += 1;
            match (separates_words(character), words.last_mut()) {
                (true, _) => is_inside = false,
                (false, Some(word)) if is_inside => word.bytes.end = end,
                (false, _) => {
                    is_inside = true;
                    words.push(ContextWord { bytes: byte..end, start });
                }
            }
        }
        Context { text, words, characters }
    }

    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the words.
    pub(super) fn words(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.words.iter().map(|word| &self.text[word.bytes.clone()])
    }

    /// Returns the words in a range, separated by single spaces.
    pub(super) fn joined(&self, words: RangeInclusive<usize>) -> String {
        self.words().skip(*words.start()).take(words.end() - words.start() + 1).collect::<Vec<_>>().join(" ")
    }

    /// Returns the number of characters of the context before character `at` of [`Context::joined`].
    pub(super) fn start_of(&self, words: RangeInclusive<usize>, at: usize) -> usize {
        let mut rest = at;
        for word in &self.words[words.clone()] {
            let length = self.text[word.bytes.clone()].chars().count();
            if rest < length {
                return word.start + rest;
            }
            // The space behind the word.
            rest = rest.saturating_sub(length + 1);
        }
        self.words[*words.end()].start
    }

    /// Returns the words that hold an answer, or `None` if they do not contain its text.
    pub(super) fn words_of(&self, answer: &Answer) -> Option<RangeInclusive<usize>> {
        let word_at = |character: usize| self.words.partition_point(|word| word.start <= character).checked_sub(1);
        let last = answer.start.checked_add(answer.text.chars().count().checked_sub(1)?)?;
        if last >= self.characters {
            return None;
        }
        let words = word_at(answer.start)?..=word_at(last)?;
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        plain(&self.joined(words.clone())).contains(&plain(&answer.text)).then_some(words)
    }
}

/// Returns whether a character separates the words of a context (google-research/bert `run_squad.py`, `is_whitespace`).
fn separates_words(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n' | '\u{202f}')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CONTEXT: &str = "  Café\u{202f}Ünal \n(1999) won.";

    fn read(qas: &Value, version: SquadVersion) -> std::result::Result<Questions, String> {
        let file = json!({"version": "x", "data": [{"title": "t", "paragraphs": [{"context": CONTEXT, "qas": qas}]}]});
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dev.json");
        std::fs::write(&path, file.to_string()).unwrap();
        Questions::read(&path, version)
            .map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
    }

    fn question(answers: &Value) -> Value {
        json!([{"id": "q", "question": "When?", "answers": answers}])
    }

    #[test]
    fn answers_are_found_in_the_words_of_their_context() {
        let context = Context::new(CONTEXT.to_owned());
        assert_eq!(context.words().collect::<Vec<_>>(), ["Café", "Ünal", "(1999)", "won."]);
        let words = |text: &str, start| context.words_of(&Answer { text: text.to_owned(), start });
        assert_eq!(words("1999", 14), Some(2..=2));
        assert_eq!(words("Ünal (1999", 7), Some(1..=2));
        assert_eq!(words("Café", 8), None);
        assert_eq!(words("won.", 400), None);
        assert_eq!((context.joined(1..=2).as_str(), context.start_of(1..=2, 6)), ("Ünal (1999)", 14));
        assert_eq!(context.start_of(1..=2, 0), 7);
    }

    #[test]
    fn questions_without_answers_need_version_2() {
        let impossible = json!([{"id": "q", "question": "Who?", "answers": [], "is_impossible": true}]);
        let questions = read(&impossible, SquadVersion::V2).unwrap();
        assert_eq!(questions.questions()[0].gold.texts(), [""]);
        let expected = "dev.json: requires an answer to question \"q\", as in every file of SQuAD 1.1, got is_impossible; set version to \"2.0\"";
        assert_eq!(read(&impossible, SquadVersion::V1).unwrap_err(), expected);
        let expected = "dev.json: requires an answer to question \"q\", got none; add it, or remove the question";
        assert_eq!(read(&question(&json!([])), SquadVersion::V2).unwrap_err(), expected);
    }

    #[test]
    fn answers_outside_of_their_context_are_errors() {
        for (answer, expected) in [
            (
                json!({"text": "2001", "answer_start": 14}),
                "the answer \"2001\" of question \"q\" at character 14, got \"1999\"; correct the answer, or remove it",
            ),
            (
                json!({"text": "1999", "answer_start": 99}),
                "the answer \"1999\" of question \"q\" at character 99, got the end of the context; correct the answer, or remove it",
            ),
            (
                json!({"text": " ", "answer_start": 3}),
                "an answer to question \"q\", got an empty text; correct the answer, or remove it",
            ),
        ] {
            let found = read(&question(&json!([answer])), SquadVersion::V1).unwrap_err();
            assert_eq!(found, format!("dev.json: requires {expected}"));
        }
    }

    #[test]
    fn repeated_ids_and_other_files_are_errors() {
        let answer = json!([{"text": "1999", "answer_start": 14}]);
        let mut twice = question(&answer);
        let one = twice[0].clone();
        twice.as_array_mut().unwrap().push(one);
        assert!(read(&twice, SquadVersion::V1).unwrap_err().contains("requires each id once, got \"q\" twice"));
        assert!(read(&json!([]), SquadVersion::V1).unwrap_err().contains("requires at least one question, got none"));
        assert!(read(&json!([{"id": 1}]), SquadVersion::V1).unwrap_err().contains("requires the JSON of SQuAD"));
    }
}
