//! AdamW: LAMB with a trust ratio of 1.
//!
//! ```text
//! m ← β1·m + (1 − β1)·g;  v ← β2·v + (1 − β2)·g²
//! w ← w − η · (m̂ / (√v̂ + ε) + λ·w)
//! ```
//! Sources: arXiv 1711.05101; google-research/bert `optimization.py`, which omits the bias correction and clips the global
//! norm to 1: `bias_correction = "none"`, `gradient_clip = { global_norm = { max = 1.0 } }`.

use serde::{Deserialize, Serialize};

use super::stages::{
    self, Adam, AdamScaled, BiasCorrection, EpsilonPlace, GradientClip, add_decayed_weights, apply, scale_by_adam,
};
use super::{Directed, OptimizerError, Updated, Variable, above_zero, below_one};
use crate::graph::Tensor;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub bias_correction: BiasCorrection,
    pub gradient_clip: GradientClip,
    pub weight_decay: f64,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            bias_correction: BiasCorrection::InUpdate,
            gradient_clip: GradientClip::None,
            weight_decay: 0.01,
            exclude_from_weight_decay: super::default_exclusions(),
        }
    }
}

impl AdamWConfig {
    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("epsilon", self.epsilon)?;
        super::not_negative("weight_decay", self.weight_decay)?;
        super::validate_clip(self.gradient_clip)
    }

    /// One tensor's update. Slots: m, v.
    pub(super) fn update<'a, 'g: 'a>(
        &'a self,
        x: &Variable<'g>,
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
    ) -> Directed<'a, 'g> {
        let adam = Adam {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            epsilon_place: EpsilonPlace::OutsideSqrt,
            bias_correction: self.bias_correction,
            grad_averaging: true,
        };
        let w = x.weight;
        let AdamScaled { r, m, v, .. } = scale_by_adam(&adam, x.gradient, x.slots[0], x.slots[1], t);
        let u = add_decayed_weights(r, w, if x.treatment.decayed { self.weight_decay } else { 0.0 });
        let learning_rate = stages::corrected_learning_rate(&adam, learning_rate, t);
        let ratio = w.graph().scalar(1.0, w.dtype());
        let updated = Updated { weight: apply(w, learning_rate, u), slots: vec![m, v], trust_ratio: ratio };
        Directed { measured: Vec::new(), finish: Box::new(|_| updated) }
    }

    pub(super) fn describe(&self) -> Vec<(&'static str, String)> {
        let correction = match self.bias_correction {
            BiasCorrection::None => "none",
            BiasCorrection::InUpdate => "of both moments",
            BiasCorrection::LearningRateOnly => "of the learning rate only",
        };
        vec![
            ("betas", format!("{}, {}", self.beta1, self.beta2)),
            ("epsilon", format!("{:e}, as √v + ε", self.epsilon)),
            ("bias correction", correction.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, decoupled", self.weight_decay)),
            ("no weight decay", super::or_none(&self.exclude_from_weight_decay)),
        ]
    }
}
