//! LAMB, with every choice that its published implementations make differently, each named.
//!
//! ```text
//! for each parameter tensor w with gradient g                      (arXiv 1904.00962, Algorithm 2)
//!     m ← β1·m + (1 − β1)·g;  v ← β2·v + (1 − β2)·g²
//!     r = m̂ / (√v̂ + ε)
//!     w ← w − η · φ(‖w‖) / ‖r + λ·w‖ · (r + λ·w)
//! ```
//! LANS (arXiv 2006.13484) moves along two directions at once, each with a trust ratio of its own:
//!
//! ```text
//!     g ← g / (‖g‖ + ε) for each tensor, then m and v as above
//!     u_m = m̂ / (√v̂ + ε) + λ·w;  u_g = g / (√v̂ + ε) + λ·w
//!     w ← w − η · (β1 · φ(‖w‖)/‖u_m‖ · u_m + (1 − β1) · φ(‖w‖)/‖u_g‖ · u_g)
//! ```
//!
//! The layer of the paper is one parameter tensor. With ε → 0 and λ = 0 the trust ratio divides the bias correction out
//! again: it matters to decay, and to tensors that are not adapted. A constant factor on all gradients changes nothing but
//! through ε and the clip.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::stages::{
    self, Adam, AdamScaled, BiasCorrection, ClipFormula, EpsilonPlace, GradientClip, Phi, RatioClamp,
    add_decayed_weights, apply, scale, scale_by_adam, trust_ratio,
};
use super::{Directed, OptimizerError, Updated, Variable, above_zero, below_one};
use crate::graph::Tensor;

/// Every knob of LAMB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LambConfig {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub epsilon_place: EpsilonPlace,
    pub bias_correction: BiasCorrection,
    /// Whether the gradient enters m with 1 − β1 (true) or with 1.
    pub grad_averaging: bool,
    pub gradient_clip: GradientClip,
    pub weight_decay: f64,
    pub weight_decay_mode: WeightDecayMode,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
    /// Left out where it is the momentum alone, so that runs begun before there was a choice can be resumed.
    #[serde(default, skip_serializing_if = "Direction::is_momentum")]
    pub direction: Direction,
    pub adaptation: Adaptation,
    pub phi: Phi,
    /// Bounds of the trust ratio; none if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_clamp: Option<RatioClamp>,
}

/// Where weight decay is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayMode {
    /// To the Adam direction, inside the norm of the trust ratio: u = r + λ·w.
    Decoupled,
    /// To the gradient, before the moments: g + λ·w (apex `adam_w_mode=False`).
    L2,
}

/// What a step moves along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The momentum alone: LAMB.
    #[default]
    Momentum,
    /// The momentum with weight β1 and the gradient itself with weight 1 − β1 (or 1, without `grad_averaging`), each with
    /// its own weight decay and trust ratio: LANS.
    MomentumAndGradient,
}

impl Direction {
    fn is_momentum(&self) -> bool {
        *self == Direction::Momentum
    }
}

/// Which tensors get a trust ratio; the others are updated with ratio 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptation {
    All,
    /// Those not excluded from weight decay, whatever its value: what Google's code defaults to.
    AsWeightDecay,
    /// Those that decay, so none at all if `weight_decay` is 0: apex without `use_nvlamb`.
    WhereDecayed,
    /// All but those that these patterns match.
    Exclude(Vec<String>),
}

/// Published implementations whose choices a run file can name; each sets every knob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LambPreset {
    /// Algorithm 2 of the ICLR version: bias correction, no clipping; exclusions as in the authors' code.
    #[default]
    Paper,
    /// google-research/albert `lamb_optimizer.py` and `optimization.py`.
    Albert,
    /// NVIDIA/apex FusedLAMB as its BERT recipe sets it up.
    Apex,
    /// The same with `use_nvlamb`: every tensor is adapted.
    Nvlamb,
    /// DeepSpeed's FusedLamb. Its BERT recipe sets `bias_correction = "none"` and a ratio of 0.01 to 0.3 besides.
    Deepspeed,
    /// optax `lamb`: no exclusions, no decay unless asked.
    Optax,
    /// mlcommons/training `lamb_optimizer_v1.py`.
    Mlperf,
    /// szhengac/apex, branch lans, `multi_tensor_lans.cu`: gradients normalised by tensor, every tensor adapted.
    Lans,
}

impl LambPreset {
    pub const ALL: [LambPreset; 8] = [
        LambPreset::Paper,
        LambPreset::Albert,
        LambPreset::Apex,
        LambPreset::Nvlamb,
        LambPreset::Deepspeed,
        LambPreset::Optax,
        LambPreset::Mlperf,
        LambPreset::Lans,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            LambPreset::Paper => "paper",
            LambPreset::Albert => "albert",
            LambPreset::Apex => "apex",
            LambPreset::Nvlamb => "nvlamb",
            LambPreset::Deepspeed => "deepspeed",
            LambPreset::Optax => "optax",
            LambPreset::Mlperf => "mlperf",
            LambPreset::Lans => "lans",
        }
    }

    pub fn config(self) -> LambConfig {
        let clip = |formula| GradientClip::GlobalNorm { max: 1.0, formula };
        let paper = LambConfig {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            epsilon_place: EpsilonPlace::OutsideSqrt,
            bias_correction: BiasCorrection::InUpdate,
            grad_averaging: true,
            gradient_clip: GradientClip::None,
            weight_decay: 0.01,
            weight_decay_mode: WeightDecayMode::Decoupled,
            exclude_from_weight_decay: super::default_exclusions(),
            direction: Direction::Momentum,
            adaptation: Adaptation::AsWeightDecay,
            phi: Phi::Identity,
            ratio_clamp: None,
        };
        match self {
            LambPreset::Paper => paper,
            LambPreset::Albert => LambConfig {
                bias_correction: BiasCorrection::None,
                gradient_clip: clip(ClipFormula::Tensorflow),
                ..paper
            },
            LambPreset::Apex => {
                LambConfig { gradient_clip: clip(ClipFormula::Apex), adaptation: Adaptation::WhereDecayed, ..paper }
            }
            LambPreset::Nvlamb => {
                LambConfig { gradient_clip: clip(ClipFormula::Apex), adaptation: Adaptation::All, ..paper }
            }
            LambPreset::Deepspeed => LambConfig {
                epsilon: 1e-8,
                bias_correction: BiasCorrection::LearningRateOnly,
                adaptation: Adaptation::All,
                ratio_clamp: Some(RatioClamp { min: 0.01, max: 10.0 }),
                ..paper
            },
            LambPreset::Optax => LambConfig {
                weight_decay: 0.0,
                exclude_from_weight_decay: Vec::new(),
                adaptation: Adaptation::All,
                ..paper
            },
            LambPreset::Mlperf => LambConfig { gradient_clip: clip(ClipFormula::Tensorflow), ..paper },
            LambPreset::Lans => LambConfig {
                gradient_clip: GradientClip::PerTensor,
                direction: Direction::MomentumAndGradient,
                adaptation: Adaptation::All,
                ..paper
            },
        }
    }
}

impl fmt::Display for LambPreset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LambPreset {
    type Err = OptimizerError;

    fn from_str(name: &str) -> Result<Self, OptimizerError> {
        let known = LambPreset::ALL.into_iter().find(|p| p.name() == name);
        known.ok_or_else(|| OptimizerError::Value {
            key: "preset",
            requires: format!("one of {}", LambPreset::ALL.map(LambPreset::name).join(", ")),
            got: format!("{name:?}"),
        })
    }
}

impl LambConfig {
    pub(super) fn validate(&self) -> Result<(), OptimizerError> {
        below_one("beta1", self.beta1)?;
        below_one("beta2", self.beta2)?;
        above_zero("epsilon", self.epsilon)?;
        super::not_negative("weight_decay", self.weight_decay)?;
        super::validate_clip(self.gradient_clip)?;
        let bounds = match self.phi {
            Phi::Clamp { min, max } => Some(("phi", min, max)),
            Phi::Identity => None,
        };
        let clamp = self.ratio_clamp.map(|c| ("ratio_clamp", c.min, c.max));
        match bounds.into_iter().chain(clamp).find(|(_, min, max)| !(0.0 <= *min && min <= max && *max > 0.0)) {
            None => Ok(()),
            Some((key, min, max)) => Err(OptimizerError::Value {
                key,
                requires: "0 ≤ min ≤ max, and max above 0".to_string(),
                got: format!("min {min}, max {max}"),
            }),
        }
    }

    fn adam(&self) -> Adam {
        Adam {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            epsilon_place: self.epsilon_place,
            bias_correction: self.bias_correction,
            grad_averaging: self.grad_averaging,
        }
    }

    /// One tensor's update. Slots: m, v.
    pub(super) fn update<'a, 'g: 'a>(
        &'a self,
        x: &Variable<'g>,
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
    ) -> Directed<'a, 'g> {
        let (adam, w) = (self.adam(), x.weight);
        let lambda = if x.treatment.decayed { self.weight_decay } else { 0.0 };
        let (into_gradient, into_update) = match self.weight_decay_mode {
            WeightDecayMode::L2 => (lambda, 0.0),
            WeightDecayMode::Decoupled => (0.0, lambda),
        };
        let g = add_decayed_weights(x.gradient, w, into_gradient);
        let AdamScaled { r, m, v, denominator } = scale_by_adam(&adam, g, x.slots[0], x.slots[1], t);
        let u_m = add_decayed_weights(r, w, into_update);
        let directions = match self.direction {
            Direction::Momentum => vec![u_m],
            Direction::MomentumAndGradient => vec![u_m, add_decayed_weights(g / denominator, w, into_update)],
        };
        let learning_rate = stages::corrected_learning_rate(&adam, learning_rate, t);
        let measured = match x.treatment.adapted {
            true => std::iter::once(w).chain(directions.iter().copied()).collect(),
            false => Vec::new(),
        };
        let finish = move |norms: &[Tensor<'g>]| {
            let (scaled, ratio) = match norms {
                [] => (directions, w.graph().scalar(1.0, w.dtype())),
                [w_norm, of_directions @ ..] => {
                    let ratio = |&u_norm: &Tensor<'g>| trust_ratio(self.phi, self.ratio_clamp, *w_norm, u_norm);
                    let ratios: Vec<Tensor> = of_directions.iter().map(ratio).collect();
                    (directions.iter().zip(&ratios).map(|(&u, &ratio)| scale(ratio, u)).collect(), ratios[0])
                }
            };
            let u = match scaled[..] {
                [u_m, u_g] => self.beta1 * u_m + adam.share() * u_g,
                _ => scaled[0],
            };
            Updated { weight: apply(w, learning_rate, u), slots: vec![m, v], trust_ratio: ratio }
        };
        Directed { measured, finish: Box::new(finish) }
    }

    pub(super) fn describe(&self) -> Vec<(&'static str, String)> {
        let epsilon = match self.epsilon_place {
            EpsilonPlace::OutsideSqrt => "√v + ε",
            EpsilonPlace::InsideSqrt => "√(v + ε)",
        };
        let correction = match self.bias_correction {
            BiasCorrection::None => "none",
            BiasCorrection::InUpdate => "of both moments",
            BiasCorrection::LearningRateOnly => "of the learning rate only, outside the trust ratio",
        };
        let mode = match self.weight_decay_mode {
            WeightDecayMode::Decoupled => "added to the direction, inside the trust ratio",
            WeightDecayMode::L2 => "added to the gradient (L2)",
        };
        let direction = match self.direction {
            Direction::Momentum => "the momentum",
            Direction::MomentumAndGradient => "β1 · the momentum + (1 − β1) · the gradient, each with its trust ratio",
        };
        let adaptation = match &self.adaptation {
            Adaptation::All => "every tensor".to_string(),
            Adaptation::AsWeightDecay => "tensors not excluded from weight decay".to_string(),
            Adaptation::WhereDecayed => "tensors that decay".to_string(),
            Adaptation::Exclude(patterns) => format!("all but {}", patterns.join(", ")),
        };
        let phi = match self.phi {
            Phi::Identity => "‖w‖".to_string(),
            Phi::Clamp { min, max } => format!("‖w‖ clamped to {min}…{max}"),
        };
        let clamp = self.ratio_clamp.map_or(String::new(), |c| format!(", clamped to {}…{}", c.min, c.max));
        vec![
            ("betas", format!("{}, {}", self.beta1, self.beta2)),
            ("epsilon", format!("{:e}, as {epsilon}", self.epsilon)),
            ("bias correction", correction.to_string()),
            ("gradient averaging", if self.grad_averaging { "(1 − β1)·g" } else { "1·g" }.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, {mode}", self.weight_decay)),
            ("no weight decay", super::or_none(&self.exclude_from_weight_decay)),
            ("direction", direction.to_string()),
            ("trust ratio", format!("{phi} / ‖u‖{clamp}; 1 where a norm is 0")),
            ("trust ratio for", adaptation),
        ]
    }
}
