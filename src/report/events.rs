//! What is known of a step when it has ended: what the devices report of it, and what this host saw.

use std::time::Duration;

use crate::schedule::StepPlan;

/// One weight update, done and read.
#[derive(Debug)]
pub struct StepEvent {
    /// Weight updates done, this one included.
    pub done: u64,
    pub plan: StepPlan,
    /// Names ([`crate::task::metric_names`]) and values.
    pub metrics: Vec<(&'static str, f64)>,
    /// One of each weight.
    pub trust_ratios: Vec<f64>,
    /// Positions that all devices computed, and the share of this host's that held no token.
    pub positions: usize,
    pub padding: f64,
    /// Epochs of the phase's examples that lie behind.
    pub epochs: f64,
    /// From the end of the step before to the end of this one, and the part of it that was spent on waiting for the batch.
    pub elapsed: Duration,
    pub waited: Duration,
}

impl StepEvent {
    /// Returns the metric `name`; not a number if the step has none of this name.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics.iter().find(|(own, _)| *own == name).map_or(f64::NAN, |(_, value)| *value)
    }

    /// Everything that is told of it, by name.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let seconds = self.elapsed.as_secs_f64();
        let mut scalars = self.metrics.clone();
        scalars.extend([
            ("learning_rate", self.plan.learning_rate),
            ("phase", (self.plan.phase + 1) as f64),
            ("epoch", self.epochs),
            ("sequences_per_second", self.plan.global_batch as f64 / seconds),
            ("tokens_per_second", self.positions as f64 / seconds),
            ("padding", self.padding),
            ("waiting_for_data", (self.waited.as_secs_f64() / seconds).min(1.0)),
        ]);
        scalars.extend(spread(&self.trust_ratios));
        scalars
    }
}

/// Smallest, middle and largest trust ratio.
fn spread(ratios: &[f64]) -> [(&'static str, f64); 3] {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted.get(share.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    [("trust_ratio_min", at(0)), ("trust_ratio_median", at(sorted.len() / 2)), ("trust_ratio_max", at(usize::MAX))]
}
