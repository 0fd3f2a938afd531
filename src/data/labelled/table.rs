//! Selected columns of a table, read by file name: `.tsv`, `.csv` ([`delimited`](super::delimited)), `.jsonl`
//! ([`json_lines`](super::json_lines)) and `.parquet` ([`parquet`](super::parquet)), the first three also compressed.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{delimited, json_lines, parquet};
use crate::data::corpus::{extension_of, read_whole_text};
use crate::data::error::{DataError, Result};

/// A column of a table: its name in the header, or its number from 1 in a file without a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "the name of a column, or its number from 1")]
pub enum Column {
    /// The number of the column, from 1.
    Number(usize),
    /// The name of the column, or the key of a JSON object.
    Name(String),
}

impl FromStr for Column {
    type Err = Infallible;

    /// Reads a number as the number of a column, and everything else as its name.
    fn from_str(text: &str) -> std::result::Result<Column, Infallible> {
        Ok(text.parse().map_or_else(|_| Column::Name(text.to_owned()), Column::Number))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Column::Number(number) => write!(f, "{number}"),
            Column::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// A column to read, and the setting that names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selected<'a> {
    pub setting: &'static str,
    pub column: &'a Column,
}

/// The selected cells of a file.
#[derive(Debug)]
pub(super) struct Table {
    pub origin: Origin,
    pub rows: Vec<Row>,
}

/// One row: its line or row number from 1, and the selected cells. A missing value is `None`.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub number: u64,
    pub cells: Vec<Option<String>>,
}

/// The file of some examples, and what its numbers count.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub path: PathBuf,
    pub unit: &'static str,
}

impl Origin {
    /// Returns the error that the example at `number` requires `required`.
    pub fn wrong(&self, number: u64, required: impl fmt::Display, found: impl Into<String>, next: &str) -> DataError {
        DataError::file(&self.path, format!("{required} on {} {number}", self.unit), found, next)
    }

    /// Returns the value of a cell, which must not be missing or blank.
    pub fn present(&self, number: u64, cell: Option<String>, selected: &Selected) -> Result<String> {
        let found = match cell {
            Some(text) if !text.trim().is_empty() => return Ok(text),
            Some(_) => "an empty text",
            None => "no value",
        };
        let required = format!("a {} in the column {}", selected.setting, selected.column);
        Err(self.wrong(number, required, found, "add it, or remove the example"))
    }
}

impl Table {
    /// Reads the selected columns of a file.
    pub fn read(path: &Path, columns: &[Selected]) -> Result<Table> {
        for Selected { setting, column } in columns {
            if **column == Column::Number(0) {
                return Err(DataError::setting(setting, "a column name, or a number from 1", 0));
            }
        }
        let (unit, rows) = match extension_of(path).as_str() {
            "tsv" => ("line", delimited::read(path, &read_whole_text(path)?, delimited::TAB, columns)?),
            "csv" => ("line", delimited::read(path, &read_whole_text(path)?, delimited::COMMA, columns)?),
            "jsonl" | "ndjson" => ("line", json_lines::read(path, &read_whole_text(path)?, columns)?),
            "parquet" => ("row", parquet::read(path, columns)?),
            extension => {
                let required = "a name that ends in .tsv, .csv, .jsonl or .parquet";
                return Err(DataError::file(path, required, format!("{extension:?}"), "rename or convert the file"));
            }
        };
        let table = Table { origin: Origin { path: path.to_owned(), unit }, rows };
        match table.rows.is_empty() {
            true => Err(DataError::file(path, "at least one row", "none", "write one row for each example")),
            false => Ok(table),
        }
    }
}

/// Returns the error of a file without a selected column.
pub(super) fn no_column<'a>(path: &Path, selected: &Selected, found: impl Iterator<Item = &'a str>) -> DataError {
    let Selected { setting, column } = selected;
    let next = format!("choose one of them as {setting}");
    DataError::file(path, format!("a column {column}"), format!("the columns {}", quoted(found)), next)
}

/// Returns the name of a column in a format that has no numbered columns.
pub(super) fn name_of<'a>(path: &Path, selected: &Selected<'a>) -> Result<&'a str> {
    match selected.column {
        Column::Name(name) => Ok(name),
        Column::Number(number) => {
            let next = format!("choose {} by its name: only TSV and CSV files have numbered columns", selected.setting);
            Err(DataError::file(path, "names of columns", format!("the number {number}"), next))
        }
    }
}

/// Joins names in quotes, up to a length that fits an error.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let names: Vec<String> = names.map(|name| format!("{name:?}")).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_a_name_or_a_number() {
        #[derive(Deserialize)]
        struct Settings {
            label: Column,
            text: Column,
        }
        let settings: Settings = toml::from_str("label = 1\ntext = \"sentence\"").unwrap();
        assert_eq!((settings.label, settings.text), (Column::Number(1), Column::Name("sentence".into())));
        let error = toml::from_str::<Settings>("label = 1.5\ntext = 2").map(drop).unwrap_err().to_string();
        assert!(error.contains("the name of a column, or its number from 1"), "{error}");
    }
}
