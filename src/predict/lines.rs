//! The input of predictions: one text, pair of texts, or question a line, from a file or standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Deserialize;

use crate::data::{TextPair, describe_json_error};
use crate::files;

/// The meaning of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFormat {
    /// A text.
    Text,
    /// A text, or two texts that are separated by a tab.
    TabSeparated,
    /// A JSON object: `{"text": …, "text_pair": …}`, or `{"question": …, "context": …}`.
    JsonLines,
}

/// The lines of an input.
#[derive(Clone, Debug)]
pub struct Lines {
    origin: String,
    lines: Vec<String>,
}

/// A question about a context.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct QuestionLine {
    /// The question.
    pub question: String,
    /// The text that holds the answer.
    pub context: String,
}

impl Lines {
    /// Reads a file, or standard input if there is no path.
    ///
    /// # Errors
    /// If the input cannot be read, is not UTF-8 text, or has no line.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Lines> {
        let origin = path.map_or("standard input".to_owned(), |path| path.display().to_string());
        let mut bytes = Vec::new();
        match path {
            Some(path) => files::read(path).map(|content| bytes = content),
            None => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
        }
        .with_context(|| format!("cannot read {origin}"))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
            anyhow!("{origin}: requires text in UTF-8, got other bytes on line {line}; convert it to UTF-8")
        })?;
        Lines::new(origin, &text)
    }

    /// Splits a text, without a byte order mark.
    fn new(origin: String, text: &str) -> anyhow::Result<Lines> {
        let lines: Vec<String> = text.trim_start_matches('\u{feff}').lines().map(str::to_owned).collect();
        match lines.is_empty() {
            true => Err(anyhow!("{origin}: requires at least one line, got none; write one text to a line")),
            false => Ok(Lines { origin, lines }),
        }
    }

    /// Returns the texts, one for each line, for a model that does not read pairs. Lines are JSON objects if `is_json`.
    ///
    /// # Errors
    /// As [`Lines::texts`]; if a line has a second text.
    pub fn single_texts(&self, is_json: bool) -> anyhow::Result<Vec<String>> {
        let texts = self.texts(if is_json { LineFormat::JsonLines } else { LineFormat::Text })?;
        let single = |(index, pair): (usize, TextPair)| match pair.text_pair {
            Some(_) => {
                Err(self.wrong(index, "one text", "a \"text_pair\"", "remove it: this model does not read pairs"))
            }
            None => Ok(pair.text),
        };
        texts.into_iter().enumerate().map(single).collect()
    }

    /// Returns the texts or pairs of texts, one for each line.
    ///
    /// # Errors
    /// If a text is empty, or a line is not a JSON object with a text.
    pub fn texts(&self, format: LineFormat) -> anyhow::Result<Vec<TextPair>> {
        let text = |(index, line): (usize, &String)| {
            let texts = match format {
                LineFormat::Text => TextPair { text: line.clone(), text_pair: None },
                LineFormat::TabSeparated => match line.split_once('\t') {
                    Some((text, pair)) => TextPair { text: text.to_owned(), text_pair: Some(pair.to_owned()) },
                    None => TextPair { text: line.clone(), text_pair: None },
                },
                LineFormat::JsonLines => self.json(index, line, "{\"text\": …}")?,
            };
            for text in [Some(&texts.text), texts.text_pair.as_ref()].into_iter().flatten() {
                self.present(index, "text", text)?;
            }
            Ok(texts)
        };
        self.lines.iter().enumerate().map(text).collect()
    }

    /// Returns the questions, one for each line of JSON.
    ///
    /// # Errors
    /// If a line is not a JSON object with a question and its context, or one of them is empty.
    pub fn questions(&self) -> anyhow::Result<Vec<QuestionLine>> {
        let question = |(index, line): (usize, &String)| {
            let found: QuestionLine = self.json(index, line, "{\"question\": …, \"context\": …}")?;
            self.present(index, "question", &found.question)?;
            self.present(index, "context", &found.context)?;
            Ok(found)
        };
        self.lines.iter().enumerate().map(question).collect()
    }

    fn json<'l, T: Deserialize<'l>>(&self, index: usize, line: &'l str, form: &str) -> anyhow::Result<T> {
        serde_json::from_str(line).map_err(|error| {
            self.wrong(
                index,
                &format!("a JSON object {form}"),
                &describe_json_error(line, &error),
                "write each input whole, on a line of its own",
            )
        })
    }

    fn present(&self, index: usize, what: &str, text: &str) -> anyhow::Result<()> {
        match text.trim().is_empty() {
            true => Err(self.wrong(index, &format!("a {what}"), "an empty one", "remove the line, or write the text")),
            false => Ok(()),
        }
    }

    /// Returns the error that line `index`, from 0, requires `required`.
    pub fn wrong(&self, index: usize, required: &str, found: &str, next: &str) -> anyhow::Error {
        anyhow!("{}: requires {required} on line {}, got {found}; {next}", self.origin, index + 1)
    }
}

/// Returns the path of an input that a user named: none for `-`, which is standard input.
pub fn path_of(input: &Path) -> Option<PathBuf> {
    (input != Path::new("-")).then(|| input.to_path_buf())
}

/// Returns whether a file has the name of JSON lines.
pub fn is_json_lines(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jsonl" || extension == "ndjson")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> Lines {
        Lines::new("in.txt".into(), &lines.join("\r\n")).unwrap()
    }

    #[test]
    fn a_tab_separates_a_pair_where_pairs_are_expected() {
        let input = lines(&["a b\tc\td", "e"]);
        let pair = |text: &str, pair: Option<&str>| TextPair { text: text.into(), text_pair: pair.map(str::to_owned) };
        let texts = input.texts(LineFormat::TabSeparated).unwrap();
        assert_eq!(texts, [pair("a b", Some("c\td")), pair("e", None)]);
        assert_eq!(input.texts(LineFormat::Text).unwrap()[0], pair("a b\tc\td", None));
        let json = lines(&[r#"{"text": "a", "text_pair": "b", "id": 3}"#, r#"{"text": "c"}"#]);
        assert_eq!(json.texts(LineFormat::JsonLines).unwrap(), [pair("a", Some("b")), pair("c", None)]);
    }

    #[test]
    fn byte_order_marks_are_no_text() {
        assert_eq!(lines(&["\u{feff}a", "b"]).single_texts(false).unwrap(), ["a", "b"]);
        assert_eq!(lines(&["\u{feff}{\"text\": \"a\"}"]).single_texts(true).unwrap(), ["a"]);
    }

    #[test]
    fn errors_name_the_line_and_what_it_requires() {
        let message = |input: &[&str], format| lines(input).texts(format).unwrap_err().to_string();
        let said = message(&["a", " "], LineFormat::Text);
        assert_eq!(said, "in.txt: requires a text on line 2, got an empty one; remove the line, or write the text");
        assert!(message(&["a\t"], LineFormat::TabSeparated).contains("on line 1, got an empty one"));
        assert!(message(&["{\"txt\": 1}"], LineFormat::JsonLines).contains("a JSON object {\"text\": …} on line 1"));
        let said = message(&["{\"text\": \"a\"}", "{\"text\": }"], LineFormat::JsonLines);
        assert!(said.contains("on line 2, got expected value at column 10; write"), "{said}");
        let said = lines(&[r#"{"text": "a", "text_pair": "b"}"#]).single_texts(true).unwrap_err().to_string();
        assert!(said.contains("requires one text on line 1, got a \"text_pair\"; remove it"), "{said}");
        let said = lines(&[r#"{"question": "who?"}"#]).questions().unwrap_err().to_string();
        assert!(said.contains("{\"question\": …, \"context\": …} on line 1, got missing field `context`"), "{said}");
    }
}
