//! SGD with momentum or Nesterov momentum, as `torch.optim.SGD`, with L2 or decoupled weight decay.
//!
//! ```text
//! g ← g + λ·w                          weight_decay_mode = "l2"
//! b ← μ·b + (1 − τ)·g                  b = g at t = 1, whatever the dampening τ; without momentum there is no b
//! d = b                                classical momentum
//! d = g + μ·b                          nesterov = true
//! d = g                                momentum = 0
//! w ← w − η·d                          weight_decay_mode = "l2"
//! w ← w − η·(d + λ·w)                  weight_decay_mode = "decoupled"
//! ```
//! Sources: the documentation of `torch.optim.SGD`; Nesterov momentum in this form: Sutskever et al., "On the importance
//! of initialization and momentum in deep learning" (ICML 2013), with the velocity divided by −η; decoupled weight decay:
//! arXiv 1711.05101, Algorithm 1 (SGDW). t counts the updates since the optimizer state was zero,
//! including updates skipped for gradients that are not finite.

use serde::{Deserialize, Serialize};

use super::rule::{self, OptimizerError, Param, PartialUpdate, TensorUpdate, Treatment, UpdateRule};
use super::stages::{GradientClip, WeightDecayMode, add_decayed_weights, apply, scale};
use crate::graph::Tensor;

/// The settings of SGD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// μ, the decay of the momentum buffer; with 0 there is no buffer.
    pub momentum: f64,
    /// τ: the gradient enters the momentum buffer with 1 − τ, but with 1 at the first update.
    pub dampening: f64,
    /// Whether the update looks ahead: g + μ·b instead of b. Requires momentum and no dampening.
    pub nesterov: bool,
    /// The clipping of the gradients, before everything else.
    pub gradient_clip: GradientClip,
    /// λ, the factor of weight decay.
    pub weight_decay: f64,
    /// The place where weight decay is added.
    pub weight_decay_mode: WeightDecayMode,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        SgdConfig {
            momentum: 0.9,
            dampening: 0.0,
            nesterov: false,
            gradient_clip: GradientClip::None,
            weight_decay: 1e-4,
            weight_decay_mode: WeightDecayMode::L2,
            exclude_from_weight_decay: rule::default_exclusions(),
        }
    }
}

impl SgdConfig {
    /// Returns the new momentum buffer.
    fn buffer<'g>(&self, buffer: Tensor<'g>, g: Tensor<'g>, t: Tensor<'g>) -> Tensor<'g> {
        let entering = if self.dampening == 0.0 {
            g
        } else {
            let first = t.eq(t.filled(1.0));
            scale(first.select(t.filled(1.0), t.filled(1.0 - self.dampening)), g)
        };
        self.momentum * buffer + entering
    }
}

impl UpdateRule for SgdConfig {
    fn name(&self) -> &'static str {
        "SGD"
    }

    fn state_names(&self) -> &'static [&'static str] {
        if self.momentum > 0.0 { &["momentum"] } else { &[] }
    }

    fn validate(&self) -> Result<(), OptimizerError> {
        rule::below_one("momentum", self.momentum)?;
        rule::below_one("dampening", self.dampening)?;
        rule::not_negative("weight_decay", self.weight_decay)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            return Err(OptimizerError::Value {
                key: "nesterov",
                requires: "momentum above 0 and dampening = 0".to_string(),
                got: format!("momentum {}, dampening {}", self.momentum, self.dampening),
            });
        }
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
        let w = param.weight;
        let lambda = if param.treatment.decayed { self.weight_decay } else { 0.0 };
        let (into_gradient, into_update) = self.weight_decay_mode.split(lambda);
        let g = add_decayed_weights(param.gradient, w, into_gradient);
        let state: Vec<Tensor> = param.state.iter().map(|&buffer| self.buffer(buffer, g, t)).collect();
        let d = match state[..] {
            [buffer] if self.nesterov => g + self.momentum * buffer,
            [buffer] => buffer,
            _ => g,
        };
        let weight = apply(w, learning_rate, add_decayed_weights(d, w, into_update));
        let update = TensorUpdate { weight, state, trust_ratio: w.graph().scalar(1.0, w.dtype()) };
        PartialUpdate { norms_of: Vec::new(), finish: Box::new(|_| update) }
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let momentum = match (self.momentum, self.nesterov) {
            (0.0, _) => "none".to_string(),
            (momentum, true) => format!("{momentum}, Nesterov"),
            (momentum, false) => momentum.to_string(),
        };
        let mode = match self.weight_decay_mode {
            WeightDecayMode::Decoupled => "decoupled",
            WeightDecayMode::L2 => "added to the gradient (L2)",
        };
        vec![
            ("momentum", momentum),
            ("dampening", self.dampening.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, {mode}", self.weight_decay)),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
        ]
    }
}
