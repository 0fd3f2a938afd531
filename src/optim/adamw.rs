//! AdamW: Adam with decoupled weight decay. LAMB with a trust ratio of 1 is the same update.
//!
//! ```text
//! m ← β1·m + (1 − β1)·g               m̂ = m / (1 − β1ᵗ)
//! v ← β2·v + (1 − β2)·g²              v̂ = v / (1 − β2ᵗ)
//! w ← w − η · (m̂ / (√v̂ + ε) + λ·w)
//! ```
//! Sources: arXiv 1711.05101, Algorithm 2; google-research/bert `optimization.py`, which omits the bias correction and
//! clips the global norm to 1: `bias_correction = "none"`, `gradient_clip = { global_norm = { max = 1.0 } }`.

use serde::{Deserialize, Serialize};

use super::rule::{self, OptimizerError, Param, PartialUpdate, TensorUpdate, Treatment, UpdateRule};
use super::stages::{
    self, Adam, AdamScaled, BiasCorrection, EpsilonPlace, GradientClip, add_decayed_weights, apply, scale_by_adam,
};
use crate::graph::Tensor;

/// The settings of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// β1, the decay of the first moment.
    pub beta1: f64,
    /// β2, the decay of the second moment.
    pub beta2: f64,
    /// ε, added to √v̂.
    pub epsilon: f64,
    /// The place of the bias correction.
    pub bias_correction: BiasCorrection,
    /// The clipping of the gradients, before the moments.
    pub gradient_clip: GradientClip,
    /// λ, the factor of weight decay.
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
            exclude_from_weight_decay: rule::default_exclusions(),
        }
    }
}

impl UpdateRule for AdamWConfig {
    fn name(&self) -> &'static str {
        "AdamW"
    }

    fn state_names(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn validate(&self) -> Result<(), OptimizerError> {
        rule::below_one("beta1", self.beta1)?;
        rule::below_one("beta2", self.beta2)?;
        rule::above_zero("epsilon", self.epsilon)?;
        rule::not_negative("weight_decay", self.weight_decay)?;
        rule::validate_clip(self.gradient_clip)
    }

    fn gradient_clip(&self) -> GradientClip {
        self.gradient_clip
    }

    fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>, OptimizerError> {
        Treatment::without_trust_ratio(&self.exclude_from_weight_decay, names)
    }

    fn update<'a, 'g: 'a>(
        &'a self,
        param: &Param<'g>,
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
    ) -> PartialUpdate<'a, 'g> {
        let adam = Adam {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            epsilon_place: EpsilonPlace::OutsideSqrt,
            bias_correction: self.bias_correction,
            grad_averaging: true,
        };
        let w = param.weight;
        let AdamScaled { r, m, v, .. } = scale_by_adam(&adam, param.gradient, param.state[0], param.state[1], t);
        let u = add_decayed_weights(r, w, if param.treatment.decayed { self.weight_decay } else { 0.0 });
        let learning_rate = stages::corrected_learning_rate(&adam, learning_rate, t);
        let ratio = w.graph().scalar(1.0, w.dtype());
        let update = TensorUpdate { weight: apply(w, learning_rate, u), state: vec![m, v], trust_ratio: ratio };
        PartialUpdate { norms_of: Vec::new(), finish: Box::new(|_| update) }
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let correction = match self.bias_correction {
            BiasCorrection::None => "none",
            BiasCorrection::InUpdate => "both moments",
            BiasCorrection::LearningRateOnly => "learning rate only",
        };
        vec![
            ("betas", format!("{}, {}", self.beta1, self.beta2)),
            ("epsilon", format!("{:e}, as √v + ε", self.epsilon)),
            ("bias correction", correction.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, decoupled", self.weight_decay)),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
        ]
    }
}
