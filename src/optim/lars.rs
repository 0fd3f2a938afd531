//! LARS, in the two orders of operations that are published under this name.
//!
//! ```text
//! classic (arXiv 1708.03888; the learning rate enters the momentum buffer, as in optax and TensorFlow)
//!     ratio = c·‖w‖ / (‖g‖ + λ·‖w‖ + ε);   b ← μ·b + η·ratio·(g + λ·w);   w ← w − b
//! paper   (arXiv 1904.00962, Algorithm 1: momentum first, then its norm)
//!     b ← μ·b + (1 − μ)·(g + λ·w);         ratio = ‖w‖ / ‖b‖;              w ← w − η·ratio·b
//! ```
//! The ratio is 1 where a norm is 0 and for tensors that are not adapted.

use serde::{Deserialize, Serialize};

use super::pattern;
use super::rule::{self, OptimizerError, Param, PartialUpdate, TensorUpdate, Treatment, UpdateRule};
use super::stages::{GradientClip, Phi, add_decayed_weights, apply, scale, trust_ratio};
use crate::graph::Tensor;

/// The settings of LARS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LarsConfig {
    /// The order of momentum and normalisation.
    pub order: LarsOrder,
    /// μ, the decay of the momentum buffer.
    pub momentum: f64,
    /// c of the classic order; the paper's order has none.
    pub trust_coefficient: f64,
    /// ε of the classic order.
    pub epsilon: f64,
    /// The clipping of the gradients, before everything else.
    pub gradient_clip: GradientClip,
    /// λ, the factor of weight decay.
    pub weight_decay: f64,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
    /// Patterns of the tensors whose ratio is 1; by default those of `exclude_from_weight_decay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_from_adaptation: Option<Vec<String>>,
}

/// The order of momentum and normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LarsOrder {
    /// The gradient is normalised, then enters the momentum.
    Classic,
    /// The momentum is normalised.
    Paper,
}

impl Default for LarsConfig {
    fn default() -> Self {
        LarsConfig {
            order: LarsOrder::Classic,
            momentum: 0.9,
            trust_coefficient: 0.001,
            epsilon: 0.0,
            gradient_clip: GradientClip::None,
            weight_decay: 1e-4,
            exclude_from_weight_decay: rule::default_exclusions(),
            exclude_from_adaptation: None,
        }
    }
}

impl LarsConfig {
    fn classic_ratio<'g>(&self, w_norm: Tensor<'g>, g_norm: Tensor<'g>, lambda: f64) -> Tensor<'g> {
        let both = w_norm.gt(w_norm.filled(0.0)).and(g_norm.gt(g_norm.filled(0.0)));
        let one = w_norm.filled(1.0);
        let denominator = g_norm + lambda * w_norm + self.epsilon;
        both.select(self.trust_coefficient * w_norm / both.select(denominator, one), one)
    }
}

impl UpdateRule for LarsConfig {
    fn name(&self) -> &'static str {
        "LARS"
    }

    fn state_names(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn validate(&self) -> Result<(), OptimizerError> {
        rule::below_one("momentum", self.momentum)?;
        rule::above_zero("trust_coefficient", self.trust_coefficient)?;
        rule::not_negative("epsilon", self.epsilon)?;
        rule::not_negative("weight_decay", self.weight_decay)?;
        rule::validate_clip(self.gradient_clip)
    }

    fn gradient_clip(&self) -> GradientClip {
        self.gradient_clip
    }

    fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>, OptimizerError> {
        let undecayed = pattern::matched("exclude_from_weight_decay", &self.exclude_from_weight_decay, names)?;
        let unadapted = match &self.exclude_from_adaptation {
            None => undecayed.clone(),
            Some(patterns) => pattern::matched("exclude_from_adaptation", patterns, names)?,
        };
        let both = undecayed.into_iter().zip(unadapted);
        Ok(both.map(|(undecayed, unadapted)| Treatment { decayed: !undecayed, adapted: !unadapted }).collect())
    }

    fn update<'a, 'g: 'a>(
        &'a self,
        param: &Param<'g>,
        learning_rate: Tensor<'g>,
        _t: Tensor<'g>,
    ) -> PartialUpdate<'a, 'g> {
        let (w, g, buffer) = (param.weight, param.gradient, param.state[0]);
        let lambda = if param.treatment.decayed { self.weight_decay } else { 0.0 };
        let one = w.graph().scalar(1.0, w.dtype());
        let decayed = add_decayed_weights(g, w, lambda);
        let adapted = param.treatment.adapted;
        let norms_of = |direction| if adapted { vec![w, direction] } else { Vec::new() };
        match self.order {
            LarsOrder::Classic => PartialUpdate {
                norms_of: norms_of(g),
                finish: Box::new(move |norms| {
                    let ratio = match *norms {
                        [w_norm, g_norm] => self.classic_ratio(w_norm, g_norm, lambda),
                        _ => one,
                    };
                    let buffer = self.momentum * buffer + scale(learning_rate * ratio, decayed);
                    TensorUpdate { weight: w - buffer, state: vec![buffer], trust_ratio: ratio }
                }),
            },
            LarsOrder::Paper => {
                let buffer = self.momentum * buffer + (1.0 - self.momentum) * decayed;
                PartialUpdate {
                    norms_of: norms_of(buffer),
                    finish: Box::new(move |norms| {
                        let ratio = match *norms {
                            [w_norm, buffer_norm] => trust_ratio(Phi::Identity, None, w_norm, buffer_norm),
                            _ => one,
                        };
                        let weight = apply(w, learning_rate * ratio, buffer);
                        TensorUpdate { weight, state: vec![buffer], trust_ratio: ratio }
                    }),
                }
            }
        }
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let ratio = match self.order {
            LarsOrder::Classic => {
                format!("{}·‖w‖ / (‖g‖ + λ‖w‖ + {:e}), inside the momentum", self.trust_coefficient, self.epsilon)
            }
            LarsOrder::Paper => "‖w‖ / ‖momentum‖".to_string(),
        };
        let unadapted = self.exclude_from_adaptation.as_ref().unwrap_or(&self.exclude_from_weight_decay);
        vec![
            ("momentum", self.momentum.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", self.weight_decay.to_string()),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
            ("trust ratio", format!("{ratio}; 1 where a norm is 0")),
            ("excluded from trust ratio", rule::or_none(unadapted)),
        ]
    }
}
