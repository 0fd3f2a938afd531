//! The values that must be equal on all hosts of a run, and the error that names the hosts that differ.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::{Map, Value};

use crate::digest::sha256_hex;
use crate::settings::differing_settings;

/// Values that must be equal on all hosts, by their names. A value is text, a number or a table of settings.
pub type SharedValues = BTreeMap<String, Value>;

/// Checks that the values of all hosts are equal; `hosts` are the hosts' names for the error.
///
/// # Errors
/// If hosts differ from the majority (from host 0 without a majority), with their names and the values.
pub fn check_equal(hosts: &[String], all: &[SharedValues]) -> anyhow::Result<()> {
    let names: std::collections::BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let mut differing = Vec::new();
    for name in names {
        let values: Vec<&Value> = all.iter().map(|values| values.get(name).unwrap_or(&Value::Null)).collect();
        let usual = most_common(&values);
        for (host, value) in hosts.iter().zip(&values).filter(|(_, value)| **value != usual) {
            differing.push(format!("{host} differs in {}", difference(name, value, usual)));
        }
    }
    ensure!(
        differing.is_empty(),
        "the hosts were started with different runs: {}; start all of them with the same run file, data, checkpoints and \
         program",
        differing.join("; ")
    );
    Ok(())
}

/// Returns the most common value; of equally common ones, the first.
fn most_common<'a>(values: &[&'a Value]) -> &'a Value {
    let count = |value: &Value| values.iter().filter(|other| ***other == *value).count();
    let most = values.iter().map(|value| count(value)).max().unwrap_or(0);
    values.iter().find(|value| count(value) == most).copied().unwrap_or(&Value::Null)
}

/// Describes how the value `name` differs: by the keys of a table, or by both texts.
fn difference(name: &str, value: &Value, usual: &Value) -> String {
    match (value, usual) {
        (Value::Object(_), Value::Object(_)) => format!("{name} ({})", differing_settings(value, usual).join(", ")),
        (Value::String(value), Value::String(usual)) => format!("{name} ({value} instead of {usual})"),
        _ => name.to_owned(),
    }
}

/// Returns the sha256 of each value as eight 32-bit words, in order, for an all-gather through devices.
pub fn digest_words(values: &SharedValues) -> Vec<u32> {
    let digest = |value: &Value| sha256_hex(value.to_string().as_bytes());
    let words = |hex: String| (0..8).map(move |i| u32::from_str_radix(&hex[8 * i..8 * i + 8], 16).unwrap_or(0));
    values.values().flat_map(|value| words(digest(value))).collect()
}

/// Returns the digests in `words`, which [`digest_words`] made of values with the names of `names`.
pub fn values_of_digests(names: &SharedValues, words: &[u32]) -> SharedValues {
    let text = |words: &[u32]| words.iter().fold(String::from("sha256 "), |text, word| text + &format!("{word:08x}"));
    names.keys().cloned().zip(words.chunks(8).map(|digest| Value::from(text(digest)))).collect()
}

/// Returns a single value under its name.
pub fn shared_value(name: &str, value: impl Into<Value>) -> SharedValues {
    Map::from_iter([(name.to_owned(), value.into())]).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hosts(count: usize) -> Vec<String> {
        (0..count).map(|host| format!("host {host}")).collect()
    }

    #[test]
    fn hosts_that_differ_from_the_majority_are_named_with_the_difference() {
        let values = |rate: f64, program: &str| {
            let mut values = shared_value("the run file", json!({ "phase": [{ "learning_rate": rate }], "seed": 1 }));
            values.extend(shared_value("the program", program));
            values
        };
        let same = values(0.1, "a");
        check_equal(&hosts(3), &[same.clone(), same.clone(), same.clone()]).unwrap();
        let error = check_equal(&hosts(3), &[values(0.2, "a"), same.clone(), values(0.1, "b")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the hosts were started with different runs: host 2 differs in the program (b instead of a); host 0 differs in the \
             run file (phase.1.learning_rate); start all of them with the same run file, data, checkpoints and program"
        );
        // Without a majority, host 0 is the reference.
        let error = check_equal(&hosts(2), &[same, values(0.2, "a")]).unwrap_err().to_string();
        assert!(error.contains("host 1 differs in the run file"), "{error}");
    }

    #[test]
    fn digests_show_every_difference() {
        let values = |start: u64| {
            let mut values = shared_value("the first step", start);
            values.extend(shared_value("the run file", json!({ "seed": 1 })));
            values
        };
        assert_eq!(digest_words(&values(1)).len(), 16);
        let back = |start| values_of_digests(&values(start), &digest_words(&values(start)));
        check_equal(&hosts(2), &[back(1), back(1)]).unwrap();
        let error = check_equal(&hosts(2), &[back(1), back(2)]).unwrap_err().to_string();
        assert!(
            error.contains("host 1 differs in the first step (sha256 ") && !error.contains("run file ("),
            "{error}"
        );
    }
}
