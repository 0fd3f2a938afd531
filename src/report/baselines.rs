//! Baselines of an evaluation: what a model scores that ignores its input and knows only how often each label occurs in the
//! evaluated examples. It answers every time with these frequencies, and no constant answer scores better.

use std::collections::BTreeMap;

/// How often each label occurs in a set of examples.
///
/// Labels are kept in order, so that every host that counts the same examples computes the same sums, bit for bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelCounts(BTreeMap<i32, u64>);

impl LabelCounts {
    /// Returns the number of labels.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Returns the entropy of the label frequencies, Σ p ln(1/p), in nats: the lowest mean negative log-likelihood of a
    /// constant answer. 0 without labels.
    pub fn entropy(&self) -> f64 {
        self.frequencies().map(|p| p * p.recip().ln()).fold(0.0, |sum, term| sum + term)
    }

    /// Returns the frequency of the most frequent label: the highest accuracy of a constant answer. 0 without labels.
    pub fn majority(&self) -> f64 {
        self.frequencies().fold(0.0, f64::max)
    }

    fn frequencies(&self) -> impl Iterator<Item = f64> {
        let total = self.total() as f64;
        self.0.values().map(move |&count| count as f64 / total)
    }
}

impl Extend<i32> for LabelCounts {
    fn extend<I: IntoIterator<Item = i32>>(&mut self, labels: I) {
        labels.into_iter().for_each(|label| *self.0.entry(label).or_default() += 1);
    }
}

impl FromIterator<i32> for LabelCounts {
    fn from_iter<I: IntoIterator<Item = i32>>(labels: I) -> Self {
        let mut counts = LabelCounts::default();
        counts.extend(labels);
        counts
    }
}

/// The baselines of an evaluation, by the name of the metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Baselines(Vec<(&'static str, f64)>);

impl Baselines {
    /// Adds the baseline `value` of the metric `name`.
    pub fn with(mut self, name: &'static str, value: f64) -> Baselines {
        self.0.push((name, value));
        self
    }

    /// Adds the baselines of a classifier of `labels`: the entropy for the metric `loss` and the majority rate for the metric
    /// `accuracy`. Adds nothing if there are no labels.
    pub fn with_labels(self, loss: &'static str, accuracy: &'static str, labels: &LabelCounts) -> Baselines {
        match labels.total() {
            0 => self,
            _ => self.with(loss, labels.entropy()).with(accuracy, labels.majority()),
        }
    }

    /// Returns the baseline of the metric `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_are_the_entropy_and_the_majority_rate_of_the_labels() {
        // Frequencies 1/2, 1/4, 1/4.
        let counts: LabelCounts = [7, 3, 7, 9, 7, 3, 9, 7].into_iter().collect();
        assert_eq!(counts.total(), 8);
        assert!((counts.entropy() - 1.5 * std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!(counts.majority(), 0.5);
        let baselines = Baselines::default().with_labels("loss", "accuracy", &counts).with("correlation", 0.0);
        assert_eq!(baselines.get("loss"), Some(counts.entropy()));
        assert_eq!(baselines.get("accuracy"), Some(0.5));
        assert_eq!(baselines.get("correlation"), Some(0.0));
        assert_eq!(baselines.get("f1"), None);
    }

    #[test]
    fn one_label_has_no_entropy_and_no_labels_have_no_baseline() {
        let counts: LabelCounts = [1; 5].into_iter().collect();
        assert_eq!((counts.entropy(), counts.majority()), (0.0, 1.0));
        let baselines = Baselines::default().with_labels("loss", "accuracy", &LabelCounts::default());
        assert_eq!(baselines, Baselines::default());
    }
}
