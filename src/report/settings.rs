//! The settings of a run as flat values: those of its run file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::checkpoint::{self, Contents, RUN_FILE};

/// Reads the run file of the newest checkpoint in `directory`; null if it has none.
///
/// # Errors
/// If all checkpoints are damaged, or the run file is not TOML.
pub fn read(directory: &Path) -> anyhow::Result<Value> {
    let Some(newest) = checkpoint::load_latest(directory, Contents::CopiedFiles)? else { return Ok(Value::Null) };
    let file = newest.checkpoint.file(RUN_FILE);
    file.map_or(Ok(Value::Null), |text| of_run_file(&newest.path.join(RUN_FILE), text))
}

/// Parses the run file `text` at `path`.
///
/// # Errors
/// If it is not TOML in UTF-8.
pub fn of_run_file(path: &Path, text: &[u8]) -> anyhow::Result<Value> {
    let text = std::str::from_utf8(text).with_context(|| format!("{}: requires UTF-8", path.display()))?;
    toml::from_str(text).with_context(|| format!("{}: requires TOML", path.display()))
}

/// Returns the values of a table by dotted keys. Tables in lists are numbered from 1; other lists are one value, their text.
pub fn by_dotted_key(settings: &Value) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, Value>) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Object(table) => table.iter().for_each(|(key, value)| walk(&join(key), value, found)),
            Value::Array(values) if values.iter().any(Value::is_object) => {
                (1..).zip(values).for_each(|(i, value): (usize, _)| walk(&join(&i.to_string()), value, found));
            }
            Value::Array(_) => drop(found.insert(path.to_owned(), Value::String(value.to_string()))),
            Value::Null => {}
            value => drop(found.insert(path.to_owned(), value.clone())),
        }
    }
    let mut found = BTreeMap::new();
    walk("", settings, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_flattened_and_lists_of_tables_numbered() {
        let settings = json!({"seed": 1, "phase": [{"learning_rate": 0.1}, {"packed": true}], "labels": ["a", "b"]});
        let expected = [
            ("labels", json!(r#"["a","b"]"#)),
            ("phase.1.learning_rate", json!(0.1)),
            ("phase.2.packed", json!(true)),
            ("seed", json!(1)),
        ];
        let found = by_dotted_key(&settings);
        assert_eq!(found.iter().map(|(key, value)| (key.as_str(), value.clone())).collect::<Vec<_>>(), expected);
    }
}
