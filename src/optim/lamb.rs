//! LAMB and LANS, with a setting for every choice in which the published implementations differ.
//!
//! LAMB (arXiv 1904.00962, Algorithm 2), for each parameter tensor w with gradient g:
//!
//! ```text
//! m ← β1·m + (1 − β1)·g               m̂ = m / (1 − β1ᵗ)
//! v ← β2·v + (1 − β2)·g²              v̂ = v / (1 − β2ᵗ)
//! r = m̂ / (√v̂ + ε)
//! w ← w − η · φ(‖w‖) / ‖r + λ·w‖ · (r + λ·w)
//! ```
//! LANS (arXiv 2006.13484, Algorithm 2) adds up two directions, each with its own trust ratio:
//!
//! ```text
//! g ← g / (‖g‖ + ε) for each tensor, then m and v as above
//! u_m = m̂ / (√v̂ + ε) + λ·w;  u_g = g / (√v̂ + ε) + λ·w
//! w ← w − η · (β1 · φ(‖w‖)/‖u_m‖ · u_m + (1 − β1) · φ(‖w‖)/‖u_g‖ · u_g)
//! ```
//!
//! The layer of the paper is one parameter tensor. With ε → 0 and λ = 0 the trust ratio cancels the bias correction; the
//! correction then only matters to tensors that are not adapted. A constant factor on all gradients acts only through ε
//! and the clip.

use serde::{Deserialize, Serialize};

use super::pattern;
use super::rule::{self, OptimizerError, Param, PartialUpdate, TensorUpdate, Treatment, UpdateRule};
use super::stages::{
    self, Adam, AdamScaled, BiasCorrection, ClipFormula, EpsilonPlace, GradientClip, Phi, RatioClamp, WeightDecayMode,
    add_decayed_weights, apply, scale, scale_by_adam, trust_ratio,
};
use crate::graph::Tensor;

/// The settings of LAMB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LambConfig {
    /// β1, the decay of the first moment.
    pub beta1: f64,
    /// β2, the decay of the second moment.
    pub beta2: f64,
    /// ε, added to the denominator of the Adam direction.
    pub epsilon: f64,
    /// The place of ε: outside or inside the square root.
    pub epsilon_place: EpsilonPlace,
    /// The place of the bias correction.
    pub bias_correction: BiasCorrection,
    /// Whether the gradient enters m with 1 − β1 (true) or with 1.
    pub grad_averaging: bool,
    /// The clipping of the gradients, before the moments.
    pub gradient_clip: GradientClip,
    /// λ, the factor of weight decay.
    pub weight_decay: f64,
    /// The place where weight decay is added.
    pub weight_decay_mode: WeightDecayMode,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
    /// The direction of the update. The JSON omits the default, so that runs of builds without this setting can resume.
    #[serde(default, skip_serializing_if = "Direction::is_momentum")]
    pub direction: Direction,
    /// The tensors that have a trust ratio.
    pub adaptation: Adaptation,
    /// φ, applied to ‖w‖.
    pub phi: Phi,
    /// Bounds of the trust ratio; unbounded by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio_clamp: Option<RatioClamp>,
}

/// The direction of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// LAMB: the momentum.
    #[default]
    Momentum,
    /// LANS: the momentum with weight β1 plus the gradient with weight 1 − β1 (or 1, without `grad_averaging`), each with
    /// its own weight decay and trust ratio.
    MomentumAndGradient,
}

impl Direction {
    fn is_momentum(&self) -> bool {
        *self == Direction::Momentum
    }
}

/// The tensors that have a trust ratio; the ratio of the others is 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adaptation {
    /// Every tensor.
    All,
    /// The tensors not excluded from weight decay, whatever its value: the default of Google's code.
    AsWeightDecay,
    /// The tensors that decay; none if `weight_decay` is 0: apex without `use_nvlamb`.
    WhereDecayed,
    /// All tensors but those that these patterns match.
    Exclude(Vec<String>),
}

/// A published implementation that a run file can name; it sets every setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LambPreset {
    /// Algorithm 2 of the ICLR version: bias correction, no clipping; exclusions as in the authors' code.
    #[default]
    Paper,
    /// google-research/albert `lamb_optimizer.py` and `optimization.py`.
    Albert,
    /// NVIDIA/apex FusedLAMB as its BERT recipe sets it up.
    Apex,
    /// `apex` with `use_nvlamb`: every tensor is adapted.
    Nvlamb,
    /// DeepSpeed's FusedLamb. Its BERT recipe also sets `bias_correction = "none"` and bounds the ratio to 0.01…0.3.
    Deepspeed,
    /// optax `lamb`: no exclusions, no weight decay by default.
    Optax,
    /// mlcommons/training `lamb_optimizer_v1.py`.
    Mlperf,
    /// szhengac/apex, branch lans, `multi_tensor_lans.cu`: gradients normalised by tensor, every tensor adapted.
    Lans,
}

impl LambPreset {
    /// All presets.
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

    /// The names of [`LambPreset::ALL`].
    const NAMES: [&'static str; LambPreset::ALL.len()] = {
        let mut names = [""; LambPreset::ALL.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = LambPreset::ALL[i].name();
            i += 1;
        }
        names
    };

    /// Returns the name in run files.
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

    /// Returns the settings.
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
            exclude_from_weight_decay: rule::default_exclusions(),
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

impl Default for LambConfig {
    fn default() -> Self {
        LambPreset::default().config()
    }
}

impl LambConfig {
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
}

impl UpdateRule for LambConfig {
    fn name(&self) -> &'static str {
        "LAMB"
    }

    fn state_names(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn validate(&self) -> Result<(), OptimizerError> {
        rule::below_one("beta1", self.beta1)?;
        rule::below_one("beta2", self.beta2)?;
        rule::above_zero("epsilon", self.epsilon)?;
        rule::not_negative("weight_decay", self.weight_decay)?;
        rule::validate_clip(self.gradient_clip)?;
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

    fn gradient_clip(&self) -> GradientClip {
        self.gradient_clip
    }

    fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>, OptimizerError> {
        let undecayed = pattern::matched("exclude_from_weight_decay", &self.exclude_from_weight_decay, names)?;
        let unadapted = match &self.adaptation {
            Adaptation::All => vec![false; names.len()],
            Adaptation::AsWeightDecay => undecayed.clone(),
            Adaptation::WhereDecayed => undecayed.iter().map(|&u| u || self.weight_decay == 0.0).collect(),
            Adaptation::Exclude(patterns) => pattern::matched("adaptation.exclude", patterns, names)?,
        };
        let both = undecayed.into_iter().zip(unadapted);
        Ok(both.map(|(undecayed, unadapted)| Treatment { decayed: !undecayed, adapted: !unadapted }).collect())
    }

    fn update<'a, 'g: 'a>(
        &'a self,
        param: &Param<'g>,
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
    ) -> PartialUpdate<'a, 'g> {
        let (adam, w) = (self.adam(), param.weight);
        let lambda = if param.treatment.decayed { self.weight_decay } else { 0.0 };
        let (into_gradient, into_update) = self.weight_decay_mode.split(lambda);
        let g = add_decayed_weights(param.gradient, w, into_gradient);
        let AdamScaled { r, m, v, denominator } = scale_by_adam(&adam, g, param.state[0], param.state[1], t);
        let u_m = add_decayed_weights(r, w, into_update);
        let directions = match self.direction {
            Direction::Momentum => vec![u_m],
            Direction::MomentumAndGradient => vec![u_m, add_decayed_weights(g / denominator, w, into_update)],
        };
        let learning_rate = stages::corrected_learning_rate(&adam, learning_rate, t);
        let norms_of = match param.treatment.adapted {
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
            TensorUpdate { weight: apply(w, learning_rate, u), state: vec![m, v], trust_ratio: ratio }
        };
        PartialUpdate { norms_of, finish: Box::new(finish) }
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let epsilon = match self.epsilon_place {
            EpsilonPlace::OutsideSqrt => "√v + ε",
            EpsilonPlace::InsideSqrt => "√(v + ε)",
        };
        let correction = match self.bias_correction {
            BiasCorrection::None => "none",
            BiasCorrection::InUpdate => "both moments",
            BiasCorrection::LearningRateOnly => "learning rate only, outside the trust ratio",
        };
        let mode = match self.weight_decay_mode {
            WeightDecayMode::Decoupled => "decoupled, inside the trust ratio",
            WeightDecayMode::L2 => "added to the gradient (L2)",
        };
        let direction = match self.direction {
            Direction::Momentum => "momentum",
            Direction::MomentumAndGradient => "β1 · momentum + (1 − β1) · gradient, each with its own trust ratio",
        };
        let adaptation = match &self.adaptation {
            Adaptation::All => "all tensors".to_string(),
            Adaptation::AsWeightDecay => "tensors not excluded from weight decay".to_string(),
            Adaptation::WhereDecayed => "tensors with weight decay".to_string(),
            Adaptation::Exclude(patterns) => format!("all tensors except {}", patterns.join(", ")),
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
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
            ("direction", direction.to_string()),
            ("trust ratio", format!("{phi} / ‖u‖{clamp}; 1 where a norm is 0")),
            ("trust ratio for", adaptation),
        ]
    }

    fn preset_names() -> &'static [&'static str] {
        &LambPreset::NAMES
    }

    fn preset(name: &str) -> Option<Self> {
        LambPreset::ALL.into_iter().find(|preset| preset.name() == name).map(LambPreset::config)
    }
}
