//! Checks of the values of a run file that depend on their type alone, whatever their key: numbers are computed in f32, whole
//! numbers have 64 bits, and texts are names and paths, which are printed.

use toml::de::{DeInteger, DeTable, DeValue};

use crate::settings::{F32_NUMBER, fits_f32};

/// Characters of a text in a message, at most.
const SHOWN: usize = 40;

/// A value that no key accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvalidValue {
    /// The position of the value in the text of the file, in bytes.
    pub at: usize,
    /// The key, what it requires and what it has.
    pub sentence: String,
}

/// Checks every value of the file with the content `text`. A file that is not TOML passes: the reader of its tables reports why.
///
/// # Errors
/// The first invalid value by key.
pub(super) fn check(text: &str) -> Result<(), InvalidValue> {
    let Ok(file) = DeTable::parse(text) else { return Ok(()) };
    check_table("", file.get_ref())
}

/// Checks the values of `assignment`, `value = …`, under the name `key`.
///
/// # Errors
/// As [`check`].
pub(super) fn check_assignment(key: &str, assignment: &str) -> Result<(), InvalidValue> {
    let Ok(file) = DeTable::parse(assignment) else { return Ok(()) };
    file.get_ref().values().try_for_each(|value| check_value(key, value.span().start, value.get_ref()))
}

fn check_table(path: &str, table: &DeTable) -> Result<(), InvalidValue> {
    table.iter().try_for_each(|(key, value)| {
        let key = join(path, &key.get_ref().escape_debug().to_string());
        check_value(&key, value.span().start, value.get_ref())
    })
}

fn check_value(key: &str, at: usize, value: &DeValue) -> Result<(), InvalidValue> {
    let refuse =
        |requires: &str, got: &str| Err(InvalidValue { at, sentence: format!("{key} requires {requires}, got {got}") });
    match value {
        DeValue::Float(number) => match number.as_str().parse::<f64>() {
            // Keys reject infinity and NaN themselves. A number that is too large for f64 is parsed as infinity.
            Ok(x) if !fits_f32(x) && !number.as_str().ends_with(['f', 'n']) => refuse(F32_NUMBER, number.as_str()),
            _ => Ok(()),
        },
        DeValue::Integer(number) if !fits_i64(number) => {
            refuse(&format!("a whole number of at most {}", i64::MAX), &number.to_string())
        }
        DeValue::String(text) if text.is_empty() => refuse("a text with at least one character", "an empty one"),
        DeValue::String(text) if text.contains(char::is_control) => {
            let shown: String = text.chars().take(SHOWN).collect();
            refuse("a text without control characters", &format!("{shown:?}"))
        }
        DeValue::Array(values) => values.iter().enumerate().try_for_each(|(index, value)| {
            check_value(&join(key, &(index + 1).to_string()), value.span().start, value.get_ref())
        }),
        DeValue::Table(table) => check_table(key, table),
        DeValue::Integer(_) | DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => Ok(()),
    }
}

/// Returns whether a number is in the range of TOML.
fn fits_i64(number: &DeInteger) -> bool {
    i64::from_str_radix(number.as_str(), number.radix()).is_ok()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        check(text).unwrap_err().sentence
    }

    #[test]
    fn numbers_that_are_useless_in_f32_are_refused_whatever_their_key() {
        let requires = "requires a number in the range of f32, which computes it (magnitudes from 1.2e-38 to 3.4e38)";
        for number in ["1e-60", "-1e-60", "1e300", "1e-40", "3.5e38", "1e999", "-1e999"] {
            assert_eq!(message(&format!("a = 1\n[b]\nc = {number}")), format!("b.c {requires}, got {number}"));
            let nested = message(&format!("[[b]]\nc = 1.0\n[[b]]\nc = {{ d = [0.5, {number}] }}"));
            assert_eq!(nested, format!("b.2.c.d.2 {requires}, got {number}"));
        }
        // The keys themselves decide about infinity and NaN.
        for number in ["0.0", "-0.0", "1.2e-38", "3.4e38", "1_000.5", "inf", "-inf", "+inf", "nan", "-nan"] {
            assert_eq!(check(&format!("a = {number}")), Ok(()), "{number}");
        }
    }

    #[test]
    fn whole_numbers_have_64_bits() {
        let requires = "seed requires a whole number of at most 9223372036854775807, got";
        assert_eq!(message("seed = 9223372036854775808"), format!("{requires} 9223372036854775808"));
        assert_eq!(message("seed = 0xffff_ffff_ffff_ffff"), format!("{requires} 0xffffffffffffffff"));
        assert_eq!(check("seed = 9223372036854775807\nb = -9223372036854775808\nc = 0x7fff_ffff_ffff_ffff"), Ok(()));
    }

    #[test]
    fn texts_are_printable_and_not_empty() {
        assert_eq!(message("[a]\nb = ''"), "a.b requires a text with at least one character, got an empty one");
        let control = "requires a text without control characters, got";
        assert_eq!(message("name = \"a\\u001b[31mb\""), format!("name {control} \"a\\u{{1b}}[31mb\""));
        assert_eq!(message("labels = ['a', \"b\\nc\"]"), format!("labels.2 {control} \"b\\nc\""));
        let long = message(&format!("name = \"\\u0007{}\"", "x".repeat(1 << 20)));
        assert!(long.len() < 200, "{} characters", long.len());
        assert_eq!(check("name = 'ein schöner Name, 名前'"), Ok(()));
    }

    #[test]
    fn keys_are_printable_and_errors_have_their_position() {
        assert_eq!(message("\"a\\u001b\" = ''").split(' ').next(), Some("a\\u{1b}"));
        assert_eq!(check("a = 1\nb = ''").unwrap_err().at, "a = 1\nb = ".len());
        assert_eq!(check("a = "), Ok(()), "reported by the reader of the tables");
        assert!(
            check_assignment("phase.1.steps", "value = 9223372036854775808")
                .is_err_and(|invalid| invalid.sentence.starts_with("phase.1.steps requires a whole number"))
        );
    }
}
