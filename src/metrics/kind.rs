//! The kinds of metrics.

/// The kind of a metric: how its value is printed, and in which direction it improves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A mean negative log-likelihood in nats. Lower is better.
    Loss,
    /// A mean squared error. Lower is better.
    SquaredError,
    /// A share of labels from 0 to 1, such as an accuracy; printed in percent. Higher is better.
    Share,
    /// A score from 0 to 1, such as F1; printed in percent. Higher is better, but an answer by chance can exceed the baseline.
    Score,
    /// A correlation from −1 to 1. Higher is better.
    Correlation,
    /// A number of examples, which does not measure quality.
    Count,
}

impl MetricKind {
    /// Returns whether training minimises metrics of this kind.
    pub const fn is_loss(self) -> bool {
        matches!(self, MetricKind::Loss | MetricKind::SquaredError)
    }
}
