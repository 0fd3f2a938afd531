//! The mean and standard deviation of one metric over several seeds, and the standard error of a difference of such
//! means.

use super::mean;

/// The mean and spread of a sample, such as the accuracies of several seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean; NaN without values.
    pub mean: f64,
    /// The sample standard deviation, with n − 1 in its denominator; NaN for fewer than two values.
    pub deviation: f64,
    /// The number of values.
    pub count: usize,
}

impl Spread {
    /// Computes the mean and spread of `values`.
    #[must_use]
    pub fn of(values: &[f64]) -> Spread {
        let count = values.len();
        let mean = mean(values.iter().copied());
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = if count < 2 { f64::NAN } else { (squares / (count - 1) as f64).sqrt() };
        Spread { mean, deviation, count }
    }

    /// Returns the standard error of the mean, s/√n.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        self.deviation / (self.count as f64).sqrt()
    }
}

/// Returns the standard error of the difference of the means of two independent samples, √(s₁²/n₁ + s₂²/n₂). The
/// variances need not be equal (Welch); NaN if a sample has fewer than two values.
#[must_use]
pub fn standard_error_of_difference(a: &Spread, b: &Spread) -> f64 {
    a.standard_error().hypot(b.standard_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_has_one_degree_of_freedom_less() {
        let spread = Spread::of(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!((spread.mean, spread.count), (3.0, 4));
        assert!((spread.deviation - (14.0f64 / 3.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn one_value_has_no_deviation() {
        let one = Spread::of(&[0.5]);
        assert_eq!(one.mean, 0.5);
        assert!(one.deviation.is_nan() && standard_error_of_difference(&one, &one).is_nan());
    }
}
