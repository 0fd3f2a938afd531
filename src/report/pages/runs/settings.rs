//! The settings of runs beside each other; those that differ come first.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use super::ReportedRun;
use crate::checkpoint::{self, Contents};
use crate::report::pages::html::table_with_classes;

/// Reads the run file of the newest checkpoint in `directory`; null if it has none.
///
/// # Errors
/// If all checkpoints are damaged, or the run file is not TOML.
pub fn read(directory: &Path) -> anyhow::Result<Value> {
    let Some(newest) = checkpoint::load_latest(directory, Contents::CopiedFiles)? else { return Ok(Value::Null) };
    let Some(text) = newest.checkpoint.file("run.toml") else { return Ok(Value::Null) };
    let path = newest.path.join("run.toml");
    let text = std::str::from_utf8(text).with_context(|| format!("{}: requires UTF-8", path.display()))?;
    toml::from_str(text).with_context(|| format!("{}: requires TOML", path.display()))
}

/// Returns the section of settings; an empty text if no run has any.
pub fn section(runs: &[ReportedRun]) -> String {
    let of_run: Vec<BTreeMap<String, String>> = runs.iter().map(|run| flat(&run.settings)).collect();
    let mut keys: Vec<&String> = of_run.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    if keys.is_empty() {
        return String::new();
    }
    let differs = |key: &String| of_run.iter().any(|settings| settings.get(key) != of_run[0].get(key));
    keys.sort_by_key(|key| !differs(key));
    let row = |key: &&String| {
        let values = of_run.iter().map(|settings| settings.get(*key).cloned().unwrap_or_default());
        let cells = std::iter::once((*key).clone()).chain(values).collect();
        (if differs(key) { "differs" } else { "" }, cells)
    };
    let rows: Vec<(&str, Vec<String>)> = keys.iter().map(row).collect();
    let head: Vec<&str> = std::iter::once("key").chain(runs.iter().map(|run| run.name.as_str())).collect();
    let note = if runs.len() > 1 { "<p>Settings that differ come first.</p>\n" } else { "" };
    format!("<h2>Settings</h2>\n{note}{}", table_with_classes(&head, &rows))
}

/// Returns the values of a table by dotted keys; entries of lists are numbered from 1.
fn flat(settings: &Value) -> BTreeMap<String, String> {
    fn walk(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Object(table) => table.iter().for_each(|(key, value)| walk(&join(key), value, found)),
            Value::Array(values) if values.iter().any(Value::is_object) => {
                (1..).zip(values).for_each(|(i, value): (usize, _)| walk(&join(&i.to_string()), value, found));
            }
            Value::Null => {}
            Value::String(text) => drop(found.insert(path.to_owned(), text.clone())),
            value => drop(found.insert(path.to_owned(), value.to_string())),
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
    fn settings_that_differ_come_first() {
        let run = |name: &str, rate: f64| ReportedRun {
            name: name.to_owned(),
            settings: json!({"seed": 1, "phase": [{"learning_rate": rate}], "labels": ["a", "b"]}),
            ..ReportedRun::default()
        };
        let html = section(&[run("one", 0.1), run("two", 0.2)]);
        let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text}: {html}"));
        assert!(at("<tr class=\"differs\"><td>phase.1.learning_rate</td>") < at("<tr><td>labels</td>"));
        assert!(html.contains("<td class=\"n\">0.1</td><td class=\"n\">0.2</td>"));
        assert_eq!(section(&[ReportedRun::default()]), "");
    }
}
