//! The columns of a table: which are selected, and a row of their cells.

use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// One row: its line or row number from 1, and the selected cells. A missing value is `None`.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    pub number: u64,
    pub cells: Vec<Option<String>>,
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
