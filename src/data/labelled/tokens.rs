//! Sentences with a label for each word: CoNLL columns, or JSONL with lists of words and labels.
//!
//! In a CoNLL file, a line is a word, its columns are separated by white space, and an empty line or a line that starts with
//! `-DOCSTART-` ends a sentence.

use std::path::Path;

use serde_json::Value;

use super::columns::{Column, Selected, name_of};
use super::json_lines;
use super::labels::LabelNames;
use super::table::Origin;
use crate::batch::IGNORED_LABEL;
use crate::data::corpus::{extension_of, read_whole_text};
use crate::data::error::{DataError, Result};

const DOCUMENT_START: &str = "-DOCSTART-";

/// The columns of a file of labelled words. In CoNLL files they are numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenColumns {
    /// The words; by default the first column, and in JSONL the key `tokens`.
    pub tokens: Option<Column>,
    /// The labels; by default the last column, and in JSONL the key `labels`.
    pub labels: Option<Column>,
}

/// The sentences of a file, with their labels as text.
#[derive(Clone, Debug)]
pub struct LabelledSentences {
    origin: Origin,
    sentences: Vec<Vec<String>>,
    /// For each sentence the line and the label of each word; empty for sentences without labels.
    labels: Vec<Vec<(u64, String)>>,
}

impl LabelledSentences {
    /// Reads a file of labelled words: JSONL if its name ends in `.jsonl`, else CoNLL columns.
    ///
    /// # Errors
    /// If the file cannot be read or has no sentence; if a word or a label is missing.
    pub fn read(path: &Path, columns: &TokenColumns) -> Result<LabelledSentences> {
        let text = read_whole_text(path)?;
        let origin = Origin { path: path.to_owned(), unit: "line" };
        let mut file = LabelledSentences { origin, sentences: Vec::new(), labels: Vec::new() };
        match extension_of(path).as_str() {
            "jsonl" | "ndjson" => file.read_json_lines(&text, columns)?,
            other @ ("tsv" | "csv" | "parquet" | "json") => {
                let required = "a name that ends in .jsonl, or in .conll for CoNLL columns";
                return Err(DataError::file(path, required, format!("{other:?}"), "rename or convert the file"));
            }
            _ => file.read_conll(&text, columns)?,
        }
        match file.sentences.is_empty() {
            true => Err(DataError::file(path, "at least one sentence", "none", "write one word to a line")),
            false => Ok(file),
        }
    }

    fn read_conll(&mut self, text: &str, columns: &TokenColumns) -> Result<()> {
        let number_of = |column: &Option<Column>, setting| match column {
            None => Ok(None),
            Some(Column::Number(number @ 1..)) => Ok(Some(number - 1)),
            Some(other) => Err(DataError::setting(setting, "the number of a column, from 1, for CoNLL files", other)),
        };
        let (word, label) = (number_of(&columns.tokens, "text")?, number_of(&columns.labels, "label")?);
        let mut is_inside = false;
        for (line, number) in text.lines().zip(1..) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            if cells.first().is_none_or(|first| *first == DOCUMENT_START) {
                is_inside = false;
                continue;
            }
            let (word, label) = (word.unwrap_or(0), label.unwrap_or(cells.len() - 1));
            // The word alone is no label.
            let required = (word + 1).max(label + 1).max(2);
            if cells.len() < required {
                let next = "add the missing cells, or correct the numbers of text and label";
                return Err(self.origin.wrong(
                    number,
                    format!("at least {required} columns"),
                    cells.len().to_string(),
                    next,
                ));
            }
            if !std::mem::replace(&mut is_inside, true) {
                self.sentences.push(Vec::new());
                self.labels.push(Vec::new());
            }
            if let (Some(sentence), Some(labels)) = (self.sentences.last_mut(), self.labels.last_mut()) {
                sentence.push(cells[word].to_owned());
                labels.push((number, cells[label].to_owned()));
            }
        }
        Ok(())
    }

    fn read_json_lines(&mut self, text: &str, columns: &TokenColumns) -> Result<()> {
        let or = |column: &Option<Column>, name: &str| column.clone().unwrap_or(Column::Name(name.to_owned()));
        let (tokens, labels) = (or(&columns.tokens, "tokens"), or(&columns.labels, "labels"));
        let tokens = Selected { setting: "text", column: &tokens };
        let labels = Selected { setting: "label", column: &labels };
        let Origin { path, .. } = self.origin.clone();
        let (words_key, labels_key) = (name_of(&path, &tokens)?, name_of(&path, &labels)?);
        for object in json_lines::objects(&path, text) {
            let (number, object) = object?;
            let words = self.list(number, words_key, json_lines::value(&path, number, &object, words_key, &tokens)?)?;
            let names =
                self.list(number, labels_key, json_lines::value(&path, number, &object, labels_key, &labels)?)?;
            if words.is_empty() {
                let next = "remove the example";
                return Err(self.origin.wrong(number, format!("at least one word in {words_key:?}"), "none", next));
            }
            if words.len() != names.len() {
                let found = format!("{} words and {} labels", words.len(), names.len());
                return Err(self.origin.wrong(number, "a label for each word", found, "correct the lists"));
            }
            self.sentences.push(words);
            self.labels.push(names.into_iter().map(|name| (number, name)).collect());
        }
        Ok(())
    }

    /// Returns the elements of a list of texts that are not blank.
    fn list(&self, number: u64, key: &str, value: &Value) -> Result<Vec<String>> {
        let wrong =
            |found: &str| self.origin.wrong(number, format!("a list of texts as {key:?}"), found, "correct the value");
        let Value::Array(list) = value else { return Err(wrong(json_lines::kind(value))) };
        let text = |value: &Value| match json_lines::scalar(value) {
            Some(text) if text.trim().is_empty() => Err(wrong("an empty text in it")),
            Some(text) => Ok(text),
            None => Err(wrong(&format!("{} in it", json_lines::kind(value)))),
        };
        list.iter().map(text).collect()
    }

    /// Returns the words of each sentence.
    pub fn sentences(&self) -> &[Vec<String>] {
        &self.sentences
    }

    /// Returns the classes of a training file: `given`, or the labels that occur in it, sorted.
    ///
    /// # Errors
    /// If only one label occurs.
    pub fn label_names(&self, given: Option<&LabelNames>) -> Result<LabelNames> {
        let occurring = self.labels.iter().flatten().map(|(_, label)| label.as_str());
        LabelNames::for_training(given, occurring, &self.origin)
    }

    /// Returns the class of each word of each sentence; [`IGNORED_LABEL`] for sentences without labels.
    ///
    /// # Errors
    /// If a label is not among `names`.
    pub fn classes(&self, names: &LabelNames) -> Result<Vec<Vec<i32>>> {
        if self.labels.is_empty() {
            return Ok(self.sentences.iter().map(|words| vec![IGNORED_LABEL; words.len()]).collect());
        }
        let class = |(number, label): &(u64, String)| names.class_at(label, &self.origin, *number);
        self.labels.iter().map(|sentence| sentence.iter().map(class).collect()).collect()
    }
}

impl From<Vec<Vec<String>>> for LabelledSentences {
    /// Takes the words of sentences without labels, for predictions.
    fn from(sentences: Vec<Vec<String>>) -> Self {
        LabelledSentences { origin: Origin { path: "sentences".into(), unit: "line" }, sentences, labels: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, columns: &TokenColumns) -> std::result::Result<LabelledSentences, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        LabelledSentences::read(&path, columns)
            .map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
    }

    const CONLL: &str = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP I-NP B-PER\n";

    #[test]
    fn conll_columns_are_sentences_between_empty_lines() {
        let file = read("train.conll", CONLL, &TokenColumns::default()).unwrap();
        assert_eq!(file.sentences(), [vec!["EU", "rejects"], vec!["Peter"]]);
        let names = file.label_names(None).unwrap();
        assert_eq!(names.names(), ["B-ORG", "B-PER", "O"]);
        assert_eq!(file.classes(&names).unwrap(), [vec![0, 2], vec![1]]);
        let columns = TokenColumns { tokens: None, labels: Some(Column::Number(2)) };
        assert_eq!(read("x", CONLL, &columns).unwrap().label_names(None).unwrap().names(), ["NNP", "VBZ"]);
    }

    #[test]
    fn json_lines_hold_lists_of_words_and_labels() {
        let text = r#"{"tokens": ["New York", "."], "labels": ["B-LOC", "O"]}"#;
        let file = read("train.jsonl", text, &TokenColumns::default()).unwrap();
        assert_eq!(file.sentences(), [vec!["New York", "."]]);
        let names = LabelNames::new(vec!["O".into(), "B-LOC".into()]).unwrap();
        assert_eq!(file.classes(&names).unwrap(), [vec![1, 0]]);
    }

    #[test]
    fn missing_and_unknown_labels_are_errors_with_their_line() {
        let default = TokenColumns::default();
        for (name, text, expected) in [
            (
                "a.conll",
                "EU B-ORG\nrejects\n",
                "requires at least 2 columns on line 2, got 1; add the missing cells, or correct the numbers of text and label",
            ),
            ("a.conll", "\n", "requires at least one sentence, got none; write one word to a line"),
            (
                "a.jsonl",
                r#"{"tokens": ["a"], "labels": []}"#,
                "requires a label for each word on line 1, got 1 words and 0 labels; correct the lists",
            ),
            (
                "a.jsonl",
                r#"{"tokens": ["a", " "], "labels": ["O", "O"]}"#,
                "requires a list of texts as \"tokens\" on line 1, got an empty text in it; correct the value",
            ),
        ] {
            assert_eq!(read(name, text, &default).map(drop).unwrap_err(), format!("{name}: {expected}"));
        }
        let names = LabelNames::new(vec!["O".into(), "B-ORG".into()]).unwrap();
        let unknown = read("dev.conll", CONLL, &default).unwrap().classes(&names).unwrap_err().to_string();
        assert!(unknown.contains("one of the labels \"O\", \"B-ORG\" on line 7, got \"B-PER\""), "{unknown}");
    }
}
