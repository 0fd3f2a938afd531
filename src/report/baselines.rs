//! Baselines of an evaluation: what a model scores that ignores its input and knows only how often each label occurs in the
//! evaluated examples. It answers every time with these frequencies, and no constant answer scores better.

use crate::metrics::LabelFrequencies;

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
    pub fn with_labels(self, loss: &'static str, accuracy: &'static str, labels: &LabelFrequencies) -> Baselines {
        match labels.examples() {
            0 => self,
            _ => self.with(loss, labels.entropy()).with(accuracy, labels.majority_accuracy()),
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
        let labels = LabelFrequencies::of(5, &[4, 0, 4, 3, 4, 0, 3, 4]);
        let baselines = Baselines::default().with_labels("loss", "accuracy", &labels).with("correlation", 0.0);
        let entropy = baselines.get("loss").unwrap();
        assert!((entropy - 1.5 * std::f64::consts::LN_2).abs() < 1e-15, "{entropy}");
        assert_eq!(baselines.get("accuracy"), Some(0.5));
        assert_eq!(baselines.get("correlation"), Some(0.0));
        assert_eq!(baselines.get("f1"), None);
        let none = Baselines::default().with_labels("loss", "accuracy", &LabelFrequencies::new(5));
        assert_eq!(none, Baselines::default());
    }
}
