//! Metrics of classes: accuracy, F1 and the Matthews correlation, all from one confusion matrix, and the baselines that
//! need only the frequencies of the gold labels.

use super::{mean, ratio_or_zero};

/// A confusion matrix: how often each gold class was predicted as each class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `counts[gold * classes + predicted]`
    counts: Vec<u64>,
}

impl Confusion {
    /// Returns the matrix of no examples.
    #[must_use]
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Returns the matrix of examples with the labels `gold` and `predicted`, each below `classes`.
    ///
    /// # Panics
    ///
    /// Panics if the lengths differ or a label is not below `classes`.
    #[must_use]
    pub fn of(classes: usize, gold: &[usize], predicted: &[usize]) -> Confusion {
        assert_eq!(gold.len(), predicted.len(), "one prediction for each gold label");
        let mut confusion = Confusion::new(classes);
        gold.iter().zip(predicted).for_each(|(&gold, &predicted)| confusion.add(gold, predicted));
        confusion
    }

    /// Adds one example.
    ///
    /// # Panics
    ///
    /// Panics if a label is not below the number of classes.
    pub fn add(&mut self, gold: usize, predicted: usize) {
        let classes = self.classes;
        assert!(gold < classes && predicted < classes, "labels {gold} and {predicted} are below {classes}");
        self.counts[gold * classes + predicted] += 1;
    }

    /// Returns the fraction of examples whose class was predicted; NaN without examples.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.correct() / self.examples()
    }

    /// Returns F1 = 2·TP / (2·TP + FP + FN) of each class, and `None` for a class that is neither a gold label nor
    /// predicted.
    #[must_use]
    pub fn f1_per_class(&self) -> Vec<Option<f64>> {
        let f1 = |class| {
            let gold_and_predicted = self.gold(class) + self.predicted(class);
            (gold_and_predicted > 0.0).then(|| 2.0 * self.count(class, class) / gold_and_predicted)
        };
        (0..self.classes).map(f1).collect()
    }

    /// Returns the unweighted mean of F1 over the classes that are a gold label or predicted, as scikit-learn's
    /// `f1_score(average="macro", zero_division=0)`; NaN without examples.
    #[must_use]
    pub fn macro_f1(&self) -> f64 {
        let scores: Vec<f64> = self.f1_per_class().into_iter().flatten().collect();
        mean(scores.into_iter())
    }

    /// Returns the Matthews correlation of any number of classes, as scikit-learn's `matthews_corrcoef`; 0 if all gold
    /// labels or all predictions are one class.
    ///
    /// With n examples, c correct, gₖ examples of class k and pₖ predictions of it:
    /// (c·n − Σ gₖ·pₖ) / √((n² − Σ pₖ²) · (n² − Σ gₖ²))
    #[must_use]
    pub fn matthews(&self) -> f64 {
        let sum = |of: &dyn Fn(usize) -> f64| (0..self.classes).map(of).sum::<f64>();
        let (n, c) = (self.examples(), self.correct());
        let covariance = c * n - sum(&|k| self.gold(k) * self.predicted(k));
        let of_predictions = n * n - sum(&|k| self.predicted(k).powi(2));
        let of_gold = n * n - sum(&|k| self.gold(k).powi(2));
        ratio_or_zero(covariance, (of_predictions * of_gold).sqrt())
    }

    fn count(&self, gold: usize, predicted: usize) -> f64 {
        self.counts[gold * self.classes + predicted] as f64
    }

    fn examples(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64
    }

    fn correct(&self) -> f64 {
        (0..self.classes).map(|class| self.count(class, class)).sum()
    }

    /// Returns the number of examples of `class`.
    fn gold(&self, class: usize) -> f64 {
        (0..self.classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Returns the number of predictions of `class`.
    fn predicted(&self, class: usize) -> f64 {
        (0..self.classes).map(|gold| self.count(gold, class)).sum()
    }
}

/// The number of examples of each class: all that a baseline knows which does not read its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelFrequencies {
    counts: Vec<u64>,
}

impl LabelFrequencies {
    /// Creates the frequencies of no examples.
    #[must_use]
    pub fn new(classes: usize) -> LabelFrequencies {
        LabelFrequencies { counts: vec![0; classes] }
    }

    /// Counts `labels`, each below `classes`.
    ///
    /// # Panics
    ///
    /// Panics if a label is not below `classes`.
    #[must_use]
    pub fn of(classes: usize, labels: &[usize]) -> LabelFrequencies {
        let mut frequencies = LabelFrequencies::new(classes);
        frequencies.extend(labels.iter().copied());
        frequencies
    }

    /// Returns the number of examples.
    #[must_use]
    pub fn examples(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Takes the number of examples of each class.
    #[must_use]
    pub fn from_counts(counts: Vec<u64>) -> LabelFrequencies {
        LabelFrequencies { counts }
    }

    /// Returns the number of examples of each class.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns the accuracy of the constant prediction of the most frequent class; NaN without examples.
    #[must_use]
    pub fn majority_accuracy(&self) -> f64 {
        self.rates().fold(f64::NAN, f64::max)
    }

    /// Returns the entropy of the label rates in nats, Σ r·ln 1/r: the mean cross-entropy of predicting the rates for
    /// every example; NaN without examples.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        let surprise = |rate: f64| if rate == 0.0 { 0.0 } else { rate * rate.recip().ln() };
        self.rates().map(surprise).sum()
    }

    fn rates(&self) -> impl Iterator<Item = f64> {
        let examples = self.examples() as f64;
        self.counts.iter().map(move |&count| count as f64 / examples)
    }
}

impl Extend<usize> for LabelFrequencies {
    /// Counts `labels`.
    ///
    /// # Panics
    ///
    /// Panics if a label is not below the number of classes.
    fn extend<I: IntoIterator<Item = usize>>(&mut self, labels: I) {
        labels.into_iter().for_each(|label| self.counts[label] += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_prediction_has_majority_accuracy_and_no_correlation() {
        let gold = [1, 1, 1, 0];
        let confusion = Confusion::of(2, &gold, &[1; 4]);
        assert_eq!(confusion.accuracy(), LabelFrequencies::of(2, &gold).majority_accuracy());
        assert_eq!(confusion.matthews(), 0.0);
        assert_eq!(confusion.f1_per_class(), [Some(0.0), Some(6.0 / 7.0)]);
    }

    #[test]
    fn class_without_examples_and_predictions_does_not_count() {
        let (gold, predicted) = ([0, 2, 2], [0, 2, 0]);
        let confusion = Confusion::of(4, &gold, &predicted);
        assert_eq!(confusion.f1_per_class(), [Some(2.0 / 3.0), None, Some(2.0 / 3.0), None]);
        assert_eq!(confusion.macro_f1(), 2.0 / 3.0);
    }

    #[test]
    fn entropy_of_equal_rates_is_the_log_of_their_number() {
        let frequencies = LabelFrequencies::of(5, &[0, 1, 3, 4, 4, 3, 1, 0]);
        assert!((frequencies.entropy() - 4f64.ln()).abs() < 1e-15);
        let one_class = LabelFrequencies::of(2, &[1; 5]);
        assert!(one_class.entropy() == 0.0 && one_class.entropy().is_sign_positive());
    }

    #[test]
    fn metrics_of_no_examples_are_not_defined() {
        let confusion = Confusion::new(3);
        assert!(confusion.accuracy().is_nan() && confusion.macro_f1().is_nan());
        let frequencies = LabelFrequencies::of(3, &[]);
        assert!(frequencies.majority_accuracy().is_nan() && frequencies.entropy().is_nan());
    }
}
