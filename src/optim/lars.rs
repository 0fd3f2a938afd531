//! LARS, in the orders of operations and with the choices that are published under this name.
//!
//! ```text
//! classic (arXiv 1708.03888): the gradient is normalised, then enters the momentum
//!     d = g + λ·w
//!     ratio = c·‖w‖ / (‖g‖ + λ·‖w‖ + ε)      ratio_of = "gradient": arXiv 1708.03888, timm, apex, pytorch_optimizer
//!     ratio = c·‖w‖ / (‖d‖ + ε)              ratio_of = "decayed_gradient": optax, TensorFlow
//!     ratio ← min(ratio / η, 1)              trust_clip: LARC
//!     b ← μ·b + η·ratio·d;   w ← w − b       learning_rate_place = "inside_momentum": optax, TensorFlow
//!     b ← μ·b + ratio·d;     w ← w − η·b     learning_rate_place = "outside_momentum": timm, apex, pytorch_optimizer
//! paper   (arXiv 1904.00962, Algorithm 1): momentum first, then its norm
//!     b ← μ·b + (1 − μ)·(g + λ·w);           ratio = ‖w‖ / ‖b‖;          w ← w − η·ratio·b
//! popular (TensorFlow's `classic_momentum=False`): likewise, with c and without 1 − μ
//!     b ← μ·b + g + λ·w;                     ratio = c·‖w‖ / (‖b‖ + ε);  w ← w − η·ratio·b
//! ```
//! With `nesterov`, the new momentum b is replaced in the update by x + μ·b, where x is what entered it; in the popular order, also
//! in the ratio. The ratio is 1 where a norm is 0 and for tensors that are not adapted.

use serde::{Deserialize, Serialize};

use super::error::{self, OptimizerError};
use super::hyperparameters::{Hyperparameters, UpdateScalars};
use super::pattern;
use super::rule::{self, Param, PartialUpdate, Preset, TensorUpdate, Treatment, UpdateRule};
use super::stages::{GradientClip, TrustRatio, WeightDecay, WeightDecayMode, apply, momentum_buffer, scale};
use crate::graph::Tensor;
use crate::settings::is_default;

/// The settings of LARS. The JSON omits the defaults of newer settings, so that runs of builds without them can resume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LarsConfig {
    /// The order of momentum and normalisation.
    pub order: LarsOrder,
    /// The place of the learning rate in the classic order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub learning_rate_place: LearningRatePlace,
    /// μ, the decay of the momentum buffer.
    pub momentum: f64,
    /// τ: the gradient enters the momentum buffer with 1 − τ, but with 1 at the first update. The paper's order has none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dampening: f64,
    /// Whether the update looks ahead. The paper's order does not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nesterov: bool,
    /// c of the classic and the popular order; the paper's order has none.
    pub trust_coefficient: f64,
    /// ε of the classic and the popular order.
    pub epsilon: f64,
    /// The denominator of the ratio in the classic order.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ratio_of: RatioOf,
    /// Whether the ratio of the classic order is at most the learning rate, by which it is divided: LARC.
    #[serde(default, skip_serializing_if = "is_default")]
    pub trust_clip: bool,
    /// The clipping of the gradients, before everything else.
    pub gradient_clip: GradientClip,
    /// λ, the factor of weight decay.
    pub weight_decay: f64,
    /// Patterns of the tensors that do not decay.
    pub exclude_from_weight_decay: Vec<String>,
    /// Patterns of the tensors whose ratio is 1; by default those of `exclude_from_weight_decay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_from_adaptation: Option<Vec<String>>,
    /// Whether the ratio of tensors without weight decay is 1, and that of all tensors if λ is 0: timm.
    #[serde(default, skip_serializing_if = "is_default")]
    pub adaptation_requires_decay: bool,
}

/// The order of momentum and normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LarsOrder {
    /// The gradient is normalised, then enters the momentum.
    Classic,
    /// The momentum is normalised; the gradient enters it with 1 − μ.
    Paper,
    /// The momentum is normalised; the gradient enters it with 1.
    Popular,
}

/// The place of the learning rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningRatePlace {
    /// It multiplies what enters the momentum, so that the buffer keeps the rates of earlier steps.
    #[default]
    InsideMomentum,
    /// It multiplies the momentum.
    OutsideMomentum,
}

/// The denominator of the trust ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioOf {
    /// ‖g‖ + λ·‖w‖
    #[default]
    Gradient,
    /// ‖g + λ·w‖
    DecayedGradient,
}

impl Default for LarsConfig {
    fn default() -> Self {
        LarsConfig {
            order: LarsOrder::Classic,
            learning_rate_place: LearningRatePlace::InsideMomentum,
            momentum: 0.9,
            dampening: 0.0,
            nesterov: false,
            trust_coefficient: 0.001,
            epsilon: 0.0,
            ratio_of: RatioOf::Gradient,
            trust_clip: false,
            gradient_clip: GradientClip::None,
            weight_decay: 1e-4,
            exclude_from_weight_decay: rule::default_exclusions(),
            exclude_from_adaptation: None,
            adaptation_requires_decay: false,
        }
    }
}

/// The presets.
const PRESETS: &[Preset<LarsConfig>] = &[
    Preset {
        name: "paper",
        source: "arXiv 1904.00962, Algorithm 1",
        settings: || LarsConfig { order: LarsOrder::Paper, ..LarsConfig::default() },
    },
    Preset { name: "optax", source: "optax lars; tensorflow/models LARS", settings: optax },
    Preset {
        name: "tensorflow_popular",
        source: "tensorflow/models LARS with classic_momentum=False",
        settings: || LarsConfig { order: LarsOrder::Popular, ratio_of: RatioOf::Gradient, ..optax() },
    },
    Preset { name: "timm", source: "timm Lars in its train.py", settings: timm },
    Preset {
        name: "timm_larc",
        source: "timm Lars with trust_clip (LARC)",
        settings: || LarsConfig { trust_clip: true, ..timm() },
    },
    Preset {
        name: "apex_larc",
        source: "NVIDIA/apex LARC around torch.optim.SGD",
        settings: || LarsConfig {
            learning_rate_place: LearningRatePlace::OutsideMomentum,
            trust_coefficient: 0.02,
            epsilon: 1e-8,
            trust_clip: true,
            exclude_from_adaptation: Some(Vec::new()),
            ..LarsConfig::default()
        },
    },
    Preset {
        name: "pytorch_optimizer",
        source: "pytorch_optimizer LARS",
        settings: || LarsConfig {
            learning_rate_place: LearningRatePlace::OutsideMomentum,
            weight_decay: 0.0,
            ..LarsConfig::default()
        },
    },
];

/// No exclusions, and no weight decay by default.
fn optax() -> LarsConfig {
    LarsConfig {
        ratio_of: RatioOf::DecayedGradient,
        weight_decay: 0.0,
        exclude_from_weight_decay: Vec::new(),
        ..LarsConfig::default()
    }
}

fn timm() -> LarsConfig {
    LarsConfig {
        learning_rate_place: LearningRatePlace::OutsideMomentum,
        epsilon: 1e-8,
        weight_decay: 2e-5,
        adaptation_requires_decay: true,
        ..LarsConfig::default()
    }
}

impl LarsConfig {
    /// Returns the first setting that the order does not have, if it is set.
    fn setting_of_another_order(&self) -> Option<&'static str> {
        let classic = self.order == LarsOrder::Classic;
        let has_input_of_momentum = self.order != LarsOrder::Paper;
        let set = [
            ("learning_rate_place", classic || is_default(&self.learning_rate_place)),
            ("ratio_of", classic || is_default(&self.ratio_of)),
            ("trust_clip", classic || !self.trust_clip),
            ("dampening", has_input_of_momentum || self.dampening == 0.0),
            ("nesterov", has_input_of_momentum || !self.nesterov),
        ];
        set.into_iter().find(|(_, fits)| !fits).map(|(key, _)| key)
    }

    fn decays(&self, treatment: Treatment) -> bool {
        treatment.decayed && self.weight_decay != 0.0
    }

    /// Returns the momentum buffer that `entering` enters, and the direction of the update.
    fn momentum<'g>(
        &self,
        scalars: &UpdateScalars<'g>,
        buffer: Tensor<'g>,
        entering: Tensor<'g>,
    ) -> (Tensor<'g>, Tensor<'g>) {
        let buffer = momentum_buffer(self.dampening, scalars, buffer, entering);
        let ahead = || entering + scale(scalars.get("momentum"), buffer);
        (buffer, if self.nesterov { ahead() } else { buffer })
    }

    /// Returns c·‖w‖ / (`norm` + ε), and 1 where ‖w‖ or ‖u‖ is 0.
    fn ratio<'g>(
        &self,
        scalars: &UpdateScalars<'g>,
        w_norm: Tensor<'g>,
        u_norm: Tensor<'g>,
        norm: Tensor<'g>,
    ) -> Tensor<'g> {
        let both = w_norm.gt(w_norm.filled(0.0)).and(u_norm.gt(u_norm.filled(0.0)));
        let one = w_norm.filled(1.0);
        let denominator = if self.epsilon == 0.0 { norm } else { norm + scalars.get("epsilon") };
        both.select(scalars.get("trust_coefficient") * w_norm / both.select(denominator, one), one)
    }

    /// Builds the update of the classic order; `decayed` is the gradient with weight decay.
    fn classic<'a, 'g: 'a>(
        &'a self,
        param: &Param<'g>,
        scalars: &'a UpdateScalars<'g>,
        decayed: Tensor<'g>,
    ) -> PartialUpdate<'a, 'g> {
        let (w, buffer, treatment) = (param.weight, param.state[0], param.treatment);
        let normed = if self.ratio_of == RatioOf::Gradient { param.gradient } else { decayed };
        let finish = move |norms: &[Tensor<'g>]| {
            let ratio = match *norms {
                [w_norm, u_norm] => {
                    let of_decay = || u_norm + scalars.get("weight_decay") * w_norm;
                    let has_decay = self.ratio_of == RatioOf::Gradient && self.decays(treatment);
                    let ratio = self.ratio(scalars, w_norm, u_norm, if has_decay { of_decay() } else { u_norm });
                    let one = ratio.filled(1.0);
                    if self.trust_clip { (ratio / scalars.learning_rate).minimum(one) } else { ratio }
                }
                _ => w.graph().scalar(1.0, w.dtype()),
            };
            let (weight, buffer) = match self.learning_rate_place {
                LearningRatePlace::InsideMomentum => {
                    let entering = scale(scalars.learning_rate * ratio, decayed);
                    let (buffer, d) = self.momentum(scalars, buffer, entering);
                    (w - d, buffer)
                }
                LearningRatePlace::OutsideMomentum => {
                    let (buffer, d) = self.momentum(scalars, buffer, scale(ratio, decayed));
                    (apply(w, scalars.learning_rate, d), buffer)
                }
            };
            TensorUpdate { weight, state: vec![buffer], trust_ratio: ratio }
        };
        PartialUpdate {
            norms_of: if treatment.adapted { vec![w, normed] } else { Vec::new() },
            finish: Box::new(finish),
        }
    }

    /// Builds the update of the orders that normalise the momentum.
    fn momentum_first<'a, 'g: 'a>(
        &'a self,
        param: &Param<'g>,
        scalars: &'a UpdateScalars<'g>,
        decayed: Tensor<'g>,
    ) -> PartialUpdate<'a, 'g> {
        let (w, buffer) = (param.weight, param.state[0]);
        let (buffer, d) = match self.order {
            LarsOrder::Paper => {
                let entering = scale(scalars.get("one_minus_momentum"), decayed);
                let buffer = scale(scalars.get("momentum"), buffer) + entering;
                (buffer, buffer)
            }
            _ => self.momentum(scalars, buffer, decayed),
        };
        let finish = move |norms: &[Tensor<'g>]| {
            let ratio = match (norms, self.order) {
                (&[w_norm, d_norm], LarsOrder::Paper) => TrustRatio::PLAIN.of(scalars, w_norm, d_norm),
                (&[w_norm, d_norm], _) => self.ratio(scalars, w_norm, d_norm, d_norm),
                _ => w.graph().scalar(1.0, w.dtype()),
            };
            let weight = apply(w, scalars.learning_rate * ratio, d);
            TensorUpdate { weight, state: vec![buffer], trust_ratio: ratio }
        };
        let norms_of = if param.treatment.adapted { vec![w, d] } else { Vec::new() };
        PartialUpdate { norms_of, finish: Box::new(finish) }
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
        error::below_one("momentum", self.momentum)?;
        error::below_one("dampening", self.dampening)?;
        error::above_zero("trust_coefficient", self.trust_coefficient)?;
        error::not_negative("epsilon", self.epsilon)?;
        error::not_negative("weight_decay", self.weight_decay)?;
        if let Some(key) = self.setting_of_another_order() {
            return Err(OptimizerError::Value {
                key,
                requires: "an order that has it, as order = \"classic\"".to_string(),
                got: format!("order = {}", serde_json::json!(self.order)),
            });
        }
        if self.nesterov && self.dampening != 0.0 {
            return Err(OptimizerError::Value {
                key: "nesterov",
                requires: "dampening = 0".to_string(),
                got: self.dampening.to_string(),
            });
        }
        self.gradient_clip.validate()
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
        let treatment = |(undecayed, unadapted): (bool, bool)| {
            let without_decay = undecayed || self.weight_decay == 0.0;
            let adapted = !(unadapted || self.adaptation_requires_decay && without_decay);
            Treatment { decayed: !undecayed, adapted }
        };
        Ok(undecayed.into_iter().zip(unadapted).map(treatment).collect())
    }

    fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = Hyperparameters::default();
        numbers.add("momentum", self.momentum);
        if self.order == LarsOrder::Paper {
            numbers.add("one_minus_momentum", 1.0 - self.momentum);
        }
        if self.dampening != 0.0 {
            numbers.add("one_minus_dampening", 1.0 - self.dampening);
        }
        if self.order != LarsOrder::Paper {
            numbers.add("trust_coefficient", self.trust_coefficient);
            numbers.add_unless_zero("epsilon", self.epsilon);
        }
        numbers.add_unless_zero("weight_decay", self.weight_decay);
        numbers
    }

    fn update<'a, 'g: 'a>(&'a self, param: &Param<'g>, scalars: &'a UpdateScalars<'g>) -> PartialUpdate<'a, 'g> {
        let decay = WeightDecay::new(WeightDecayMode::L2, self.decays(param.treatment), scalars);
        let decayed = decay.of_gradient(param.gradient, param.weight);
        match self.order {
            LarsOrder::Classic => self.classic(param, scalars, decayed),
            LarsOrder::Paper | LarsOrder::Popular => self.momentum_first(param, scalars, decayed),
        }
    }

    fn normalised_step(&self, adapted: bool, _t: u64, w_norm: f64, _elements: usize) -> f64 {
        let length = match self.order {
            // The momentum adds up to 1 / (1 − μ) normalised gradients.
            LarsOrder::Classic => self.trust_coefficient * w_norm / (1.0 - self.momentum),
            LarsOrder::Paper => w_norm,
            LarsOrder::Popular => self.trust_coefficient * w_norm,
        };
        if adapted { length } else { 0.0 }
    }

    fn describe(&self) -> Vec<(&'static str, String)> {
        let c = self.trust_coefficient;
        let ratio = match (self.order, self.ratio_of) {
            (LarsOrder::Classic, RatioOf::Gradient) => format!("{c}·‖w‖ / (‖g‖ + λ‖w‖ + {:e})", self.epsilon),
            (LarsOrder::Classic, RatioOf::DecayedGradient) => format!("{c}·‖w‖ / (‖g + λw‖ + {:e})", self.epsilon),
            (LarsOrder::Paper, _) => "‖w‖ / ‖momentum‖".to_string(),
            (LarsOrder::Popular, _) => format!("{c}·‖w‖ / (‖momentum‖ + {:e})", self.epsilon),
        };
        let place = match (self.order, self.learning_rate_place) {
            (LarsOrder::Classic, LearningRatePlace::InsideMomentum) => "inside the momentum",
            _ => "outside the momentum",
        };
        let clip = if self.trust_clip { ", at most the learning rate (LARC)" } else { "" };
        let nesterov = if self.nesterov { ", Nesterov" } else { "" };
        let unadapted = self.exclude_from_adaptation.as_ref().unwrap_or(&self.exclude_from_weight_decay);
        let also = if self.adaptation_requires_decay { "; tensors without weight decay" } else { "" };
        vec![
            ("momentum", format!("{}{nesterov}", self.momentum)),
            ("dampening", self.dampening.to_string()),
            ("learning rate", place.to_string()),
            ("gradient clip", self.gradient_clip.describe()),
            ("weight decay", self.weight_decay.to_string()),
            ("excluded from weight decay", rule::or_none(&self.exclude_from_weight_decay)),
            ("trust ratio", format!("{ratio}{clip}; 1 where a norm is 0")),
            ("excluded from trust ratio", format!("{}{also}", rule::or_none(unadapted))),
        ]
    }

    fn presets() -> &'static [Preset<Self>] {
        PRESETS
    }
}
