//! The event of a finished training step: the metrics from the devices and the measurements of this host.

use std::time::Duration;

use crate::schedule::StepPlan;

/// A finished weight update, with its metrics on the host.
#[derive(Debug)]
pub struct StepEvent {
    /// Weight updates done, including this one.
    pub done: u64,
    /// The step in the schedule: phase, learning rate, batch.
    pub plan: StepPlan,
    /// Names (from [`crate::task::metric_names`]) and values.
    pub metrics: Vec<(&'static str, f64)>,
    /// The trust ratio of each parameter tensor.
    pub trust_ratios: Vec<f64>,
    /// Token positions that all devices computed, including padding.
    pub positions: usize,
    /// Share of this host's positions that are padding.
    pub padding: f64,
    /// Epochs over the phase's examples so far.
    pub epochs: f64,
    /// Time from the end of the previous step to the end of this one.
    pub elapsed: Duration,
    /// The part of `elapsed` that was spent waiting for the batch.
    pub waited: Duration,
}

impl StepEvent {
    /// Returns the metric `name`; NaN if the step has no metric of this name.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics.iter().find(|(own, _)| *own == name).map_or(f64::NAN, |(_, value)| *value)
    }

    /// Returns the median of the trust ratios.
    pub fn median_trust_ratio(&self) -> f64 {
        spread(&self.trust_ratios)[1].1
    }

    /// Returns all reported scalars by name.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let seconds = self.elapsed.as_secs_f64();
        let mut scalars = self.metrics.clone();
        scalars.extend([
            ("seconds", seconds),
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

/// Returns the minimum, median and maximum trust ratio.
fn spread(ratios: &[f64]) -> [(&'static str, f64); 3] {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: usize| sorted.get(share.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    [("trust_ratio_min", at(0)), ("trust_ratio_median", at(sorted.len() / 2)), ("trust_ratio_max", at(usize::MAX))]
}
