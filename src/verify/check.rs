//! One comparison: its quantity, its error, and the tolerance of a correct build.

use serde::Serialize;

use crate::optim::UpdateRule;
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

/// The floor of the norm of a gradient, as a fraction of the global norm.
pub(super) const GRADIENT_FLOOR: f64 = 1e-3;

impl Tolerances {
    /// Returns the error of a final weight that follows from an error of the gradient that its check accepts.
    ///
    /// Optimizers with a second moment or a trust ratio divide the gradient by its size. If it is hardly larger than its own
    /// rounding error, they magnify that error: softmax is invariant to the bias of the keys, so the direction of these tensors is
    /// rounding error alone, and with a trust ratio each step has the full length. `gradient` and `global` are the norms of the
    /// tensor's gradient and of all, `reach` the distance that the steps can move the tensor ([`reach`]). A relative error of the
    /// gradient is one of the direction; two directions differ by 2 at most.
    pub fn magnified(&self, gradient: f64, global: f64, reach: f64) -> f64 {
        let accepted = self.gradient * gradient.max(GRADIENT_FLOOR * global);
        reach * if accepted < 2.0 * gradient { accepted / gradient } else { 2.0 }
    }
}

/// Returns the distance that steps with the learning rates `rates` can move a tensor with the norm `initial` and `elements`
/// elements if `rule` divides its gradient by its size.
pub(super) fn reach(rule: &dyn UpdateRule, adapted: bool, rates: &[f64], initial: f64, elements: usize) -> f64 {
    let step = |distance: f64, (t, rate): (u64, &f64)| {
        distance + rate * rule.normalised_step(adapted, t, initial + distance, elements)
    };
    (1..).zip(rates).fold(0.0, step)
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
    use crate::optim::OptimizerConfig;

    #[test]
    fn not_a_number_is_a_miss_and_is_not_forgotten() {
        assert!(!Check::new(Quantity::Forward, "forward", "x", f64::NAN, 1.0).ok);
        assert!(worse(f64::NAN, 1.0).is_nan() && worse(1.0, f64::NAN).is_nan());
        assert_eq!((worse(1.0, 2.0), worse(2.0, 1.0)), (2.0, 2.0));
    }

    #[test]
    fn final_weights_may_be_wrong_by_what_an_accepted_error_of_the_gradient_causes() {
        let tolerances = Tolerances::of(Precision::F32);
        // A gradient of usual size: an error of the tolerance, relative to the distance of the steps.
        assert!((tolerances.magnified(0.5, 1.0, 0.03) - 0.03 * 1e-4).abs() < 1e-15);
        // Ten times the accepted error: a tenth of the distance; below the accepted error: any direction.
        assert!((tolerances.magnified(1e-6, 1.0, 0.03) - 0.003).abs() < 1e-12);
        assert_eq!([1e-9, 0.0].map(|gradient| tolerances.magnified(gradient, 1.0, 0.03)), [0.06; 2]);
    }

    #[test]
    fn reach_is_the_length_of_the_steps_of_rules_that_normalise() {
        let reach = |settings: &str, adapted: bool, initial: f64| {
            let config: OptimizerConfig = toml::from_str(settings).unwrap();
            reach(config.rule(), adapted, &[0.1, 0.2], initial, 4)
        };
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        // LAMB's steps have the length η·‖w‖, and η·√n without a trust ratio.
        close(reach("", true, 3.0), 0.3 + 0.2 * 3.3);
        close(reach("", false, 3.0), 0.3 * 2.0);
        close(reach("phi = { clamp = { min = 0.0, max = 1.0 } }", true, 3.0), 0.3);
        close(reach("ratio_clamp = { min = 0.01, max = 0.5 }", true, 3.0), 0.3);
        close(reach("bias_correction = 'first_moment_only'", false, 3.0), 2.0 * (0.1 / 0.1 + 0.2 / 0.19));
        close(reach("kind = 'adamw'", false, 3.0), 0.6);
        close(reach("kind = 'lars'\norder = 'paper'", true, 3.0), 0.3 + 0.2 * 3.3);
        close(reach("kind = 'lars'", false, 3.0), 0.0);
        close(reach("kind = 'sgd'", false, 3.0), 0.0);
    }

    #[test]
    fn padded_rows_must_be_zero() {
        assert_eq!(distance(&[1.0, 2.0, 0.0, 0.0], &[1.0, 2.0]), 0.0);
        assert_eq!(distance(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0]), 5.0);
    }
}
