//! LARS, in the two orders that are both called so.
//!
//! ```text
//! classic (arXiv 1708.03888; the learning rate is inside the momentum buffer, as in optax and TensorFlow)
//!     ratio = c·‖w‖ / (‖g‖ + λ·‖w‖ + ε);   b ← μ·b + η·ratio·(g + λ·w);   w ← w − b
//! paper   (arXiv 1904.00962, Algorithm 1: momentum first, then its norm)
//!     b ← μ·b + (1 − μ)·(g + λ·w);         ratio = ‖w‖ / ‖b‖;              w ← w − η·ratio·b
//! ```
//! Where a norm is 0, and for tensors that are not adapted, the ratio is 1.

use serde::{Deserialize, Serialize};

use super::stages::{GradientClip, Phi, add_decayed_weights, apply, scale, trust_ratio};
use super::{Directed, OptimizerError, Updated, Variable, below_one};
use crate::graph::Tensor;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LarsConfig {
    pub order: LarsOrder,
    pub momentum: f64,
    /// c of the classic order; the paper's has none.
    pub trust_coefficient: f64,
    /// ε of the classic order.
    pub epsilon: f64,
    pub gradient_clip: GradientClip,
    pub weight_decay: f64,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
    /// Patterns of the tensors whose ratio is 1; left out, those of the decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_from_adaptation: Option<Vec<String>>,
}

/// What is normalised: see the module's first lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LarsOrder {
    Classic,
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
            exclude_from_weight_decay: super::default_exclusions(),
            exclude_from_adaptation: None,
        }
    }
}

impl LarsConfig {
    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        below_one("momentum", self.momentum)?;
        super::above_zero("trust_coefficient", self.trust_coefficient)?;
        super::not_negative("epsilon", self.epsilon)?;
        super::not_negative("weight_decay", self.weight_decay)?;
        super::validate_clip(self.gradient_clip)
    }

    /// One tensor's update. Slot: momentum.
    pub(super) fn update<'a, 'g: 'a>(&'a self, x: &Variable<'g>, learning_rate: Tensor<'g>) -> Directed<'a, 'g> {
        let (w, g, buffer) = (x.weight, x.gradient, x.slots[0]);
        let lambda = if x.treatment.decayed { self.weight_decay } else { 0.0 };
        let one = w.graph().scalar(1.0, w.dtype());
        let decayed = add_decayed_weights(g, w, lambda);
        let measured = |direction| if x.treatment.adapted { vec![w, direction] } else { Vec::new() };
        match self.order {
            LarsOrder::Classic => Directed {
                measured: measured(g),
                finish: Box::new(move |norms| {
                    let ratio = match *norms {
                        [w_norm, g_norm] => self.classic_ratio(w_norm, g_norm, lambda),
                        _ => one,
                    };
                    let buffer = self.momentum * buffer + scale(learning_rate * ratio, decayed);
                    Updated { weight: w - buffer, slots: vec![buffer], trust_ratio: ratio }
                }),
            },
            LarsOrder::Paper => {
                let buffer = self.momentum * buffer + (1.0 - self.momentum) * decayed;
                Directed {
                    measured: measured(buffer),
                    finish: Box::new(move |norms| {
                        let ratio = match *norms {
                            [w_norm, buffer_norm] => trust_ratio(Phi::Identity, None, w_norm, buffer_norm),
                            _ => one,
                        };
                        let weight = apply(w, learning_rate * ratio, buffer);
                        Updated { weight, slots: vec![buffer], trust_ratio: ratio }
                    }),
                }
            }
        }
    }

    fn classic_ratio<'g>(&self, w_norm: Tensor<'g>, g_norm: Tensor<'g>, lambda: f64) -> Tensor<'g> {
        let both = w_norm.gt(w_norm.filled(0.0)).and(g_norm.gt(g_norm.filled(0.0)));
        let one = w_norm.filled(1.0);
        let denominator = g_norm + lambda * w_norm + self.epsilon;
        both.select(self.trust_coefficient * w_norm / both.select(denominator, one), one)
    }

    pub(super) fn describe(&self) -> Vec<(&'static str, String)> {
        let ratio = match self.order {
            LarsOrder::Classic => {
                format!("{}·‖w‖ / (‖g‖ + λ‖w‖ + {:e}), inside the momentum", self.trust_coefficient, self.epsilon)
            }
            LarsOrder::Paper => "‖w‖ / ‖momentum‖".to_string(),
        };
        let adapted = self.exclude_from_adaptation.as_ref().unwrap_or(&self.exclude_from_weight_decay);
        vec![
            ("momentum", self.momentum.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", self.weight_decay.to_string()),
            ("no weight decay", super::or_none(&self.exclude_from_weight_decay)),
            ("trust ratio", format!("{ratio}; 1 where a norm is 0")),
            ("no trust ratio", super::or_none(adapted)),
        ]
    }
}
