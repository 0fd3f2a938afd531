//! Standardisation of features by the mean and deviation of the training rows.

use super::Features;

/// Maps a feature x to (x − mean) / scale, with a mean and a scale for each feature.
#[derive(Clone, Debug)]
pub(super) struct Standardizer {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl Standardizer {
    /// Computes the mean and the standard deviation (with n in its denominator) of each feature over `rows`. A constant
    /// feature has scale 1.
    pub(super) fn fit(features: &Features, rows: &[usize]) -> Standardizer {
        let n = rows.len() as f64;
        let mean_of = |of: &dyn Fn(usize, f64) -> f64| {
            let mut sums = vec![0.0; features.width];
            for &i in rows {
                let row = features.row(i).iter().enumerate();
                sums.iter_mut().zip(row).for_each(|(sum, (k, &x))| *sum += of(k, f64::from(x)));
            }
            sums.into_iter().map(|sum| sum / n).collect::<Vec<f64>>()
        };
        let mean = mean_of(&|_, x| x);
        let variance = mean_of(&|k, x| (x - mean[k]).powi(2));
        let scale = |(&variance, &mean): (&f64, &f64)| {
            // A constant can have a variance from rounding; the bound is that of scikit-learn's StandardScaler.
            let of_rounding = n * f64::EPSILON * variance + (n * mean * f64::EPSILON).powi(2);
            if variance <= of_rounding { 1.0 } else { variance.sqrt() }
        };
        Standardizer { scale: variance.iter().zip(&mean).map(scale).collect(), mean }
    }

    /// Returns the standardised row, followed by a 1 for the intercept.
    pub(super) fn apply(&self, row: &[f32]) -> impl Iterator<Item = f64> {
        assert_eq!(row.len(), self.mean.len(), "features of a row");
        let standardized = row.iter().zip(&self.mean).zip(&self.scale);
        standardized.map(|((&x, mean), scale)| (f64::from(x) - mean) / scale).chain([1.0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_rows_have_mean_0_and_variance_1_and_constants_become_0() {
        let values = [1.0f32, 0.1, 100.0, 3.0, 0.1, -5.0, 7.0, 0.1, 2.0];
        // The last row is not a training row.
        let standardizer = Standardizer::fit(&Features::new(3, 3, &values), &[0, 1]);
        let rows: Vec<Vec<f64>> = values.chunks(3).map(|row| standardizer.apply(row).collect()).collect();
        assert_eq!(rows[0], [-1.0, 0.0, 1.0, 1.0]);
        assert_eq!(rows[1], [1.0, 0.0, -1.0, 1.0]);
        assert_eq!(rows[2][0], 5.0);
    }
}
