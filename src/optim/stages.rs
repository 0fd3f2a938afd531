//! The stages that optimizers are composed of, as functions on tensors: [`GradientClip`] → moments or momentum →
//! [`WeightDecay`] → [`TrustRatio`] → [`apply`].
//!
//! One call processes one parameter tensor, which is LAMB's *layer*. If encoder layers were stacked into one tensor, the
//! norms would have to keep the layer axis. All arithmetic is in the weights' element type (f32).
//!
//! Only the norms depend on the [`Placement`] of the tensors: every other stage works element by element, so it is the
//! same for a replicated and a sharded tensor.

use serde::{Deserialize, Serialize};

use super::error::{self, OptimizerError};
use super::hyperparameters::{Hyperparameters, UpdateScalars};
use crate::graph::{Reduction, Tensor};

/// The placement of tensors on replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// Every replica holds every tensor, with the same values.
    #[default]
    Replicated,
    /// Every replica holds its own shard of every tensor; elements that pad the last shard are zero.
    Sharded,
}

impl Placement {
    /// Returns ‖x‖² of each tensor, scalars that are the same on all replicas. One all-reduce sums those of shards.
    pub fn squared_norms<'g>(self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let own: Vec<Tensor<'g>> = tensors.iter().map(|x| x.square().sum()).collect();
        match (self, own.first()) {
            (Placement::Replicated, _) | (_, None) => own,
            (Placement::Sharded, Some(first)) => {
                let stacked: Vec<Tensor<'g>> = own.iter().map(|x| x.reshape(&[1])).collect();
                let sums = first.graph().concatenate(&stacked, 0).all_reduce(Reduction::Sum);
                (0..own.len()).map(|i| sums.slice(&[i], &[i + 1], &[1]).reshape(&[])).collect()
            }
        }
    }
}

/// Returns the norm of the concatenation of several tensors, from the square of each tensor's norm.
pub fn global_norm<'g>(squared_norms: impl IntoIterator<Item = Tensor<'g>>) -> Tensor<'g> {
    squared_norms.into_iter().reduce(|a, b| a + b).expect("a model has parameters").sqrt()
}

/// Returns scalar · x.
pub fn scale<'g>(scalar: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
    scalar.broadcast_like(x, &[]) * x
}

/// Returns x + scalar.
pub fn add_scalar<'g>(x: Tensor<'g>, scalar: Tensor<'g>) -> Tensor<'g> {
    x + scalar.broadcast_like(x, &[])
}

/// The clipping of the gradients, the first stage of every optimizer.
///
/// Implementations clip before or after the all-reduce. Here the loss has one denominator for the global batch, so the
/// gradient of one replica is one term of a sum, so gradients are clipped after the all-reduce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GradientClip {
    /// No clipping.
    #[default]
    None,
    /// Clips the global norm n of all gradients to c = `max`.
    GlobalNorm {
        /// c, the bound of the norm.
        max: f64,
        /// The factor as a function of n and c.
        #[serde(default)]
        formula: ClipFormula,
    },
    /// Clips the norms of two groups, the tensors that decay and those that do not, each to c = `max`. Frameworks that
    /// clip by parameter group do so (DeepSpeed's FusedLamb).
    PerGroup {
        /// c, the bound of the norm.
        max: f64,
        /// The factor as a function of n and c.
        #[serde(default)]
        formula: ClipFormula,
    },
    /// Divides each tensor by its own norm, also where it is small: g / (‖g‖ + 10⁻⁶). LANS, arXiv 2006.13484.
    PerTensor,
}

/// The factor on the gradients as a function of their norm n and its bound c.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipFormula {
    /// g · c / max(n, c): `tf.clip_by_global_norm`.
    #[default]
    Tensorflow,
    /// g / max(1, n / c): apex FusedLAMB. Equal to `Tensorflow` up to rounding.
    Apex,
    /// g · min(1, c / (n + 10⁻⁶)): apex DistributedFusedLAMB.
    DistributedFusedLamb,
}

impl ClipFormula {
    /// Returns the factor on gradients of the norm `n`.
    fn factor<'g>(self, n: Tensor<'g>, c: Tensor<'g>) -> Tensor<'g> {
        match self {
            ClipFormula::Tensorflow => c / n.maximum(c),
            ClipFormula::Apex => 1.0 / (n / c).maximum(n.filled(1.0)),
            ClipFormula::DistributedFusedLamb => (c / (n + 1e-6)).minimum(n.filled(1.0)),
        }
    }

    const fn text(self) -> &'static str {
        match self {
            ClipFormula::Tensorflow => "g · c / max(n, c)",
            ClipFormula::Apex => "g / max(1, n / c)",
            ClipFormula::DistributedFusedLamb => "g · min(1, c / (n + 1e-6))",
        }
    }
}

impl GradientClip {
    /// Requires a bound above 0.
    pub(super) fn validate(self) -> Result<(), OptimizerError> {
        match self {
            GradientClip::GlobalNorm { max, .. } => error::above_zero("gradient_clip.global_norm.max", max),
            GradientClip::PerGroup { max, .. } => error::above_zero("gradient_clip.per_group.max", max),
            GradientClip::None | GradientClip::PerTensor => Ok(()),
        }
    }

    pub(super) fn hyperparameters(self) -> Hyperparameters {
        let mut numbers = Hyperparameters::default();
        match self {
            GradientClip::GlobalNorm { max, .. } | GradientClip::PerGroup { max, .. } => numbers.add("clip", max),
            GradientClip::None | GradientClip::PerTensor => {}
        }
        numbers
    }

    /// Returns the clipped gradients; `squares` are the squares of their norms, `decayed` is true for tensors that decay.
    pub(super) fn clip<'g>(
        self,
        scalars: &UpdateScalars<'g>,
        gradients: &[Tensor<'g>],
        squares: &[Tensor<'g>],
        decayed: &[bool],
    ) -> Vec<Tensor<'g>> {
        let all = gradients.iter().copied();
        let squares = squares.iter().copied();
        match self {
            GradientClip::None => gradients.to_vec(),
            GradientClip::PerTensor => all.zip(squares).map(|(g, s)| scale(1.0 / (s.sqrt() + 1e-6), g)).collect(),
            GradientClip::GlobalNorm { formula, .. } => {
                let factor = formula.factor(global_norm(squares), scalars.get("clip"));
                all.map(|g| scale(factor, g)).collect()
            }
            GradientClip::PerGroup { formula, .. } => {
                let factor = |group: bool| {
                    let members: Vec<Tensor> =
                        squares.clone().zip(decayed).filter(|(_, d)| **d == group).map(|(s, _)| s).collect();
                    (!members.is_empty()).then(|| formula.factor(global_norm(members), scalars.get("clip")))
                };
                let factors = [factor(false), factor(true)];
                let clipped = all.zip(decayed).map(|(g, &d)| factors[d as usize].map_or(g, |factor| scale(factor, g)));
                clipped.collect()
            }
        }
    }

    pub(super) fn describe(self) -> String {
        match self {
            GradientClip::None => "none".to_string(),
            GradientClip::PerTensor => "each tensor by its own norm: g / (‖g‖ + 1e-6)".to_string(),
            GradientClip::GlobalNorm { max, formula } => {
                format!("global norm n to at most c = {max}: {}", formula.text())
            }
            GradientClip::PerGroup { max, formula } => {
                format!(
                    "norm n of the tensors with weight decay, and of the others, to at most c = {max}: {}",
                    formula.text()
                )
            }
        }
    }
}

/// The place where weight decay is added. λ is the weight decay, η the learning rate of the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayMode {
    /// Adds λ·w to the direction, inside the norm of a trust ratio: u = r + λ·w.
    #[default]
    Decoupled,
    /// Adds λ·w to the gradient, before momentum and moments: g + λ·w (apex `adam_w_mode=False`, `torch.optim.SGD`).
    L2,
    /// w ← w − η·λ·w before the update, outside the trust ratio (`torch.optim.AdamW`, timm `decoupled_decay`).
    BeforeUpdate,
    /// w ← w − η·λ·w after the update, outside the trust ratio (the `AdamW` of transformers 4).
    AfterUpdate,
}

impl WeightDecayMode {
    pub(super) fn describe(self) -> &'static str {
        match self {
            WeightDecayMode::Decoupled => "decoupled, added to the direction",
            WeightDecayMode::L2 => "added to the gradient (L2)",
            WeightDecayMode::BeforeUpdate => "decoupled, before the update",
            WeightDecayMode::AfterUpdate => "decoupled, after the update",
        }
    }
}

/// The weight decay of one tensor. Each method changes its argument in one mode, and returns it in the others.
#[derive(Clone, Copy)]
pub struct WeightDecay<'g> {
    mode: WeightDecayMode,
    /// λ; none if the tensor does not decay.
    lambda: Option<Tensor<'g>>,
    learning_rate: Tensor<'g>,
}

impl<'g> WeightDecay<'g> {
    /// Returns the decay of a tensor: by the hyper-parameter `weight_decay` if `applies`.
    pub fn new(mode: WeightDecayMode, applies: bool, scalars: &UpdateScalars<'g>) -> Self {
        let lambda = applies.then(|| scalars.get("weight_decay"));
        WeightDecay { mode, lambda, learning_rate: scalars.learning_rate }
    }

    /// Returns the gradient: g + λ·w with L2.
    pub fn of_gradient(&self, g: Tensor<'g>, w: Tensor<'g>) -> Tensor<'g> {
        if self.mode == WeightDecayMode::L2 { self.add(g, w) } else { g }
    }

    /// Returns the direction: r + λ·w if decoupled.
    pub fn of_direction(&self, r: Tensor<'g>, w: Tensor<'g>) -> Tensor<'g> {
        if self.mode == WeightDecayMode::Decoupled { self.add(r, w) } else { r }
    }

    /// Returns the weight that the update starts from.
    pub fn before_update(&self, w: Tensor<'g>) -> Tensor<'g> {
        if self.mode == WeightDecayMode::BeforeUpdate { self.decayed(w) } else { w }
    }

    /// Returns the weight after the update `w`.
    pub fn after_update(&self, w: Tensor<'g>) -> Tensor<'g> {
        if self.mode == WeightDecayMode::AfterUpdate { self.decayed(w) } else { w }
    }

    fn add(&self, x: Tensor<'g>, w: Tensor<'g>) -> Tensor<'g> {
        self.lambda.map_or(x, |lambda| x + scale(lambda, w))
    }

    fn decayed(&self, w: Tensor<'g>) -> Tensor<'g> {
        self.lambda.map_or(w, |lambda| w - scale(self.learning_rate * lambda, w))
    }
}

/// Returns the momentum buffer b ← μ·b + (1 − τ)·x, with b = x at t = 1 whatever the `dampening` τ. Reads the hyper-parameters
/// `momentum` and, unless τ is 0, `one_minus_dampening`.
pub(super) fn momentum_buffer<'g>(
    dampening: f64,
    scalars: &UpdateScalars<'g>,
    b: Tensor<'g>,
    x: Tensor<'g>,
) -> Tensor<'g> {
    let entering = if dampening == 0.0 {
        x
    } else {
        let one = scalars.t.filled(1.0);
        scale(scalars.t.eq(one).select(one, scalars.get("one_minus_dampening")), x)
    };
    scale(scalars.get("momentum"), b) + entering
}

/// φ of the LAMB paper, a function of the weight's norm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phi {
    /// φ(z) = z: the authors' code.
    #[default]
    Identity,
    /// φ(z) = min(max(z, `min`), `max`): the paper's example, for which it gives no bounds.
    Clamp {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
}

/// Bounds of a trust ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatioClamp {
    /// Lower bound.
    pub min: f64,
    /// Upper bound.
    pub max: f64,
}

/// The trust ratio φ(‖w‖) / (‖u‖ + ε).
#[derive(Clone, Copy, Debug)]
pub struct TrustRatio {
    /// φ.
    pub phi: Phi,
    /// ε of the ratio.
    pub epsilon: f64,
    /// Bounds of the ratio.
    pub clamp: Option<RatioClamp>,
}

impl TrustRatio {
    /// φ = identity, ε = 0, no bounds.
    pub const PLAIN: TrustRatio = TrustRatio { phi: Phi::Identity, epsilon: 0.0, clamp: None };

    /// Checks the range of every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, with what it requires.
    pub(super) fn validate(self) -> Result<(), OptimizerError> {
        error::not_negative("ratio_epsilon", self.epsilon)?;
        let bounds = match self.phi {
            Phi::Clamp { min, max } => Some(("phi", min, max)),
            Phi::Identity => None,
        };
        let clamp = self.clamp.map(|c| ("ratio_clamp", c.min, c.max));
        match bounds.into_iter().chain(clamp).find(|(_, min, max)| !(0.0 <= *min && min <= max && *max > 0.0)) {
            None => Ok(()),
            Some((key, min, max)) => Err(OptimizerError::Value {
                key,
                requires: "0 ≤ min ≤ max, and max above 0".to_string(),
                got: format!("min {min}, max {max}"),
            }),
        }
    }

    pub(super) fn hyperparameters(self) -> Hyperparameters {
        let mut numbers = Hyperparameters::default();
        if let Phi::Clamp { min, max } = self.phi {
            numbers.extend([("phi_min", min), ("phi_max", max)]);
        }
        numbers.add_unless_zero("ratio_epsilon", self.epsilon);
        if let Some(RatioClamp { min, max }) = self.clamp {
            numbers.extend([("ratio_min", min), ("ratio_max", max)]);
        }
        numbers
    }

    /// Returns the ratio, a scalar. It is 1 where a norm is 0, so that a tensor of zeros can change.
    pub fn of<'g>(self, scalars: &UpdateScalars<'g>, w_norm: Tensor<'g>, u_norm: Tensor<'g>) -> Tensor<'g> {
        let clamp = |x: Tensor<'g>, [min, max]: [&str; 2]| x.maximum(scalars.get(min)).minimum(scalars.get(max));
        let phi_w = match self.phi {
            Phi::Identity => w_norm,
            Phi::Clamp { .. } => clamp(w_norm, ["phi_min", "phi_max"]),
        };
        let both = w_norm.gt(w_norm.filled(0.0)).and(u_norm.gt(u_norm.filled(0.0)));
        let one = w_norm.filled(1.0);
        let denominator = if self.epsilon == 0.0 { u_norm } else { u_norm + scalars.get("ratio_epsilon") };
        let ratio = phi_w / both.select(denominator, one);
        let ratio = if self.clamp.is_some() { clamp(ratio, ["ratio_min", "ratio_max"]) } else { ratio };
        both.select(ratio, one)
    }

    /// Returns the largest length of a direction that is scaled by the ratio, from that of the direction and that of the weight,
    /// which is above 0.
    pub(super) fn step(self, w_norm: f64, u_norm: f64) -> f64 {
        let phi_w = match self.phi {
            Phi::Identity => w_norm,
            Phi::Clamp { min, max } => w_norm.clamp(min, max),
        };
        self.clamp.map_or(phi_w, |clamp| phi_w.min(clamp.max * u_norm).max(clamp.min * u_norm))
    }

    pub(super) fn describe(self) -> String {
        let phi = match self.phi {
            Phi::Identity => "‖w‖".to_string(),
            Phi::Clamp { min, max } => format!("‖w‖ clamped to {min}…{max}"),
        };
        let denominator =
            if self.epsilon == 0.0 { "‖u‖".to_string() } else { format!("(‖u‖ + {:e})", self.epsilon) };
        let clamp = self.clamp.map_or(String::new(), |c| format!(", clamped to {}…{}", c.min, c.max));
        format!("{phi} / {denominator}{clamp}; 1 where a norm is 0")
    }
}

/// Returns w − η·u.
pub fn apply<'g>(w: Tensor<'g>, learning_rate: Tensor<'g>, u: Tensor<'g>) -> Tensor<'g> {
    w - scale(learning_rate, u)
}
