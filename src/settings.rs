//! Reads settings into typed tables, and turns the errors of serde into messages about a key.

use std::fmt::Display;

use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// An error about one value of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongSetting<E> {
    /// The dotted key, with list items counted from 1: `phase.2.steps`. Empty for the whole file.
    pub key: String,
    /// The error of the format.
    pub error: E,
}

/// Reads a typed table.
///
/// # Errors
/// If the table does not accept a value. The error has the key of the first such value.
pub fn read<'de, T: DeserializeOwned, D: Deserializer<'de>>(deserializer: D) -> Result<T, WrongSetting<D::Error>> {
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| WrongSetting { key: dotted(error.path()), error: error.into_inner() })
}

impl<E: Display> WrongSetting<E> {
    /// Returns the message, which names the key if the message of the format has a known form.
    pub fn sentence(&self) -> String {
        let message = self.error.to_string();
        requirement(&self.key, &message).unwrap_or(message)
    }
}

fn dotted(path: &Path) -> String {
    let names = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some((index + 1).to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    });
    names.collect::<Vec<_>>().join(".")
}

/// Returns what `key` requires and what was found, from serde's message: "invalid type: string \"x\", expected f64",
/// "unknown variant `x`, expected `a` or `b`". None for other messages.
pub fn requirement(key: &str, message: &str) -> Option<String> {
    // The messages of TOML about an enum, which is a string or a table with one key.
    match message.trim() {
        "wanted string or table" => return Some(format!("{key} requires a name in quotes or a table")),
        "wanted exactly 1 element, more than 1 element" => {
            return Some(format!("{key} requires a table of one key, got several"));
        }
        _ => {}
    }
    let forms = ["invalid type: ", "invalid value: ", "unknown variant "];
    let (found, expected) = forms.iter().find_map(|form| message.strip_prefix(form))?.split_once(", expected ")?;
    Some(format!("{key} requires {}, got {}", kind(expected), value(found)))
}

/// Returns the common name of a Rust type.
fn kind(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        "i32" | "i64" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" => "a text in quotes",
        "path string" => "a path in quotes",
        "a boolean" => "true or false",
        other => other,
    }
}

/// Returns the value of "integer `5`": 5. JSON writes null for infinity and NaN.
fn value(found: &str) -> &str {
    match found {
        "null" => "no finite number",
        _ => ["integer", "floating point", "boolean"]
            .iter()
            .find_map(|kind| found.strip_prefix(kind)?.trim().strip_prefix('`')?.strip_suffix('`'))
            .unwrap_or(found),
    }
}

/// Returns whether a value is the default. JSON on disk omits fields that earlier versions did not have then, so that it, and
/// fingerprints of it, stay those of earlier versions.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The numbers that [`fits_f32`] accepts, for messages.
pub const F32_NUMBER: &str = "a number in the range of f32, which computes it (magnitudes from 1.2e-38 to 3.4e38)";

/// Returns whether `x` keeps its size when it is rounded to f32, in which devices compute: it does not become infinite, nor 0 or
/// subnormal (which devices replace by 0) unless it is 0.
pub fn fits_f32(x: f64) -> bool {
    x == 0.0 || (x as f32).is_normal()
}

/// Returns the first number of `value` that does not fit f32, with its dotted key.
pub fn outside_f32(value: &Value) -> Option<(String, f64)> {
    let below = |key: &str, value: &Value| {
        let (path, x) = outside_f32(value)?;
        Some((if path.is_empty() { key.to_owned() } else { format!("{key}.{path}") }, x))
    };
    match value {
        Value::Object(table) => table.iter().find_map(|(key, value)| below(key, value)),
        Value::Array(values) => (1..).zip(values).find_map(|(i, value): (usize, _)| below(&i.to_string(), value)),
        Value::Number(number) => number.as_f64().filter(|&x| !fits_f32(x)).map(|x| (String::new(), x)),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}

/// Returns the dotted keys of the settings that differ between two tables, in order.
pub fn differing_settings(a: &Value, b: &Value) -> Vec<String> {
    fn walk(path: &str, a: &Value, b: &Value, found: &mut Vec<String>) {
        let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match (a, b) {
            (Value::Object(a), Value::Object(b)) => {
                let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                for key in keys {
                    let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned().unwrap_or(Value::Null);
                    walk(&join(key), &value(a), &value(b), found);
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    walk(&join(&(i + 1).to_string()), a, b, found);
                }
            }
            _ if a != b => found.push(path.to_owned()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk("", a, b, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Small,
        Large,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only the failures are looked at")]
    struct Phase {
        steps: u64,
        rate: f64,
        kind: Kind,
        ends: bool,
    }

    fn refusal(key: &str, value: &str) -> String {
        let phase = |key: &str, value: &str| {
            let own = |name: &str, good: &str| format!("\"{name}\": {}", if name == key { value } else { good });
            let all = [own("steps", "1"), own("rate", "0.5"), own("kind", "\"small\""), own("ends", "true")];
            format!("{{ {} }}", all.join(", "))
        };
        let json = format!("{{ \"phase\": [{}, {}] }}", phase("", ""), phase(key, value));
        let table: serde_json::Value = serde_json::from_str(&json).unwrap();
        read::<BTreeMap<String, Vec<Phase>>, _>(table).unwrap_err().sentence()
    }

    #[test]
    fn errors_name_the_key_and_the_requirement() {
        assert_eq!(refusal("steps", "-1"), "phase.2.steps requires a whole number from 0, got -1");
        assert_eq!(refusal("steps", "1.5"), "phase.2.steps requires a whole number from 0, got 1.5");
        assert_eq!(refusal("rate", "\"x\""), "phase.2.rate requires a number, got string \"x\"");
        assert_eq!(refusal("rate", "null"), "phase.2.rate requires a number, got no finite number");
        assert_eq!(refusal("ends", "0"), "phase.2.ends requires true or false, got 0");
        let toml = |text: &str| {
            let deserializer = toml::Deserializer::parse(text).unwrap();
            let Err(WrongSetting { key, error }) = read::<BTreeMap<String, Kind>, _>(deserializer) else {
                panic!("{text}")
            };
            requirement(&key, error.message()).unwrap()
        };
        assert_eq!(toml("a = 5"), "a requires a name in quotes or a table");
        assert_eq!(toml("a = { small = 1, large = 2 }"), "a requires a table of one key, got several");
        assert_eq!(refusal("kind", "\"huge\""), "phase.2.kind requires `small` or `large`, got `huge`");
    }

    #[test]
    fn numbers_that_do_not_fit_f32_are_found_in_every_table() {
        let min = f64::from(f32::MIN_POSITIVE);
        for x in [0.0, -0.0, min, -min, f64::from(f32::MAX), 1.0] {
            assert!(fits_f32(x), "{x:e}");
        }
        for x in [min / 2.0, 1e-60, -1e-60, 1e39, f64::MAX, f64::INFINITY, f64::NAN] {
            assert!(!fits_f32(x), "{x:e}");
        }
        let table = json!({"a": 1e-8, "b": [{"c": "1e-60"}, {"d": {"e": 1e-60}}]});
        assert_eq!(outside_f32(&table), Some(("b.2.d.e".to_owned(), 1e-60)));
        assert_eq!(outside_f32(&json!({"a": [1, 2.5, null, true]})), None);
    }

    #[test]
    fn differing_settings_have_the_keys_of_overrides() {
        let a = json!({"seed": 1, "phase": [{"steps": 3, "rate": 0.1}, {"steps": 4}], "model": {"hidden_size": 8}});
        let b = json!({"seed": 1, "phase": [{"steps": 3, "rate": 0.2}, {"steps": 5}], "model": {"hidden_size": 8}});
        assert_eq!(differing_settings(&a, &b), ["phase.1.rate", "phase.2.steps"]);
        assert_eq!(differing_settings(&a, &json!({"seed": 1, "model": {}})), ["model.hidden_size", "phase"]);
        assert!(differing_settings(&a, &a).is_empty());
    }
}
