//! The settings of runs beside each other; those that differ come first.

use std::collections::BTreeMap;

use serde_json::Value;

use super::ReportedRun;
use crate::report::pages::html::table_with_classes;
use crate::report::settings::by_dotted_key;

/// Returns the section of settings; an empty text if no run has any.
pub fn section(runs: &[ReportedRun]) -> String {
    let of_run: Vec<BTreeMap<String, Value>> = runs.iter().map(|run| by_dotted_key(&run.settings)).collect();
    let mut keys: Vec<&String> = of_run.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    if keys.is_empty() {
        return String::new();
    }
    let differs = |key: &String| of_run.iter().any(|settings| settings.get(key) != of_run[0].get(key));
    keys.sort_by_key(|key| !differs(key));
    let row = |key: &&String| {
        let values = of_run.iter().map(|settings| settings.get(*key).map_or_else(String::new, text));
        let cells = std::iter::once((*key).clone()).chain(values).collect();
        (if differs(key) { "differs" } else { "" }, cells)
    };
    let rows: Vec<(&str, Vec<String>)> = keys.iter().map(row).collect();
    let head: Vec<&str> = std::iter::once("key").chain(runs.iter().map(|run| run.name.as_str())).collect();
    let note = if runs.len() > 1 { "<p>Settings that differ come first.</p>\n" } else { "" };
    format!("<h2>Settings</h2>\n{note}{}", table_with_classes(&head, &rows))
}

/// Returns a value as a text without quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
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
