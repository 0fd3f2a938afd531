//! The verdict on a run that took all its steps and whose model is no better than one that ignores its input.

use super::{LEARNED, LONG, Monitor, References};

/// The numbers of a run whose model has learned nothing beyond the label frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NothingLearned {
    /// The held-out loss at the end.
    pub held_out: f64,
    /// The loss of a model that knows only the label frequencies.
    pub baseline: f64,
    /// The lowest long median of the training loss.
    pub lowest: f64,
}

impl Monitor {
    /// Returns the numbers of a run that ends with the loss `held_out` if its model has learned nothing: no long median of the training
    /// loss was at 0.75 times the baseline or below, and the held-out loss is not below the baseline. Runs that are too short for a
    /// long median are not judged.
    pub fn nothing_learned(&self, held_out: f64, references: References) -> Option<NothingLearned> {
        let (lowest, baseline) = self.lowest().zip(references.baseline)?;
        let is_below = held_out < baseline;
        (lowest > LEARNED && !is_below).then_some(NothingLearned { held_out, baseline, lowest: lowest * baseline })
    }
}

impl NothingLearned {
    /// Returns a sentence with the numbers and the settings to change; `label` names the loss.
    pub fn sentence(&self, label: &str) -> String {
        let NothingLearned { held_out, baseline, lowest } = *self;
        format!(
            "the model has learned nothing beyond the label frequencies: the held-out {label} is {held_out:.4} at the end and was \
             {lowest:.4} at best in training (median of {LONG} steps), and a model that ignores its input has {baseline:.4}; lower \
             learning_rate, lengthen warmup, or train for more steps"
        )
    }
}
