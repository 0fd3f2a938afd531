//! Glob patterns over tensor names, for the exclusions from weight decay and trust ratio.
//!
//! `*` matches any number of characters, also none, and also dots; every other character matches itself. A pattern must
//! match the whole name: `*.bias` matches every bias, `*LayerNorm*` every tensor of a LayerNorm.

use super::error::OptimizerError;

/// Returns true if `name` matches the glob `pattern`.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|&i| rest.is_char_boundary(i)).any(|i| matches(after, &rest[i..]))
        }),
    }
}

/// Returns, for each name, whether any of `patterns` matches it.
///
/// # Errors
/// If a pattern matches no name: a misspelt exclusion must not change the optimizer without notice.
pub fn matched(key: &'static str, patterns: &[String], names: &[&str]) -> Result<Vec<bool>, OptimizerError> {
    if let Some(unused) = patterns.iter().find(|p| !names.iter().any(|name| matches(p, name))) {
        return Err(OptimizerError::Value {
            key,
            requires: "patterns that each match a tensor (* matches any characters)".to_string(),
            got: format!("{unused:?}, which matches none of {} tensors", names.len()),
        });
    }
    Ok(names.iter().map(|name| patterns.iter().any(|p| matches(p, name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("*.bias", "bert.pooler.dense.bias", true),
            ("*.bias", "bert.pooler.dense.bias2", false),
            ("*LayerNorm*", "bert.embeddings.LayerNorm.weight", true),
            ("*LayerNorm*", "bert.pooler.dense.weight", false),
            ("bert.*.layer.*.weight", "bert.encoder.layer.0.output.dense.weight", true),
            ("cls.predictions.bias", "cls.predictions.bias", true),
            ("cls", "cls.predictions.bias", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn pattern_without_a_match_is_an_error() {
        let e = matched("exclude_from_weight_decay", &["*layernorm*".into()], &["a.LayerNorm.weight"]).unwrap_err();
        assert_eq!(
            e.to_string(),
            "exclude_from_weight_decay requires patterns that each match a tensor (* matches any characters), \
             got \"*layernorm*\", which matches none of 1 tensors"
        );
    }
}
