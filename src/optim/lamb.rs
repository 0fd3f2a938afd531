//! LAMB, LANS and N-LAMB, with a setting for every choice in which the published implementations differ.
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
//! N-LAMB and NN-LAMB (appendix of arXiv 1904.00962) are LAMB with the moments of Nadam, see [`Nesterov`].
//!
//! The layer of the paper is one parameter tensor. With ε → 0 and λ = 0 the trust ratio cancels the bias correction; the
//! correction then only matters to tensors that are not adapted. A constant factor on all gradients acts only through ε
//! and the clip.

use serde::{Deserialize, Serialize};

use super::adam::{Adam, AdamScaled, BiasCorrection, EpsilonPlace, Nesterov};
use super::error::{self, OptimizerError};
use super::hyperparameters::{Hyperparameters, UpdateScalars};
use super::pattern;
use super::rule::{self, Param, PartialUpdate, Preset, TensorUpdate, Treatment, UpdateRule};
use super::stages::{
    ClipFormula, GradientClip, Phi, RatioClamp, TrustRatio, WeightDecay, WeightDecayMode, apply, scale,
};
use crate::graph::Tensor;
use crate::settings::is_default;

/// The settings of LAMB. The JSON omits the defaults of newer settings, so that runs of builds without them can resume.
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
    /// The moments that look ahead: N-LAMB and NN-LAMB.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nesterov: Nesterov,
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
    /// The direction of the update.
    #[serde(default, skip_serializing_if = "is_default")]
    pub direction: Direction,
    /// The tensors that have a trust ratio.
    pub adaptation: Adaptation,
    /// φ, applied to ‖w‖.
    pub phi: Phi,
    /// ε of the trust ratio: φ(‖w‖) / (‖u‖ + ε).
    #[serde(default, skip_serializing_if = "is_default")]
    pub ratio_epsilon: f64,
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

impl Default for LambConfig {
    /// Returns the preset `paper`.
    fn default() -> Self {
        paper()
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
            nesterov: self.nesterov,
            grad_averaging: self.grad_averaging,
        }
    }

    fn trust_ratio(&self) -> TrustRatio {
        TrustRatio { phi: self.phi, epsilon: self.ratio_epsilon, clamp: self.ratio_clamp }
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
        self.adam().validate()?;
        error::not_negative("weight_decay", self.weight_decay)?;
        if self.nesterov != Nesterov::None && self.direction != Direction::Momentum {
            return Err(OptimizerError::Value {
                key: "nesterov",
                requires: "direction = \"momentum\", or nesterov = \"none\"".to_string(),
                got: "the direction of LANS".to_string(),
            });
        }
        self.gradient_clip.validate()?;
        self.trust_ratio().validate()
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

    fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = self.adam().hyperparameters();
        numbers.add_unless_zero("weight_decay", self.weight_decay);
        numbers.extend(self.trust_ratio().hyperparameters());
        numbers
    }

    fn update<'a, 'g: 'a>(&'a self, param: &Param<'g>, scalars: &'a UpdateScalars<'g>) -> PartialUpdate<'a, 'g> {
        let adam = self.adam();
        let decays = param.treatment.decayed && self.weight_decay != 0.0;
        let decay = WeightDecay::new(self.weight_decay_mode, decays, scalars);
        let w = decay.before_update(param.weight);
        let g = decay.of_gradient(param.gradient, w);
        let AdamScaled { r, m, v, denominator } = adam.scale(scalars, g, param.state[0], param.state[1]);
        let u_m = decay.of_direction(r, w);
        let directions = match self.direction {
            Direction::Momentum => vec![u_m],
            Direction::MomentumAndGradient => vec![u_m, decay.of_direction(g / denominator, w)],
        };
        let learning_rate = adam.learning_rate(scalars);
        let norms_of = match param.treatment.adapted {
            true => std::iter::once(w).chain(directions.iter().copied()).collect(),
            false => Vec::new(),
        };
        let finish = move |norms: &[Tensor<'g>]| {
            let (scaled, ratio) = match norms {
                [] => (directions, w.graph().scalar(1.0, w.dtype())),
                [w_norm, of_directions @ ..] => {
                    let ratio = |&u_norm: &Tensor<'g>| self.trust_ratio().of(scalars, *w_norm, u_norm);
                    let ratios: Vec<Tensor> = of_directions.iter().map(ratio).collect();
                    (directions.iter().zip(&ratios).map(|(&u, &ratio)| scale(ratio, u)).collect(), ratios[0])
                }
            };
            let u = match scaled[..] {
                [u_m, u_g] => scale(scalars.get("beta1"), u_m) + scale(scalars.get("beta3"), u_g),
                _ => scaled[0],
            };
            let weight = decay.after_update(apply(w, learning_rate, u));
            TensorUpdate { weight, state: vec![m, v], trust_ratio: ratio }
        };
        PartialUpdate { norms_of, finish: Box::new(finish) }
    }

    fn normalised_step(&self, adapted: bool, t: u64, w_norm: f64, elements: usize) -> f64 {
        let of_adam = (elements as f64).sqrt();
        let length = if adapted && w_norm > 0.0 { self.trust_ratio().step(w_norm, of_adam) } else { of_adam };
        self.adam().learning_rate_factor(t) * length
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let mode = match self.weight_decay_mode {
            WeightDecayMode::Decoupled => "decoupled, inside the trust ratio",
            other => other.describe(),
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
        let mut lines = self.adam().describe();
        lines.extend([
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, {mode}", self.weight_decay)),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
            ("direction", direction.to_string()),
            ("trust ratio", self.trust_ratio().describe()),
            ("trust ratio for", adaptation),
        ]);
        lines
    }

    fn presets() -> &'static [Preset<Self>] {
        PRESETS
    }
}

/// The presets, the paper's first.
const PRESETS: &[Preset<LambConfig>] = &[
    Preset { name: "paper", source: "arXiv 1904.00962, Algorithm 2, and the authors' exclusions", settings: paper },
    Preset {
        name: "albert",
        source: "google-research/albert, lamb_optimizer.py and optimization.py",
        settings: || LambConfig {
            bias_correction: BiasCorrection::None,
            gradient_clip: clip(ClipFormula::Tensorflow),
            ..paper()
        },
    },
    Preset { name: "apex", source: "NVIDIA/apex FusedLAMB in its BERT recipe; timm Lamb", settings: apex },
    Preset {
        name: "nvlamb",
        source: "NVIDIA/apex FusedLAMB with use_nvlamb",
        settings: || LambConfig { adaptation: Adaptation::All, ..apex() },
    },
    Preset { name: "deepspeed", source: "DeepSpeed FusedLamb", settings: deepspeed },
    Preset { name: "optax", source: "optax lamb; tensorflow/addons LAMB", settings: optax },
    Preset {
        name: "mlperf",
        source: "mlcommons/training, lamb_optimizer_v1.py",
        settings: || LambConfig { gradient_clip: clip(ClipFormula::Tensorflow), ..paper() },
    },
    Preset {
        name: "lans",
        source: "arXiv 2006.13484; szhengac/apex, branch lans, multi_tensor_lans.cu",
        settings: || LambConfig {
            gradient_clip: GradientClip::PerTensor,
            direction: Direction::MomentumAndGradient,
            adaptation: Adaptation::All,
            ..paper()
        },
    },
    Preset {
        name: "n_lamb",
        source: "N-LAMB of arXiv 1904.00962, appendix",
        settings: || LambConfig { nesterov: Nesterov::Nadam, ..paper() },
    },
    Preset {
        name: "nn_lamb",
        source: "NN-LAMB of arXiv 1904.00962, appendix",
        settings: || LambConfig { nesterov: Nesterov::BothMoments, ..paper() },
    },
    Preset {
        name: "timm_lambc",
        source: "timm Lamb with trust_clip (LAMBC)",
        settings: || LambConfig { ratio_clamp: Some(RatioClamp { min: 0.0, max: 1.0 }), ..apex() },
    },
    Preset {
        name: "timm_lambw",
        source: "timm Lamb with decoupled_decay",
        settings: || LambConfig { weight_decay_mode: WeightDecayMode::BeforeUpdate, ..apex() },
    },
    Preset {
        name: "pytorch_optimizer",
        source: "pytorch_optimizer Lamb",
        settings: || LambConfig {
            bias_correction: BiasCorrection::FirstMomentOnly,
            weight_decay_mode: WeightDecayMode::BeforeUpdate,
            phi: Phi::Clamp { min: 0.0, max: 10.0 },
            ratio_epsilon: 1e-6,
            ..optax()
        },
    },
    Preset {
        name: "cybertronai",
        source: "cybertronai/pytorch-lamb",
        settings: || LambConfig {
            bias_correction: BiasCorrection::None,
            phi: Phi::Clamp { min: 0.0, max: 10.0 },
            ..optax()
        },
    },
    Preset {
        name: "deepspeed_bert",
        source: "DeepSpeed FusedLamb in its BERT recipe",
        settings: || LambConfig {
            bias_correction: BiasCorrection::None,
            ratio_clamp: Some(RatioClamp { min: 0.01, max: 0.3 }),
            ..deepspeed()
        },
    },
];

/// Algorithm 2 of the ICLR version: bias correction, no clipping.
fn paper() -> LambConfig {
    LambConfig {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-6,
        epsilon_place: EpsilonPlace::OutsideSqrt,
        bias_correction: BiasCorrection::InUpdate,
        nesterov: Nesterov::None,
        grad_averaging: true,
        gradient_clip: GradientClip::None,
        weight_decay: 0.01,
        weight_decay_mode: WeightDecayMode::Decoupled,
        exclude_from_weight_decay: rule::default_exclusions(),
        direction: Direction::Momentum,
        adaptation: Adaptation::AsWeightDecay,
        phi: Phi::Identity,
        ratio_epsilon: 0.0,
        ratio_clamp: None,
    }
}

fn apex() -> LambConfig {
    LambConfig { gradient_clip: clip(ClipFormula::Apex), adaptation: Adaptation::WhereDecayed, ..paper() }
}

fn deepspeed() -> LambConfig {
    LambConfig {
        epsilon: 1e-8,
        bias_correction: BiasCorrection::LearningRateOnly,
        adaptation: Adaptation::All,
        ratio_clamp: Some(RatioClamp { min: 0.01, max: 10.0 }),
        ..paper()
    }
}

/// No exclusions, and no weight decay by default.
fn optax() -> LambConfig {
    LambConfig { weight_decay: 0.0, exclude_from_weight_decay: Vec::new(), adaptation: Adaptation::All, ..paper() }
}

fn clip(formula: ClipFormula) -> GradientClip {
    GradientClip::GlobalNorm { max: 1.0, formula }
}
