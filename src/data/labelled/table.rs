//! Selected columns of a table, read by file name: `.tsv`, `.csv` ([`delimited`](super::delimited)), `.jsonl`
//! ([`json_lines`](super::json_lines)) and `.parquet` ([`parquet`](super::parquet)), the first three also compressed.

use std::fmt;
use std::path::{Path, PathBuf};

use super::columns::{Column, Row, Selected};
use super::{delimited, json_lines, parquet};
use crate::data::corpus::{extension_of, read_whole_text};
use crate::data::error::{DataError, Result};

/// The selected cells of a file.
#[derive(Debug)]
pub(super) struct Table {
    pub origin: Origin,
    pub rows: Vec<Row>,
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
