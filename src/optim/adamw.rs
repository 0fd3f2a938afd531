//! AdamW: Adam with decoupled weight decay. LAMB with a trust ratio of 1 is the same update.
//!
//! ```text
//! m ← β1·m + (1 − β1)·g               m̂ = m / (1 − β1ᵗ)
//! v ← β2·v + (1 − β2)·g²              v̂ = v / (1 − β2ᵗ)
//! w ← w − η · (m̂ / (√v̂ + ε) + λ·w)
//! ```
//! Source: arXiv 1711.05101, Algorithm 2. Implementations differ in the place of the decay and of the bias correction, ε, the
//! exclusions and the clip; the presets are some of them.

use serde::{Deserialize, Serialize};

use super::adam::{Adam, AdamScaled, BiasCorrection, EpsilonPlace, Nesterov};
use super::error::{self, OptimizerError};
use super::hyperparameters::{Hyperparameters, UpdateScalars};
use super::rule::{self, Param, PartialUpdate, Preset, TensorUpdate, Treatment, UpdateRule};
use super::stages::{ClipFormula, GradientClip, WeightDecay, WeightDecayMode, apply};
use crate::settings::is_default;

/// The settings of AdamW. The JSON omits the defaults of newer settings, so that runs of builds without them can resume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// β1, the decay of the first moment.
    pub beta1: f64,
    /// β2, the decay of the second moment.
    pub beta2: f64,
    /// ε, added to the denominator.
    pub epsilon: f64,
    /// The place of ε: outside or inside the square root.
    #[serde(default, skip_serializing_if = "is_default")]
    pub epsilon_place: EpsilonPlace,
    /// The place of the bias correction.
    pub bias_correction: BiasCorrection,
    /// The moments that look ahead: NAdamW.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nesterov: Nesterov,
    /// The clipping of the gradients, before the moments.
    pub gradient_clip: GradientClip,
    /// λ, the factor of weight decay.
    pub weight_decay: f64,
    /// The place where weight decay is added; with `l2` the update is Adam.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_decay_mode: WeightDecayMode,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            epsilon_place: EpsilonPlace::OutsideSqrt,
            bias_correction: BiasCorrection::InUpdate,
            nesterov: Nesterov::None,
            gradient_clip: GradientClip::None,
            weight_decay: 0.01,
            weight_decay_mode: WeightDecayMode::Decoupled,
            exclude_from_weight_decay: rule::default_exclusions(),
        }
    }
}

/// The presets.
const PRESETS: &[Preset<AdamWConfig>] = &[
    Preset {
        name: "bert",
        source: "google-research/bert, optimization.py",
        settings: || AdamWConfig {
            bias_correction: BiasCorrection::None,
            gradient_clip: GradientClip::GlobalNorm { max: 1.0, formula: ClipFormula::Tensorflow },
            ..AdamWConfig::default()
        },
    },
    Preset { name: "torch", source: "torch.optim.AdamW", settings: torch },
    Preset {
        name: "optax",
        source: "optax adamw",
        settings: || AdamWConfig { weight_decay: 1e-4, weight_decay_mode: WeightDecayMode::Decoupled, ..torch() },
    },
    Preset {
        name: "hugging_face",
        source: "Trainer of transformers: torch.optim.AdamW, clipped, no decay",
        settings: || AdamWConfig {
            gradient_clip: GradientClip::GlobalNorm { max: 1.0, formula: ClipFormula::DistributedFusedLamb },
            weight_decay: 0.0,
            exclude_from_weight_decay: rule::default_exclusions(),
            ..torch()
        },
    },
    Preset {
        name: "hugging_face_v4",
        source: "AdamW of transformers 4, removed in 5",
        settings: || AdamWConfig {
            bias_correction: BiasCorrection::LearningRateOnly,
            weight_decay: 0.0,
            weight_decay_mode: WeightDecayMode::AfterUpdate,
            exclude_from_weight_decay: Vec::new(),
            ..AdamWConfig::default()
        },
    },
];

fn torch() -> AdamWConfig {
    AdamWConfig {
        epsilon: 1e-8,
        weight_decay_mode: WeightDecayMode::BeforeUpdate,
        exclude_from_weight_decay: Vec::new(),
        ..AdamWConfig::default()
    }
}

impl AdamWConfig {
    fn adam(&self) -> Adam {
        Adam {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.epsilon,
            epsilon_place: self.epsilon_place,
            bias_correction: self.bias_correction,
            nesterov: self.nesterov,
            grad_averaging: true,
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
        self.adam().validate()?;
        error::not_negative("weight_decay", self.weight_decay)?;
        self.gradient_clip.validate()
    }

    fn gradient_clip(&self) -> GradientClip {
        self.gradient_clip
    }

    fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>, OptimizerError> {
        Treatment::without_trust_ratio(&self.exclude_from_weight_decay, names)
    }

    fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = self.adam().hyperparameters();
        numbers.add_unless_zero("weight_decay", self.weight_decay);
        numbers
    }

    fn update<'a, 'g: 'a>(&'a self, param: &Param<'g>, scalars: &'a UpdateScalars<'g>) -> PartialUpdate<'a, 'g> {
        let adam = self.adam();
        let decays = param.treatment.decayed && self.weight_decay != 0.0;
        let decay = WeightDecay::new(self.weight_decay_mode, decays, scalars);
        let w = decay.before_update(param.weight);
        let g = decay.of_gradient(param.gradient, w);
        let AdamScaled { r, m, v, .. } = adam.scale(scalars, g, param.state[0], param.state[1]);
        let weight = decay.after_update(apply(w, adam.learning_rate(scalars), decay.of_direction(r, w)));
        let update = TensorUpdate { weight, state: vec![m, v], trust_ratio: w.graph().scalar(1.0, w.dtype()) };
        PartialUpdate { norms_of: Vec::new(), finish: Box::new(|_| update) }
    }

    fn normalised_step(&self, _adapted: bool, t: u64, _w_norm: f64, elements: usize) -> f64 {
        self.adam().learning_rate_factor(t) * (elements as f64).sqrt()
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = self.adam().describe();
        lines.retain(|(name, _)| *name != "gradient averaging");
        lines.extend([
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", format!("{}, {}", self.weight_decay, self.weight_decay_mode.describe())),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
        ]);
        lines
    }

    fn presets() -> &'static [Preset<Self>] {
        PRESETS
    }
}
