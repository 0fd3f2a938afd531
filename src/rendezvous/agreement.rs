//! What all hosts of a run must have in common, and the sentence about those that differ.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::{Map, Value};

use crate::digest::sha256_hex;
use crate::settings::differing_settings;

/// Statements by what they are about. A value is text, or an object whose keys can be named one by one.
pub type Facts = BTreeMap<String, Value>;

/// Checks that all state the same; `names` are the hosts, as a person knows them.
///
/// # Errors
/// The hosts that differ from most others (from host 0, if there is no majority), and in what.
pub fn check_agreement(names: &[String], stated: &[Facts]) -> anyhow::Result<()> {
    let about: std::collections::BTreeSet<&String> = stated.iter().flat_map(BTreeMap::keys).collect();
    let mut differing = Vec::new();
    for what in about {
        let values: Vec<&Value> = stated.iter().map(|facts| facts.get(what).unwrap_or(&Value::Null)).collect();
        let usual = most_common(&values);
        for (name, value) in names.iter().zip(&values).filter(|(_, value)| **value != usual) {
            differing.push(format!("{name} differs in {}", difference(what, value, usual)));
        }
    }
    ensure!(
        differing.is_empty(),
        "the hosts do not mean the same run: {}; start all of them with the same run file, data, checkpoints and program",
        differing.join("; ")
    );
    Ok(())
}

/// The value that most have; of equally many, the first.
fn most_common<'a>(values: &[&'a Value]) -> &'a Value {
    let count = |value: &Value| values.iter().filter(|other| ***other == *value).count();
    let most = values.iter().map(|value| count(value)).max().unwrap_or(0);
    values.iter().find(|value| count(value) == most).copied().unwrap_or(&Value::Null)
}

/// In what `value` differs: the keys of a table, or both texts.
fn difference(what: &str, value: &Value, usual: &Value) -> String {
    match (value, usual) {
        (Value::Object(_), Value::Object(_)) => format!("{what} ({})", differing_settings(value, usual).join(", ")),
        (Value::String(value), Value::String(usual)) => format!("{what} ({value} instead of {usual})"),
        _ => what.to_owned(),
    }
}

/// Facts as words of 32 bits for devices to exchange: one sha256 each, in order.
pub fn digests(facts: &Facts) -> Vec<u32> {
    let digest = |value: &Value| sha256_hex(value.to_string().as_bytes());
    let words = |hex: String| (0..8).map(move |i| u32::from_str_radix(&hex[8 * i..8 * i + 8], 16).unwrap_or(0));
    facts.values().flat_map(|value| words(digest(value))).collect()
}

/// What [`digests`] of a host with facts of these names said.
pub fn facts_of_digests(names: &Facts, words: &[u32]) -> Facts {
    let text = |words: &[u32]| words.iter().fold(String::from("sha256 "), |text, word| text + &format!("{word:08x}"));
    names.keys().cloned().zip(words.chunks(8).map(|digest| Value::from(text(digest)))).collect()
}

/// A statement of one fact.
pub fn fact(what: &str, value: impl Into<Value>) -> Facts {
    Map::from_iter([(what.to_owned(), value.into())]).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(hosts: usize) -> Vec<String> {
        (0..hosts).map(|host| format!("host {host}")).collect()
    }

    #[test]
    fn those_who_differ_from_most_are_named_with_what_they_differ_in() {
        let facts = |rate: f64, program: &str| {
            let mut facts = fact("the run file", json!({ "phase": [{ "learning_rate": rate }], "seed": 1 }));
            facts.extend(fact("the program", program));
            facts
        };
        let same = facts(0.1, "a");
        check_agreement(&names(3), &[same.clone(), same.clone(), same.clone()]).unwrap();
        let error = check_agreement(&names(3), &[facts(0.2, "a"), same.clone(), facts(0.1, "b")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the hosts do not mean the same run: host 2 differs in the program (b instead of a); host 0 differs in the run \
             file (phase.1.learning_rate); start all of them with the same run file, data, checkpoints and program"
        );
        // Of two, host 0 is the measure.
        let error = check_agreement(&names(2), &[same, facts(0.2, "a")]).unwrap_err().to_string();
        assert!(error.contains("host 1 differs in the run file"), "{error}");
    }

    #[test]
    fn digests_carry_every_difference() {
        let facts = |start: u64| {
            let mut facts = fact("the start", start);
            facts.extend(fact("the run file", json!({ "seed": 1 })));
            facts
        };
        assert_eq!(digests(&facts(1)).len(), 16);
        let back = |start| facts_of_digests(&facts(start), &digests(&facts(start)));
        check_agreement(&names(2), &[back(1), back(1)]).unwrap();
        let error = check_agreement(&names(2), &[back(1), back(2)]).unwrap_err().to_string();
        assert!(error.contains("host 1 differs in the start (sha256 ") && !error.contains("run file ("), "{error}");
    }
}
