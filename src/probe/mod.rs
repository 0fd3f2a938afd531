//! A linear probe: multinomial logistic regression on frozen features, which measures how well a linear classifier
//! reads labels from them. A probe needs no device and takes seconds.
//!
//! The definition is scikit-learn's `make_pipeline(StandardScaler(), LogisticRegression())` at its minimum, and
//! `StratifiedKFold(5)` for cross-validation, so that scores agree with those computed there. Nothing is random, and
//! results do not depend on the number of threads.
//!
//! ```
//! use lambert::probe::{Features, Probe, cross_validated_accuracy};
//!
//! // One feature that separates two classes, and one that is constant.
//! let labels: Vec<usize> = (0..20).map(|i| i % 2).collect();
//! let values: Vec<f32> = labels.iter().flat_map(|&label| [label as f32, 1.0]).collect();
//! let features = Features::new(20, 2, &values);
//! let score = cross_validated_accuracy(&features, &labels, 2)?;
//! assert_eq!((score.accuracy, score.majority), (1.0, 0.5));
//!
//! let probe = Probe::fit(&features, &labels, 2)?;
//! assert_eq!(probe.predict(&Features::new(2, 2, &[-3.0, 1.0, 30.0, 1.0]))?, [0, 1]);
//! # Ok::<(), lambert::probe::ProbeError>(())
//! ```

mod folds;
mod lbfgs;
mod logistic;
mod standardize;

use crate::metrics::{Confusion, LabelFrequencies, Spread};
use folds::stratified_folds;
use logistic::LogisticRegression;
use standardize::Standardizer;

/// Folds of the cross-validation.
pub const FOLDS: usize = 5;

/// Feature vectors, one row for each example.
#[derive(Clone, Copy, Debug)]
pub struct Features<'a> {
    rows: usize,
    width: usize,
    values: &'a [f32],
}

impl<'a> Features<'a> {
    /// Takes `values` in row-major order, with shape [rows, width].
    ///
    /// # Panics
    ///
    /// Panics if `values` does not have rows · width elements.
    #[must_use]
    pub fn new(rows: usize, width: usize, values: &'a [f32]) -> Features<'a> {
        assert_eq!(values.len(), rows * width, "features of shape [{rows}, {width}]");
        Features { rows, width, values }
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of features of a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns row `i`.
    fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.width..][..self.width]
    }
}

/// Labels and features that no probe can be trained on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The numbers of rows and labels differ.
    #[error("a probe requires one label for each row of features, got {rows} rows and {labels} labels")]
    Lengths {
        /// Rows of features.
        rows: usize,
        /// Labels.
        labels: usize,
    },
    /// A label is not a class.
    #[error("row {row} has label {label}, a probe of {classes} classes requires labels below {classes}")]
    Label {
        /// The row, from 0.
        row: usize,
        /// Its label.
        label: usize,
        /// The number of classes.
        classes: usize,
    },
    /// The labels do not have two classes.
    #[error("a probe requires rows of at least two classes, got {found}; add rows with other labels")]
    OneClass {
        /// The number of classes that have rows: 0 or 1.
        found: usize,
    },
    /// A class has fewer rows than the probe requires.
    #[error("class {class} has too few rows: requires at least {required}, got {found}; add rows or remove the class")]
    TooFewRows {
        /// The class.
        class: usize,
        /// Rows of the class.
        found: usize,
        /// Rows that the probe requires: one, or one for each fold.
        required: usize,
    },
    /// A feature is infinite or NaN.
    #[error("feature {feature} of row {row} is not finite; check the weights of the encoder that computed it")]
    NotFinite {
        /// The row, from 0.
        row: usize,
        /// The index of the feature, from 0.
        feature: usize,
    },
    /// Rounding keeps the minimiser from the required gradient, as for features of extreme size.
    #[error(
        "the logistic regression of the probe did not converge in {iterations} iterations; measure other features, such as \
         another pooling of the hidden states"
    )]
    NotConverged {
        /// Iterations of L-BFGS.
        iterations: usize,
    },
}

/// The result of a cross-validation.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeScore {
    /// The mean of the accuracies of the folds.
    pub accuracy: f64,
    /// Their sample standard deviation.
    pub deviation: f64,
    /// The accuracy of predicting the most frequent label for all rows: the score of features without information.
    pub majority: f64,
    /// The accuracy on each fold, of a probe trained on the other folds.
    pub folds: Vec<f64>,
}

/// A trained linear classifier of feature vectors.
#[derive(Clone, Debug)]
pub struct Probe {
    standardizer: Standardizer,
    regression: LogisticRegression,
}

impl Probe {
    /// Trains a probe on `features` with one label from 0 to `classes` − 1 for each row. Each class needs a row.
    ///
    /// # Errors
    ///
    /// Returns an error if labels and features do not fit, a class has no row, or a feature is not finite or of extreme
    /// size.
    pub fn fit(features: &Features, labels: &[usize], classes: usize) -> Result<Probe, ProbeError> {
        check(features, labels, classes, 1)?;
        let all: Vec<usize> = (0..features.rows).collect();
        Probe::fit_rows(features, labels, classes, &all)
    }

    /// Returns the most probable class of each row; of equally probable classes, the first.
    ///
    /// # Errors
    ///
    /// Returns an error if a feature is not finite.
    ///
    /// # Panics
    ///
    /// Panics if the rows do not have the width of the training rows.
    pub fn predict(&self, features: &Features) -> Result<Vec<usize>, ProbeError> {
        check_finite(features)?;
        Ok((0..features.rows).map(|i| self.predict_row(features.row(i))).collect())
    }

    /// Returns the fraction of rows whose label is predicted, such as those of a dev set; NaN without rows.
    ///
    /// # Errors
    ///
    /// Returns an error if labels and features do not fit, or a feature is not finite.
    ///
    /// # Panics
    ///
    /// Panics if the rows do not have the width of the training rows.
    pub fn accuracy(&self, features: &Features, labels: &[usize]) -> Result<f64, ProbeError> {
        let classes = self.regression.classes();
        rows_of_classes(features, labels, classes)?;
        Ok(Confusion::of(classes, labels, &self.predict(features)?).accuracy())
    }

    /// Returns the weights of the standardised features, one vector for each class, each followed by the intercept. Two
    /// classes have one vector, for the log-odds of class 1, as `coef_` of scikit-learn.
    pub fn coefficients(&self) -> impl Iterator<Item = &[f64]> {
        self.regression.coefficients()
    }

    /// Trains on the given rows, which [`check`] has accepted.
    fn fit_rows(features: &Features, labels: &[usize], classes: usize, rows: &[usize]) -> Result<Probe, ProbeError> {
        let standardizer = Standardizer::fit(features, rows);
        let standardized: Vec<f64> = rows.iter().flat_map(|&i| standardizer.apply(features.row(i))).collect();
        let labels: Vec<usize> = rows.iter().map(|&i| labels[i]).collect();
        let regression = LogisticRegression::fit(&standardized, &labels, classes)?;
        Ok(Probe { standardizer, regression })
    }

    fn predict_row(&self, row: &[f32]) -> usize {
        let standardized: Vec<f64> = self.standardizer.apply(row).collect();
        self.regression.predict(&standardized)
    }
}

/// Trains a probe without each fold of a stratified 5-fold partition and returns the accuracies on the folds left out.
/// The folds are those of scikit-learn's `StratifiedKFold(5)`: fixed by the order of the rows.
///
/// # Errors
///
/// Returns an error if labels and features do not fit, a class has fewer rows than there are folds, or a feature is not
/// finite or of extreme size.
pub fn cross_validated_accuracy(
    features: &Features,
    labels: &[usize],
    classes: usize,
) -> Result<ProbeScore, ProbeError> {
    check(features, labels, classes, FOLDS)?;
    let fold_of_row = stratified_folds(labels, FOLDS);
    let accuracy = |fold| {
        let (test, training): (Vec<usize>, Vec<usize>) = (0..features.rows).partition(|&i| fold_of_row[i] == fold);
        let probe = Probe::fit_rows(features, labels, classes, &training)?;
        let correct = test.iter().filter(|&&i| probe.predict_row(features.row(i)) == labels[i]).count();
        Ok(correct as f64 / test.len() as f64)
    };
    let folds = (0..FOLDS).map(accuracy).collect::<Result<Vec<f64>, ProbeError>>()?;
    let spread = Spread::of(&folds);
    let majority = LabelFrequencies::of(classes, labels).majority_accuracy();
    Ok(ProbeScore { accuracy: spread.mean, deviation: spread.deviation, majority, folds })
}

/// Checks that there are at least two classes, that each has at least `required` rows, and that all features are
/// finite.
fn check(features: &Features, labels: &[usize], classes: usize, required: usize) -> Result<(), ProbeError> {
    let rows = rows_of_classes(features, labels, classes)?;
    let found = rows.iter().filter(|&&rows| rows > 0).count();
    if found < 2 {
        return Err(ProbeError::OneClass { found });
    }
    if let Some((class, &found)) = rows.iter().enumerate().find(|&(_, &rows)| rows < required) {
        return Err(ProbeError::TooFewRows { class, found, required });
    }
    check_finite(features)
}

/// Returns the number of rows of each class.
fn rows_of_classes(features: &Features, labels: &[usize], classes: usize) -> Result<Vec<usize>, ProbeError> {
    if labels.len() != features.rows {
        return Err(ProbeError::Lengths { rows: features.rows, labels: labels.len() });
    }
    let mut rows = vec![0; classes];
    for (row, &label) in labels.iter().enumerate() {
        *rows.get_mut(label).ok_or(ProbeError::Label { row, label, classes })? += 1;
    }
    Ok(rows)
}

fn check_finite(features: &Features) -> Result<(), ProbeError> {
    match features.values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(ProbeError::NotFinite { row: at / features.width, feature: at % features.width }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(labels: &[usize], classes: usize, values: &[f32]) -> String {
        let features = Features::new(values.len() / 2, 2, values);
        cross_validated_accuracy(&features, labels, classes).unwrap_err().to_string()
    }

    #[test]
    fn labels_and_features_without_a_probe_are_refused() {
        let values = [0.5f32; 20];
        let labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1];
        assert!(error(&labels[..9], 2, &values).contains("got 10 rows and 9 labels"));
        assert!(error(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 7], 2, &values).contains("row 9 has label 7"));
        assert!(error(&[1; 10], 2, &values).contains("at least two classes, got 1"));
        assert!(error(&[0, 0, 0, 1, 0, 1, 0, 1, 0, 1], 2, &values).contains("at least 5, got 4"));
        let mut infinite = values;
        infinite[7] = f32::INFINITY;
        assert!(error(&labels, 2, &infinite).contains("feature 1 of row 3 is not finite"));
    }

    #[test]
    fn features_without_information_score_the_majority() {
        let labels: Vec<usize> = (0..40).map(|i| usize::from(i % 4 == 0)).collect();
        let score = cross_validated_accuracy(&Features::new(40, 2, &[3.0; 80]), &labels, 2).unwrap();
        assert_eq!((score.accuracy, score.majority), (0.75, 0.75));
    }
}
