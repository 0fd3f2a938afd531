//! JSONL: a line is a record, a record is a document, and one of its fields is the text.

use std::io::{BufRead, Read};
use std::path::Path;

use serde_json::Value;

use super::super::error::{DataError, Result};
use super::Tolerance;
use super::batches::Batches;
use super::compression::Decompressed;

/// Bytes that a record may have. Several files are read at once, and a record is in memory some four times while it is read.
const LONGEST_RECORD: usize = 1 << 26;

/// Reads to the end.
pub(super) fn read(source: &mut Decompressed, batches: &mut Batches) -> Result<()> {
    let mut line = Vec::new();
    let mut number = 0;
    while batches.wanted() {
        line.clear();
        let read = source.reader.by_ref().take(LONGEST_RECORD as u64).read_until(b'\n', &mut line);
        if read.map_err(|error| source.broken(error))? == 0 {
            break;
        }
        number += 1;
        if line.len() == LONGEST_RECORD && !line.ends_with(b"\n") {
            return Err(wrong(source.path, batches, number, format!("a line of more than {LONGEST_RECORD} bytes")));
        }
        if !line.trim_ascii().is_empty() {
            let json = batches.decode(&line, || format!("line {number}"))?;
            record(&json, source.path, number, batches)?;
        }
    }
    Ok(())
}

fn record(json: &str, path: &Path, number: u64, batches: &mut Batches) -> Result<()> {
    let field = batches.options().text_field.as_str();
    let record: Value = serde_json::from_str(json).map_err(|e| wrong(path, batches, number, e.to_string()))?;
    let Value::Object(object) = record else {
        return Err(wrong(path, batches, number, "another JSON value".into()));
    };
    match object.get(field) {
        Some(Value::String(text)) => batches.document(text),
        None | Some(Value::Null) if batches.options().missing_text == Tolerance::Count => {
            batches.counts().without_text += 1;
        }
        Some(_) => return Err(wrong(path, batches, number, format!("{field:?} that is not a string"))),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
            return Err(wrong(path, batches, number, format!("the keys {keys:?}")));
        }
    }
    Ok(())
}

fn wrong(path: &Path, batches: &Batches, number: u64, found: String) -> DataError {
    let required = format!("a JSON object with a string {:?} on line {number}", batches.options().text_field);
    let next =
        "correct the record, name its field with --text-field, or pass over such records by --missing-text count";
    DataError::file(path, required, found, next)
}
