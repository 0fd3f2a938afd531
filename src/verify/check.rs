//! One comparison: its quantity, its error, and the tolerance of a correct build.

use serde::Serialize;

use crate::task::Precision;

/// One comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// `forward`, `gradient`, the name of an optimizer, or `dropout`.
    pub group: String,
    /// The name of the tensor or number.
    pub name: String,
    /// The kind of number.
    pub quantity: Quantity,
    /// The error found.
    pub error: f64,
    /// The largest error allowed.
    pub tolerance: f64,
    /// Whether the error is within the tolerance.
    pub ok: bool,
}

/// The kind of number that a check compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// A result of the forward pass.
    Forward,
    /// The gradient of a parameter.
    Gradient,
    /// A loss along the trajectory of an optimizer.
    Loss,
    /// An accuracy along an optimizer's trajectory.
    Accuracy,
    /// The global gradient norm along an optimizer's trajectory.
    GradientNorm,
    /// A weight at the end of a trajectory.
    Weight,
    /// A loss along a trajectory with dropout, against that of the unsplit batch.
    Dropout,
}

impl Quantity {
    /// All quantities.
    pub const ALL: [Quantity; 7] = [
        Quantity::Forward,
        Quantity::Gradient,
        Quantity::Loss,
        Quantity::Accuracy,
        Quantity::GradientNorm,
        Quantity::Weight,
        Quantity::Dropout,
    ];

    /// Returns the name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Forward => "forward",
            Quantity::Gradient => "gradient",
            Quantity::Loss => "loss",
            Quantity::Accuracy => "accuracy",
            Quantity::GradientNorm => "gradient norm",
            Quantity::Weight => "weight",
            Quantity::Dropout => "dropout loss",
        }
    }
}

impl Check {
    pub(super) fn new(quantity: Quantity, group: &str, name: impl Into<String>, error: f64, tolerance: f64) -> Check {
        // NaN is a miss.
        Check { group: group.to_owned(), name: name.into(), quantity, error, tolerance, ok: error <= tolerance }
    }
}

/// The largest errors of a correct build.
pub(super) struct Tolerances {
    pub forward: f64,
    pub loss: f64,
    pub gradient: f64,
    pub gradient_norm: f64,
    pub weights: f64,
}

impl Tolerances {
    pub fn of(precision: Precision) -> Tolerances {
        match precision {
            // Reference tensors and initial weights are stored in f32: their rounding changes a loss by about 10⁻⁹.
            Precision::F64 => {
                Tolerances { forward: 1e-6, loss: 1e-8, gradient: 1e-6, gradient_norm: 1e-8, weights: 1e-6 }
            }
            Precision::F32 => {
                Tolerances { forward: 1e-4, loss: 1e-5, gradient: 1e-4, gradient_norm: 1e-4, weights: 1e-4 }
            }
            Precision::Bf16 => {
                Tolerances { forward: 2e-2, loss: 2e-2, gradient: 5e-2, gradient_norm: 2e-2, weights: 5e-2 }
            }
        }
    }
}

/// Returns the larger of two errors, or NaN if one is NaN, which `f64::max` would drop.
pub(super) fn worse(a: f64, b: f64) -> f64 {
    if b.is_nan() || b > a { b } else { a }
}

/// Returns ‖found − expected‖. `found` may have padded vocabulary rows behind the expected elements, which must be zero.
pub(super) fn distance(found: &[f64], expected: &[f64]) -> f64 {
    let differences = found.iter().zip(expected).map(|(f, e)| f - e);
    differences.chain(found.iter().skip(expected.len()).copied()).map(|d| d * d).sum::<f64>().sqrt()
}

pub(super) fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_a_number_is_a_miss_and_is_not_forgotten() {
        assert!(!Check::new(Quantity::Forward, "forward", "x", f64::NAN, 1.0).ok);
        assert!(worse(f64::NAN, 1.0).is_nan() && worse(1.0, f64::NAN).is_nan());
        assert_eq!((worse(1.0, 2.0), worse(2.0, 1.0)), (2.0, 2.0));
    }

    #[test]
    fn padded_rows_must_be_zero() {
        assert_eq!(distance(&[1.0, 2.0, 0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert_eq!(distance(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0]), 5.0);
    }
}
