//! Metrics of numbers: correlations as `pearsonr` and `spearmanr` of scipy.stats, and the mean squared error.

use super::mean;

/// Returns Pearson's correlation of `x` and `y`; NaN if one of them is constant or has fewer than two values.
///
/// # Panics
///
/// Panics if the lengths differ.
#[must_use]
pub fn pearson(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len(), "pairs of values");
    // Rounding of the mean would give a constant a deviation that is not quite 0.
    if is_constant(x) || is_constant(y) {
        return f64::NAN;
    }
    let (x, y) = (centred(x), centred(y));
    // Unit vectors, because the product of two norms can overflow where the correlation is ordinary.
    let (x_norm, y_norm) = (norm(&x), norm(&y));
    let r: f64 = x.iter().zip(&y).map(|(x, y)| (x / x_norm) * (y / y_norm)).sum();
    r.clamp(-1.0, 1.0)
}

/// Returns Spearman's rank correlation of `x` and `y`: Pearson's correlation of their ranks, where equal values share
/// the mean of their ranks. It is NaN if one of them is constant, has fewer than two values, or contains a NaN.
///
/// # Panics
///
/// Panics if the lengths differ.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> f64 {
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return f64::NAN;
    }
    pearson(&average_ranks(x), &average_ranks(y))
}

/// Returns the mean of (predicted − gold)²; NaN without examples.
///
/// # Panics
///
/// Panics if the lengths differ.
#[must_use]
pub fn mean_squared_error(gold: &[f64], predicted: &[f64]) -> f64 {
    assert_eq!(gold.len(), predicted.len(), "one prediction for each gold value");
    mean(gold.iter().zip(predicted).map(|(gold, predicted)| (predicted - gold).powi(2)))
}

fn is_constant(values: &[f64]) -> bool {
    values.windows(2).all(|pair| pair[0] == pair[1])
}

fn centred(values: &[f64]) -> Vec<f64> {
    let mean = mean(values.iter().copied());
    values.iter().map(|value| value - mean).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// Returns the rank of each value from 1 on; equal values have the mean of their ranks.
fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for equal in order.chunk_by(|&i, &j| values[i] == values[j]) {
        // The mean of below + 1, …, below + equal.len().
        let rank = below as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&i| ranks[i] = rank);
        below += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_mean_rank() {
        assert_eq!(average_ranks(&[3.0, 1.0, 3.0, 0.0, -0.0, 3.0]), [5.0, 3.0, 5.0, 1.5, 1.5, 5.0]);
    }

    #[test]
    fn correlation_is_independent_of_scale_and_offset() {
        let x = [1.0, 4.0, 2.0, 8.0];
        let y = x.map(|x| 5.0 - 1e-3 * x);
        assert!((pearson(&x, &y) + 1.0).abs() < 1e-12);
        assert_eq!(spearman(&x, &x.map(f64::exp)), 1.0);
    }

    #[test]
    fn correlation_with_a_constant_is_not_defined() {
        // The mean of three times 0.1 is not 0.1.
        assert!(pearson(&[0.1; 3], &[1.0, 2.0, 4.0]).is_nan());
        assert!(spearman(&[1.0, 2.0, 4.0], &[7.0; 3]).is_nan());
        assert!(pearson(&[], &[]).is_nan() && spearman(&[1.0], &[2.0]).is_nan());
        assert!(spearman(&[1.0, f64::NAN], &[2.0, 3.0]).is_nan());
    }
}
