//! Labelled examples as JSONL: each line is an object, and its keys are the columns.

use std::path::Path;

use serde_json::{Map, Value};

use super::columns::{Row, Selected, name_of, quoted};
use crate::data::error::{DataError, Result, describe_json_error};

/// Reads the selected values of all lines. Empty lines are skipped; null is a missing value.
pub(super) fn read(path: &Path, text: &str, columns: &[Selected]) -> Result<Vec<Row>> {
    let names: Vec<&str> = columns.iter().map(|column| name_of(path, column)).collect::<Result<_>>()?;
    let row = |object: Result<(u64, Map<String, Value>)>| {
        let (number, object) = object?;
        let cell = |(name, selected): (&&str, &Selected)| cell(path, number, &object, name, selected);
        let cells = names.iter().zip(columns).map(cell).collect::<Result<_>>()?;
        Ok(Row { number, cells })
    };
    objects(path, text).map(row).collect()
}

/// Iterates over the objects of a file, with their line numbers from 1.
pub(super) fn objects(path: &Path, text: &str) -> impl Iterator<Item = Result<(u64, Map<String, Value>)>> {
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    lines.map(move |(line, number)| {
        let object = serde_json::from_str(line).map_err(|error| {
            let required = format!("a JSON object on line {number}");
            let found = describe_json_error(line, &error);
            DataError::file(path, required, found, "write each example whole, on a line of its own")
        })?;
        Ok((number, object))
    })
}

/// Returns the value of a selected key.
pub(super) fn value<'o>(
    path: &Path,
    number: u64,
    object: &'o Map<String, Value>,
    name: &str,
    selected: &Selected,
) -> Result<&'o Value> {
    object.get(name).ok_or_else(|| {
        let found = format!("the keys {}", quoted(object.keys().map(String::as_str)));
        let next = format!("choose one of them as {}", selected.setting);
        DataError::file(path, format!("the key {name:?} on line {number}"), found, next)
    })
}

fn cell(
    path: &Path,
    number: u64,
    object: &Map<String, Value>,
    name: &str,
    selected: &Selected,
) -> Result<Option<String>> {
    match value(path, number, object, name, selected)? {
        Value::Null => Ok(None),
        value => scalar(value).map(Some).ok_or_else(|| {
            let required = format!("a text or a number as {name:?} on line {number}");
            DataError::file(path, required, kind(value), "correct the value")
        }),
    }
}

/// Returns a string, number or truth value as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Names the type of a JSON value, for an error.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::labelled::columns::Column;

    fn rows(text: &str, column: Column) -> std::result::Result<Vec<Row>, String> {
        read(Path::new("x.jsonl"), text, &[Selected { setting: "label", column: &column }])
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_texts_numbers_or_missing() {
        let text = "{\"y\": \"é\"}\n\n{\"y\": 1.5, \"x\": []}\n{\"y\": null}\n{\"y\": true}\r\n";
        let rows = rows(text, Column::Name("y".into())).unwrap();
        let found: Vec<(u64, Option<&str>)> = rows.iter().map(|row| (row.number, row.cells[0].as_deref())).collect();
        assert_eq!(found, [(1, Some("é")), (3, Some("1.5")), (4, None), (5, Some("true"))]);
    }

    #[test]
    fn errors_name_the_line() {
        let column = || Column::Name("y".into());
        for (text, column, expected) in [
            (
                "{\"y\": 1}\n{\"x\": 1}",
                column(),
                "requires the key \"y\" on line 2, got the keys \"x\"; choose one of them as label",
            ),
            ("{\"y\": [1]}", column(), "requires a text or a number as \"y\" on line 1, got a list; correct the value"),
            (
                "{}",
                Column::Number(1),
                "requires names of columns, got the number 1; choose label by its name: only TSV and CSV files have numbered columns",
            ),
        ] {
            assert_eq!(rows(text, column).unwrap_err(), format!("x.jsonl: {expected}"));
        }
        let broken = rows("{\"y\": ", column()).unwrap_err();
        assert!(broken.starts_with("x.jsonl: requires a JSON object on line 1, got EOF"), "{broken}");
        let broken = rows("{\"y\": 1}\n{\"y\": }", column()).unwrap_err();
        assert!(broken.contains("on line 2, got expected value at column 7; write"), "{broken}");
    }
}
