//! Multinomial logistic regression with an L2 penalty.

use rayon::prelude::*;

use super::ProbeError;
use super::lbfgs::{NotConverged, add_scaled, dot, minimize};

/// The largest element of the gradient of the mean loss at the minimum: a thousandth of scikit-learn's default, so that
/// only scikit-learn's distance from the minimum remains between the two.
const TOLERANCE: f64 = 1e-7;
const MAX_ITERATIONS: usize = 5_000;
/// Rows whose gradients are summed by one thread. Fixed, so that the order of sums does not depend on the number of
/// threads.
const ROWS_OF_CHUNK: usize = 128;

/// A classifier of rows of numbers, whose last number is a 1 for the intercept.
///
/// The class of a row has the probabilities softmax(logits). The logits are the products of the row with one vector for
/// each class. With two classes there is one vector, for class 1, and the logit of class 0 is zero.
#[derive(Clone, Debug)]
pub(super) struct LogisticRegression {
    classes: usize,
    width: usize,
    /// Shape [outputs, width].
    weights: Vec<f64>,
}

impl LogisticRegression {
    /// Minimises the mean over rows of −ln p(label) plus ‖w‖²/(2·rows), where w are the weights without the intercepts:
    /// the objective of scikit-learn's `LogisticRegression(C=1.0)`. `values` has shape [rows, width] and one label for
    /// each row.
    pub(super) fn fit(values: &[f64], labels: &[usize], classes: usize) -> Result<LogisticRegression, ProbeError> {
        let width = values.len() / labels.len();
        let outputs = if classes == 2 { 1 } else { classes };
        let objective = Objective { values, labels, classes, width };
        let start = vec![0.0; outputs * width];
        let minimum = minimize(|w, gradient| objective.evaluate(w, gradient), start, TOLERANCE, MAX_ITERATIONS);
        let weights = minimum.map_err(|NotConverged { iterations }| ProbeError::NotConverged { iterations })?;
        Ok(LogisticRegression { classes, width, weights })
    }

    /// Returns the class with the largest logit, the first of equal ones.
    pub(super) fn predict(&self, row: &[f64]) -> usize {
        let logits = logits(&self.weights, row, self.classes);
        let larger = |best: usize, class: usize| if logits[class] > logits[best] { class } else { best };
        (0..self.classes).fold(0, larger)
    }

    pub(super) fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the weights of each output, each followed by the intercept.
    pub(super) fn coefficients(&self) -> impl Iterator<Item = &[f64]> {
        self.weights.chunks(self.width)
    }
}

/// Returns the logits of all classes: zero for the classes before those with weights.
fn logits(weights: &[f64], row: &[f64], classes: usize) -> Vec<f64> {
    let outputs = weights.chunks(row.len());
    let zeros = classes - outputs.len();
    std::iter::repeat_n(0.0, zeros).chain(outputs.map(|weights| dot(weights, row))).collect()
}

/// The function to minimise.
struct Objective<'a> {
    values: &'a [f64],
    labels: &'a [usize],
    classes: usize,
    width: usize,
}

impl Objective<'_> {
    /// Returns the objective at `weights` and writes its gradient.
    fn evaluate(&self, weights: &[f64], gradient: &mut [f64]) -> f64 {
        let chunks = self.values.par_chunks(ROWS_OF_CHUNK * self.width).zip(self.labels.par_chunks(ROWS_OF_CHUNK));
        let sums: Vec<(f64, Vec<f64>)> = chunks.map(|(rows, labels)| self.sums(weights, rows, labels)).collect();
        let n = self.labels.len() as f64;
        let mut loss = 0.0;
        for (loss_of_chunk, gradient_of_chunk) in sums {
            loss += loss_of_chunk / n;
            add_scaled(gradient, 1.0 / n, &gradient_of_chunk);
        }
        for (weights, gradient) in weights.chunks(self.width).zip(gradient.chunks_mut(self.width)) {
            let penalized = &weights[..self.width - 1];
            loss += dot(penalized, penalized) / (2.0 * n);
            add_scaled(&mut gradient[..self.width - 1], 1.0 / n, penalized);
        }
        loss
    }

    /// Returns the loss of some rows and its gradient, (p − one-hot(label)) ⊗ row, both as sums over the rows.
    fn sums(&self, weights: &[f64], rows: &[f64], labels: &[usize]) -> (f64, Vec<f64>) {
        let mut loss = 0.0;
        let mut gradient = vec![0.0; weights.len()];
        let zeros = self.classes - weights.len() / self.width;
        for (row, &label) in rows.chunks(self.width).zip(labels) {
            let logits = logits(weights, row, self.classes);
            // Relative to the largest, so that no exponential overflows.
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<f64> = logits.iter().map(|logit| (logit - largest).exp()).collect();
            let total: f64 = exponentials.iter().sum();
            loss += total.ln() + largest - logits[label];
            for (class, gradient) in (zeros..self.classes).zip(gradient.chunks_mut(self.width)) {
                let probability = exponentials[class] / total;
                add_scaled(gradient, probability - f64::from(class == label), row);
            }
        }
        (loss, gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows [sin, cos, …, 1] of 300 examples and labels that depend on them.
    fn examples(classes: usize) -> (Vec<f64>, Vec<usize>) {
        let value = |i: usize, k: usize| if k == 3 { 1.0 } else { ((i * (k + 2)) as f64 * 0.7).sin() };
        let values: Vec<f64> = (0..300).flat_map(|i| (0..4).map(move |k| value(i, k))).collect();
        let label = |row: &[f64]| ((row[0] + row[1] + 4.0) * 7.0) as usize % classes;
        let labels = values.chunks(4).map(label).collect();
        (values, labels)
    }

    #[test]
    fn gradient_equals_finite_differences() {
        for classes in [2, 4] {
            let (values, labels) = examples(classes);
            let objective = Objective { values: &values, labels: &labels, classes, width: 4 };
            let outputs = if classes == 2 { 1 } else { classes };
            let weights: Vec<f64> = (0..outputs * 4).map(|k| (k as f64 * 1.3).cos()).collect();
            let mut gradient = vec![0.0; weights.len()];
            objective.evaluate(&weights, &mut gradient);
            let at = |k: usize, change: f64| {
                let mut moved = weights.clone();
                moved[k] += change;
                objective.evaluate(&moved, &mut vec![0.0; weights.len()])
            };
            for (k, gradient) in gradient.iter().enumerate() {
                let difference = (at(k, 1e-5) - at(k, -1e-5)) / 2e-5;
                assert!((gradient - difference).abs() < 1e-9, "{classes} classes, weight {k}: {gradient} {difference}");
            }
        }
    }

    #[test]
    fn weights_are_independent_of_the_number_of_threads() {
        let (values, labels) = examples(3);
        let fit = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LogisticRegression::fit(&values, &labels, 3).unwrap().weights)
        };
        assert_eq!(fit(1), fit(3));
    }
}
