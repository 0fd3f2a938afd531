//! Errors about the settings of an optimizer, and the checks of numbers that optimizers share.

/// An optimizer's setting that is out of range, or does not fit the tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizerError {
    /// One setting, what it requires and its value.
    #[error("{key} requires {requires}, got {got}")]
    Value {
        /// The setting's key.
        key: &'static str,
        /// The values that it accepts.
        requires: String,
        /// The value that was found.
        got: String,
    },
    /// A sentence with the key, what it requires and its value.
    #[error("{0}")]
    Settings(String),
}

/// Requires 0 ≤ `value` < 1, also after rounding to f32: a moment with the factor 1 would never decay.
pub(super) fn below_one(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    let holds = (0.0..1.0).contains(&value) && (value as f32) < 1.0;
    require(key, "a number from 0 to less than 1 in f32", value, holds)
}

/// Requires a finite `value` > 0.
pub(super) fn above_zero(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number above 0", value, value.is_finite() && value > 0.0)
}

/// Requires a finite `value` ≥ 0.
pub(super) fn not_negative(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number of at least 0", value, value.is_finite() && value >= 0.0)
}

fn require(key: &'static str, requires: &str, value: f64, holds: bool) -> Result<(), OptimizerError> {
    match holds {
        true => Ok(()),
        false => Err(OptimizerError::Value { key, requires: requires.to_string(), got: value.to_string() }),
    }
}
