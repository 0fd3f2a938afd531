//! JSONL: each line is a record, each record is a document, and one of its fields is the text. Other fields are ignored
//! but must be valid JSON.

use std::borrow::Cow;
use std::fmt;
use std::io::{BufRead, Read};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;

use crate::data::corpus::decompress::Decompressed;
use crate::data::corpus::options::Tolerance;
use crate::data::corpus::text_batch::BatchWriter;
use crate::data::error::{DataError, Result, describe_json_error};

/// Largest record in bytes. Several files are read at once, and a record is held in memory about four times while it is
/// read.
const LONGEST_RECORD: usize = 1 << 26;
/// Number of keys that an error lists if the text field is missing.
const KEYS_SHOWN: usize = 8;

/// Reads a JSONL stream to its end.
pub(in crate::data::corpus) fn read(source: &mut Decompressed, batches: &mut BatchWriter) -> Result<()> {
    let mut line = Vec::new();
    let mut number = 0;
    while batches.accepts_more() {
        line.clear();
        let read = source.reader.by_ref().take(LONGEST_RECORD as u64).read_until(b'\n', &mut line);
        if read.map_err(|error| source.broken(error))? == 0 {
            break;
        }
        number += 1;
        if line.len() == LONGEST_RECORD && !line.ends_with(b"\n") {
            let found = format!("a line of more than {LONGEST_RECORD} bytes");
            return Err(wrong(source.path, batches, number, found, "write each record on a line of its own"));
        }
        let json = batches.decode(&line, || format!("line {number}"))?;
        // Concatenated files have byte order marks between lines.
        let json = json.trim_start_matches('\u{feff}');
        if !json.trim_ascii().is_empty() {
            record(json.trim_end(), source.path, number, batches)?;
        }
    }
    Ok(())
}

fn record(json: &str, path: &Path, number: u64, batches: &mut BatchWriter) -> Result<()> {
    let field = batches.options().text_field.as_str();
    let mut reader = serde_json::Deserializer::from_str(json);
    let text = reader.deserialize_map(Record { field }).and_then(|text| reader.end().map(|()| text));
    let text = text.map_err(|error| {
        let next = match error.classify() {
            Category::Data => "correct the record, or set text_field to another field",
            _ => "write each record whole, on a line of its own",
        };
        wrong(path, batches, number, describe_json_error(json, &error), next)
    })?;
    match text {
        FieldOfText::Text(text) => {
            // The line is valid UTF-8; invalid text can only come from an escaped lone surrogate.
            let text =
                batches.decode(&text, || format!("line {number}, where a surrogate (\\ud800 …) stands alone"))?;
            batches.document(&text);
        }
        _ if batches.options().missing_text == Tolerance::Count => batches.counts().without_text += 1,
        FieldOfText::Null => {
            let next = "correct the record, or set missing_text to \"count\" to skip such records";
            return Err(wrong(path, batches, number, format!("null for {field:?}"), next));
        }
        FieldOfText::Absent { keys } => {
            let next = "set text_field to the right key, or set missing_text to \"count\" to skip such records";
            return Err(wrong(path, batches, number, format!("the keys {keys:?}"), next));
        }
    }
    Ok(())
}

fn wrong(path: &Path, batches: &BatchWriter, number: u64, found: String, next: &str) -> DataError {
    let required = format!("a JSON object with a string {:?} on line {number}", batches.options().text_field);
    DataError::file(path, required, found, next)
}

/// The content of the text field of a record.
enum FieldOfText<'de> {
    /// UTF-8, except for lone surrogates.
    Text(Cow<'de, [u8]>),
    Null,
    /// The record has these other keys.
    Absent {
        keys: Vec<String>,
    },
}

struct Record<'f> {
    field: &'f str,
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = FieldOfText<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
        let (mut text, mut keys) = (None, Vec::new());
        while let Some(key) = map.next_key_seed(JsonString)? {
            if *key != *self.field.as_bytes() {
                map.next_value::<IgnoredAny>()?;
                if keys.len() < KEYS_SHOWN {
                    keys.push(String::from_utf8_lossy(&key).into_owned());
                }
            } else if text.replace(map.next_value_seed(StringOrNull)?).is_some() {
                return Err(A::Error::custom(format!("{:?} twice", self.field)));
            }
        }
        Ok(match text {
            Some(Some(text)) => FieldOfText::Text(text),
            Some(None) => FieldOfText::Null,
            None => FieldOfText::Absent { keys },
        })
    }
}

/// A JSON string as bytes. A string with a lone surrogate cannot be read as `str`.
struct JsonString;

impl<'de> DeserializeSeed<'de> for JsonString {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de> Visitor<'de> for JsonString {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> std::result::Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> std::result::Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

struct StringOrNull;

impl<'de> DeserializeSeed<'de> for StringOrNull {
    type Value = Option<Cow<'de, [u8]>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for StringOrNull {
    type Value = Option<Cow<'de, [u8]>>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_none<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        JsonString.deserialize(deserializer).map(Some)
    }
}
