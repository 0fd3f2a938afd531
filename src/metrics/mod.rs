//! The metrics of fine-tuning and evaluation, as pure functions of labels, numbers and texts. Each equals the field's
//! reference code on the same predictions: scikit-learn ([`classification`]), scipy ([`regression`]), seqeval
//! ([`entities`]) and the official SQuAD scripts ([`squad`]).
//!
//! Metrics that are fractions are between 0 and 1; some references print them times 100. A metric that is not defined,
//! such as the accuracy of no examples or the correlation with a constant, is NaN, which JSON writers turn into `null`.
//!
//! ```
//! use lambert::metrics::{Confusion, LabelFrequencies};
//!
//! let (gold, predicted) = ([0, 0, 0, 1, 2], [0, 0, 1, 1, 2]);
//! let confusion = Confusion::of(3, &gold, &predicted);
//! assert_eq!(confusion.accuracy(), 0.8);
//! assert_eq!(LabelFrequencies::of(3, &gold).majority_accuracy(), 0.6);
//! ```

pub mod classification;
pub mod entities;
pub mod kind;
pub mod regression;
pub mod spread;
pub mod squad;

pub use classification::{Confusion, LabelFrequencies};
pub use entities::EntityCounts;
pub use kind::MetricKind;
pub use regression::{mean_squared_error, pearson, spearman};
pub use spread::{Spread, standard_error_of_difference};

/// Returns the mean of `values`; NaN if there are none.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}

/// Returns numerator / denominator, and 0 for a denominator of 0: `zero_division=0` of scikit-learn and seqeval.
fn ratio_or_zero(numerator: f64, denominator: f64) -> f64 {
    if denominator == 0.0 { 0.0 } else { numerator / denominator }
}
