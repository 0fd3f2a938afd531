//! Texts and pairs of texts, each with a class or a number.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::columns::{Column, Row, Selected};
use super::labels::LabelNames;
use super::table::{Origin, Table};
use crate::batch::IGNORED_LABEL;
use crate::data::error::Result;

/// The columns of a table of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumns {
    /// The first text.
    pub text: Column,
    /// The second text, for pairs.
    pub text_pair: Option<Column>,
    /// The label; none for files without labels.
    pub label: Option<Column>,
}

impl Default for TextColumns {
    /// Returns the columns `text` and `label`.
    fn default() -> Self {
        TextColumns { text: Column::Name("text".into()), text_pair: None, label: Some(Column::Name("label".into())) }
    }
}

/// A text, or a pair of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextPair {
    /// The first text.
    pub text: String,
    /// The second text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
}

/// The texts of a file, with their labels as text.
#[derive(Clone, Debug)]
pub struct LabelledTexts {
    origin: Origin,
    texts: Vec<TextPair>,
    /// The line or row of each text, and its label; empty for a file without labels.
    labels: Vec<(u64, String)>,
}

impl LabelledTexts {
    /// Reads a table of texts; the name of the file gives its format: `.tsv`, `.csv`, `.jsonl` or `.parquet`.
    ///
    /// # Errors
    /// If the file cannot be read, has no row or misses a column; if a value is missing or a text is empty.
    pub fn read(path: &Path, columns: &TextColumns) -> Result<LabelledTexts> {
        let texts = [("text", Some(&columns.text)), ("text_pair", columns.text_pair.as_ref())];
        let all = texts.into_iter().chain([("label", columns.label.as_ref())]);
        let selected: Vec<Selected> =
            all.filter_map(|(setting, column)| Some(Selected { setting, column: column? })).collect();
        let Table { origin, rows } = Table::read(path, &selected)?;
        let mut examples = LabelledTexts { origin, texts: Vec::with_capacity(rows.len()), labels: Vec::new() };
        for Row { number, cells } in rows {
            let present = |(cell, selected)| examples.origin.present(number, cell, selected);
            let cells: Vec<String> = cells.into_iter().zip(&selected).map(present).collect::<Result<_>>()?;
            let mut cells = cells.into_iter();
            let mut next = || cells.next().expect("there is a cell for each selected column");
            examples.texts.push(TextPair { text: next(), text_pair: columns.text_pair.as_ref().map(|_| next()) });
            if columns.label.is_some() {
                examples.labels.push((number, next()));
            }
        }
        Ok(examples)
    }

    /// Returns the texts, in the order of the file.
    pub fn texts(&self) -> &[TextPair] {
        &self.texts
    }

    /// Returns the classes of a training file: `given`, or the labels that occur in it, sorted; by value if all are
    /// numbers.
    ///
    /// # Errors
    /// If only one label occurs.
    pub fn label_names(&self, given: Option<&LabelNames>) -> Result<LabelNames> {
        LabelNames::for_training(given, self.labels.iter().map(|(_, label)| label.as_str()), &self.origin)
    }

    /// Returns the class of each text; [`IGNORED_LABEL`] for a file without labels.
    ///
    /// # Errors
    /// If a label is not among `names`.
    pub fn classes(&self, names: &LabelNames) -> Result<Vec<i32>> {
        if self.labels.is_empty() {
            return Ok(vec![IGNORED_LABEL; self.texts.len()]);
        }
        self.labels.iter().map(|(number, label)| names.class_at(label, &self.origin, *number)).collect()
    }

    /// Returns the number of each text; NaN for a file without labels.
    ///
    /// # Errors
    /// If a label is not a finite number of the range of f32.
    pub fn values(&self) -> Result<Vec<f32>> {
        if self.labels.is_empty() {
            return Ok(vec![f32::NAN; self.texts.len()]);
        }
        let value = |(number, label): &(u64, String)| {
            label.trim().parse().ok().filter(|value: &f32| value.is_finite()).ok_or_else(|| {
                let next = "correct the label, or remove the example";
                self.origin.wrong(*number, "a finite number as label", format!("{label:?}"), next)
            })
        };
        self.labels.iter().map(value).collect()
    }
}

impl From<Vec<TextPair>> for LabelledTexts {
    /// Takes texts without labels, for predictions.
    fn from(texts: Vec<TextPair>) -> Self {
        LabelledTexts { origin: Origin { path: "texts".into(), unit: "line" }, texts, labels: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, columns: &TextColumns) -> std::result::Result<LabelledTexts, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dev.tsv");
        std::fs::write(&path, text).unwrap();
        LabelledTexts::read(&path, columns)
            .map_err(|error| error.to_string().replace(&format!("{}/", directory.path().display()), ""))
    }

    fn pairs() -> TextColumns {
        TextColumns { text_pair: Some(Column::Number(3)), text: Column::Number(2), label: Some(Column::Number(1)) }
    }

    #[test]
    fn pairs_with_labels_are_read_from_numbered_columns() {
        let texts = read("yes\ta b\tc\nno\td\te\n", &pairs()).unwrap();
        let second = TextPair { text: "d".into(), text_pair: Some("e".into()) };
        assert_eq!(texts.texts()[1], second);
        let names = texts.label_names(None).unwrap();
        assert_eq!(names.names(), ["no", "yes"]);
        assert_eq!(texts.classes(&names).unwrap(), [1, 0]);
    }

    #[test]
    fn unlabelled_texts_have_ignored_labels() {
        let names = LabelNames::new(vec!["a".into(), "b".into()]).unwrap();
        let texts = read("text\nhello\n", &TextColumns { label: None, ..TextColumns::default() }).unwrap();
        assert_eq!(texts.classes(&names).unwrap(), [IGNORED_LABEL]);
        assert!(texts.values().unwrap()[0].is_nan());
    }

    #[test]
    fn missing_values_and_wrong_numbers_are_errors_with_their_line() {
        for (text, expected) in [
            ("text\tlabel\n", "requires at least one row, got none; write one row for each example"),
            (
                "text\tlabel\na\t1\n\t1\n",
                "requires a text in the column \"text\" on line 3, got no value; add it, or remove the example",
            ),
            (
                "text\tlabel\n \t1\n",
                "requires a text in the column \"text\" on line 2, got an empty text; add it, or remove the example",
            ),
            (
                "text\tlabel\na\t\n",
                "requires a label in the column \"label\" on line 2, got no value; add it, or remove the example",
            ),
        ] {
            let error = read(text, &TextColumns::default()).map(drop).unwrap_err();
            assert_eq!(error, format!("dev.tsv: {expected}"));
        }
        for label in ["x", "inf", "NaN", "1e39"] {
            let texts = read(&format!("text\tlabel\na\t1\nb\t{label}\n"), &TextColumns::default()).unwrap();
            let error = texts.values().unwrap_err().to_string();
            let expected = format!(
                "requires a finite number as label on line 3, got {label:?}; correct the label, or remove the example"
            );
            assert!(error.ends_with(&expected), "{error}");
        }
    }
}
