//! The stages that optimizers are composed of, as functions on tensors: [`GradientClip`] → [`scale_by_adam`] →
//! [`add_decayed_weights`] → [`trust_ratio`] → [`apply`].
//!
//! One call processes one parameter tensor, which is LAMB's *layer*. If encoder layers were stacked into one tensor, the
//! norms would have to keep the layer axis. All arithmetic is in the weights' element type (f32).
//!
//! Only the norms depend on the [`Placement`] of the tensors: every other stage works element by element, so it is the
//! same for a replicated and a sharded tensor.

use serde::{Deserialize, Serialize};

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
    fn factor(self, n: Tensor<'_>, c: f64) -> Tensor<'_> {
        match self {
            ClipFormula::Tensorflow => c / n.maximum(n.filled(c)),
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
    /// Returns the clipped gradients; `squares` are the squares of their norms, `decayed` is true for tensors that decay.
    pub(super) fn clip<'g>(
        self,
        gradients: &[Tensor<'g>],
        squares: &[Tensor<'g>],
        decayed: &[bool],
    ) -> Vec<Tensor<'g>> {
        let all = gradients.iter().copied();
        let squares = squares.iter().copied();
        match self {
            GradientClip::None => gradients.to_vec(),
            GradientClip::PerTensor => all.zip(squares).map(|(g, s)| scale(1.0 / (s.sqrt() + 1e-6), g)).collect(),
            GradientClip::GlobalNorm { max, formula } => {
                let factor = formula.factor(global_norm(squares), max);
                all.map(|g| scale(factor, g)).collect()
            }
            GradientClip::PerGroup { max, formula } => {
                let factor = |group: bool| {
                    let members: Vec<Tensor> =
                        squares.clone().zip(decayed).filter(|(_, d)| **d == group).map(|(s, _)| s).collect();
                    (!members.is_empty()).then(|| formula.factor(global_norm(members), max))
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

/// The place of Adam's bias correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasCorrection {
    /// No correction: m̂ = m, v̂ = v.
    None,
    /// Corrects the moments: m̂ = m / (1 − β1ᵗ), v̂ = v / (1 − β2ᵗ).
    InUpdate,
    /// Corrects the learning rate, outside the trust ratio: η·√(1 − β2ᵗ) / (1 − β1ᵗ). DeepSpeed's FusedLamb.
    LearningRateOnly,
}

/// The place of ε relative to the square root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonPlace {
    /// √v + ε
    OutsideSqrt,
    /// √(v + ε)
    InsideSqrt,
}

/// The place where weight decay is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightDecayMode {
    /// Adds λ·w to the direction, inside the norm of a trust ratio: u = r + λ·w.
    Decoupled,
    /// Adds λ·w to the gradient, before momentum and moments: g + λ·w (apex `adam_w_mode=False`, `torch.optim.SGD`).
    L2,
}

impl WeightDecayMode {
    /// Returns the share of λ that the gradient takes, and the share that the direction takes.
    pub(super) fn split(self, lambda: f64) -> (f64, f64) {
        match self {
            WeightDecayMode::L2 => (lambda, 0.0),
            WeightDecayMode::Decoupled => (0.0, lambda),
        }
    }
}

/// The constants of Adam.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    /// β1, the decay of m.
    pub beta1: f64,
    /// β2, the decay of v.
    pub beta2: f64,
    /// ε, the term that keeps the denominator above 0.
    pub epsilon: f64,
    /// The place of ε.
    pub epsilon_place: EpsilonPlace,
    /// The place of the bias correction.
    pub bias_correction: BiasCorrection,
    /// True: the new gradient enters m with 1 − β1. False: with 1 (apex `grad_averaging=False`).
    pub grad_averaging: bool,
}

impl Adam {
    /// Returns β3, the factor of the new gradient in m.
    pub fn share(&self) -> f64 {
        if self.grad_averaging { 1.0 - self.beta1 } else { 1.0 }
    }
}

/// The results of [`scale_by_adam`].
#[derive(Clone, Copy, Debug)]
pub struct AdamScaled<'g> {
    /// The direction m̂ / (√v̂ + ε).
    pub r: Tensor<'g>,
    /// The new first moment.
    pub m: Tensor<'g>,
    /// The new second moment.
    pub v: Tensor<'g>,
    /// √v̂ + ε, to scale directions other than m̂.
    pub denominator: Tensor<'g>,
}

/// Returns 1 − βᵗ for a scalar t ≥ 1. Computed as written, it would lose four digits of f32 at β = 0.999, where βᵗ is
/// close to 1; so with y = t·ln β it is computed as 1 − eʸ = −2·tanh(y/2) / (1 − tanh(y/2)).
fn one_minus_power<'g>(beta: f64, t: Tensor<'g>) -> Tensor<'g> {
    let half = (t * (0.5 * beta.ln())).tanh();
    -2.0 * half / (1.0 - half)
}

/// Updates Adam's moments and returns Adam's direction r.
///
/// ```text
/// m ← β1·m + (1 − β1)·g          m̂ = m / (1 − β1ᵗ)
/// v ← β2·v + (1 − β2)·g²         v̂ = v / (1 − β2ᵗ)
/// r = m̂ / (√v̂ + ε)
/// ```
/// `t` is the number of the update, from 1, a scalar of g's type.
pub fn scale_by_adam<'g>(adam: &Adam, g: Tensor<'g>, m: Tensor<'g>, v: Tensor<'g>, t: Tensor<'g>) -> AdamScaled<'g> {
    let m = adam.beta1 * m + adam.share() * g;
    let v = adam.beta2 * v + (1.0 - adam.beta2) * g.square();
    let (m_hat, v_hat) = match adam.bias_correction {
        BiasCorrection::InUpdate => {
            (scale(1.0 / one_minus_power(adam.beta1, t), m), scale(1.0 / one_minus_power(adam.beta2, t), v))
        }
        BiasCorrection::None | BiasCorrection::LearningRateOnly => (m, v),
    };
    let denominator = match adam.epsilon_place {
        EpsilonPlace::OutsideSqrt => v_hat.sqrt() + adam.epsilon,
        EpsilonPlace::InsideSqrt => (v_hat + adam.epsilon).sqrt(),
    };
    AdamScaled { r: m_hat / denominator, m, v, denominator }
}

/// Returns the learning rate, corrected if the place of the correction is [`BiasCorrection::LearningRateOnly`].
pub fn corrected_learning_rate<'g>(adam: &Adam, rate: Tensor<'g>, t: Tensor<'g>) -> Tensor<'g> {
    match adam.bias_correction {
        BiasCorrection::LearningRateOnly => {
            rate * one_minus_power(adam.beta2, t).sqrt() / one_minus_power(adam.beta1, t)
        }
        BiasCorrection::None | BiasCorrection::InUpdate => rate,
    }
}

/// Returns r + λ·w.
pub fn add_decayed_weights<'g>(r: Tensor<'g>, w: Tensor<'g>, lambda: f64) -> Tensor<'g> {
    if lambda == 0.0 { r } else { r + lambda * w }
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

/// Returns the trust ratio φ(‖w‖) / ‖u‖, a scalar. It is 1 where a norm is 0, so that a tensor of zeros can change.
pub fn trust_ratio<'g>(phi: Phi, clamp: Option<RatioClamp>, w_norm: Tensor<'g>, u_norm: Tensor<'g>) -> Tensor<'g> {
    let phi_w = match phi {
        Phi::Identity => w_norm,
        Phi::Clamp { min, max } => w_norm.maximum(w_norm.filled(min)).minimum(w_norm.filled(max)),
    };
    let both = w_norm.gt(w_norm.filled(0.0)).and(u_norm.gt(u_norm.filled(0.0)));
    let one = w_norm.filled(1.0);
    let ratio = phi_w / both.select(u_norm, one);
    let ratio = match clamp {
        None => ratio,
        Some(RatioClamp { min, max }) => ratio.maximum(ratio.filled(min)).minimum(ratio.filled(max)),
    };
    both.select(ratio, one)
}

/// Returns w − η·u.
pub fn apply<'g>(w: Tensor<'g>, learning_rate: Tensor<'g>, u: Tensor<'g>) -> Tensor<'g> {
    w - scale(learning_rate, u)
}
