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

use super::error::{self, OptimizerError};
use super::hyperparameters::{Hyperparameters, UpdateScalars};
use super::rule::{self, Param, PartialUpdate, Preset, TensorUpdate, Treatment, UpdateRule};
use super::stages::{GradientClip, WeightDecay, WeightDecayMode, apply, momentum_buffer, scale};
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

/// The presets.
const PRESETS: &[Preset<SgdConfig>] = &[
    Preset {
        name: "torch",
        source: "torch.optim.SGD; optax sgd: no momentum and no decay by default",
        settings: || SgdConfig {
            momentum: 0.0,
            weight_decay: 0.0,
            exclude_from_weight_decay: Vec::new(),
            ..SgdConfig::default()
        },
    },
    Preset {
        name: "timm",
        source: "timm sgd: Nesterov momentum",
        settings: || SgdConfig { nesterov: true, weight_decay: 2e-5, ..SgdConfig::default() },
    },
];

impl UpdateRule for SgdConfig {
    fn name(&self) -> &'static str {
        "SGD"
    }

    fn state_names(&self) -> &'static [&'static str] {
        if self.momentum > 0.0 { &["momentum"] } else { &[] }
    }

    fn validate(&self) -> Result<(), OptimizerError> {
        error::below_one("momentum", self.momentum)?;
        error::below_one("dampening", self.dampening)?;
        error::not_negative("weight_decay", self.weight_decay)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            return Err(OptimizerError::Value {
                key: "nesterov",
                requires: "momentum above 0 and dampening = 0".to_string(),
                got: format!("momentum {}, dampening {}", self.momentum, self.dampening),
            });
        }
        self.gradient_clip.validate()
    }

    fn gradient_clip(&self) -> GradientClip {
        self.gradient_clip
    }

    fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>, OptimizerError> {
        Treatment::without_trust_ratio(&self.exclude_from_weight_decay, names)
    }

    fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = Hyperparameters::default();
        numbers.add_unless_zero("momentum", self.momentum);
        if self.momentum * self.dampening != 0.0 {
            numbers.add("one_minus_dampening", 1.0 - self.dampening);
        }
        numbers.add_unless_zero("weight_decay", self.weight_decay);
        numbers
    }

    fn update<'a, 'g: 'a>(&'a self, param: &Param<'g>, scalars: &'a UpdateScalars<'g>) -> PartialUpdate<'a, 'g> {
        let decays = param.treatment.decayed && self.weight_decay != 0.0;
        let decay = WeightDecay::new(self.weight_decay_mode, decays, scalars);
        let w = decay.before_update(param.weight);
        let g = decay.of_gradient(param.gradient, w);
        let buffer = |&b: &Tensor<'g>| momentum_buffer(self.dampening, scalars, b, g);
        let state: Vec<Tensor> = param.state.iter().map(buffer).collect();
        let d = match state[..] {
            [buffer] if self.nesterov => g + scale(scalars.get("momentum"), buffer),
            [buffer] => buffer,
            _ => g,
        };
        let weight = decay.after_update(apply(w, scalars.learning_rate, decay.of_direction(d, w)));
        let update = TensorUpdate { weight, state, trust_ratio: w.graph().scalar(1.0, w.dtype()) };
        PartialUpdate { norms_of: Vec::new(), finish: Box::new(|_| update) }
    }

    fn normalised_step(&self, _adapted: bool, _t: u64, _w_norm: f64, _elements: usize) -> f64 {
        0.0
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let momentum = match (self.momentum, self.nesterov) {
            (0.0, _) => "none".to_string(),
            (momentum, true) => format!("{momentum}, Nesterov"),
            (momentum, false) => momentum.to_string(),
        };
        let mode = self.weight_decay_mode.describe();
        vec![
            ("momentum", momentum),
            ("dampening", self.dampening.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, {mode}", self.weight_decay)),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
        ]
    }

    fn presets() -> &'static [Preset<Self>] {
        PRESETS
    }
}
