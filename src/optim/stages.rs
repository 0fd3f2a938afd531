//! The stages that optimizers are chains of, as functions on tensors: clip → [`scale_by_adam`] →
//! [`add_decayed_weights`] → [`scale_by_trust_ratio`] → [`apply`].
//!
//! One call treats one parameter tensor: that is LAMB's *layer*. If encoder layers were ever stacked into one tensor, the
//! norms here would have to keep the layer axis. All arithmetic is in the weights' element type (f32).
//!
//! Every stage but the norms works element by element, so it does not matter to them whether a replica holds a tensor
//! whole or a part of it ([`Held`]).

use serde::{Deserialize, Serialize};

use crate::graph::{Reduction, Tensor};

/// How replicas hold the tensors that an optimizer works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    /// Every replica holds all of every tensor, the same values everywhere.
    #[default]
    Whole,
    /// Every replica holds its own part of every tensor, in elements that no tensor has (padding) zero.
    InParts,
}

impl Held {
    /// ‖x‖² of each tensor, scalars that are the same on all replicas. Those of parts are added up in one exchange.
    pub fn squared_norms<'g>(self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let own: Vec<Tensor<'g>> = tensors.iter().map(|x| x.square().sum()).collect();
        match (self, own.first()) {
            (Held::Whole, _) | (_, None) => own,
            (Held::InParts, Some(first)) => {
                let stacked: Vec<Tensor<'g>> = own.iter().map(|x| x.reshape(&[1])).collect();
                let sums = first.graph().concatenate(&stacked, 0).all_reduce(Reduction::Sum);
                (0..own.len()).map(|i| sums.slice(&[i], &[i + 1], &[1]).reshape(&[])).collect()
            }
        }
    }
}

/// The norm of several tensors together, as if they were one, from the square of each one's norm.
pub fn joint_norm<'g>(squared_norms: impl IntoIterator<Item = Tensor<'g>>) -> Tensor<'g> {
    squared_norms.into_iter().reduce(|a, b| a + b).expect("a model has parameters").sqrt()
}

/// scalar · x
pub fn scale<'g>(scalar: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
    scalar.broadcast_like(x, &[]) * x
}

/// What is done to the gradients before anything else sees them.
///
/// Implementations differ in whether they clip before or after the all-reduce. Here the loss has one denominator for the
/// global batch, so a replica's own gradient is a part of the sum and has no norm of interest: clipping is after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GradientClip {
    #[default]
    None,
    /// By the norm n of all gradients together, to at most c = `max`.
    GlobalNorm {
        max: f64,
        #[serde(default)]
        formula: ClipFormula,
    },
    /// By the norms of two groups, those tensors that decay and those that do not, each to at most `max`: what a
    /// framework does that clips by parameter groups (DeepSpeed's FusedLamb).
    PerGroup {
        max: f64,
        #[serde(default)]
        formula: ClipFormula,
    },
    /// Each tensor by its own norm, whatever it is: g / (‖g‖ + 10⁻⁶). LANS, arXiv 2006.13484.
    PerTensor,
}

/// How the global norm n and its bound c become a factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipFormula {
    /// g · c / max(n, c): `tf.clip_by_global_norm`.
    #[default]
    Tensorflow,
    /// g / max(1, n / c): apex FusedLAMB. The same number but for rounding.
    Apex,
    /// g · min(1, c / (n + 10⁻⁶)): apex DistributedFusedLAMB.
    DistributedFusedLamb,
}

impl ClipFormula {
    /// What gradients of the norm `n` are multiplied by.
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
    /// The clipped gradients; `squares` are the squares of their norms, `decayed` says which tensors decay.
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
                let factor = formula.factor(joint_norm(squares), max);
                all.map(|g| scale(factor, g)).collect()
            }
            GradientClip::PerGroup { max, formula } => {
                let factor = |group: bool| {
                    let members: Vec<Tensor> =
                        squares.clone().zip(decayed).filter(|(_, d)| **d == group).map(|(s, _)| s).collect();
                    (!members.is_empty()).then(|| formula.factor(joint_norm(members), max))
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
            GradientClip::PerTensor => "each tensor to norm 1: g / (‖g‖ + 1e-6)".to_string(),
            GradientClip::GlobalNorm { max, formula } => {
                format!("global norm n to at most c = {max}: {}", formula.text())
            }
            GradientClip::PerGroup { max, formula } => {
                format!("norm n of the tensors that decay, and of the others, to at most c = {max}: {}", formula.text())
            }
        }
    }
}

/// Where Adam's bias correction is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasCorrection {
    /// Nowhere: the moments are used as they are.
    None,
    /// To the moments: m̂ = m / (1 − β1ᵗ), v̂ = v / (1 − β2ᵗ).
    InUpdate,
    /// To the learning rate, outside of the trust ratio: η·√(1 − β2ᵗ) / (1 − β1ᵗ). DeepSpeed's FusedLamb.
    LearningRateOnly,
}

/// Which side of the root ε is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonPlace {
    /// √v + ε
    OutsideSqrt,
    /// √(v + ε)
    InsideSqrt,
}

/// Adam's constants.
#[derive(Clone, Copy, Debug)]
pub struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub epsilon_place: EpsilonPlace,
    pub bias_correction: BiasCorrection,
    /// True: the new gradient enters m with 1 − β1. False: with 1 (apex `grad_averaging=False`).
    pub grad_averaging: bool,
}

impl Adam {
    /// β3: the weight with which the new gradient enters m.
    pub fn share(&self) -> f64 {
        if self.grad_averaging { 1.0 - self.beta1 } else { 1.0 }
    }
}

/// What [`scale_by_adam`] makes.
#[derive(Clone, Copy, Debug)]
pub struct AdamScaled<'g> {
    /// The direction m̂ / (√v̂ + ε).
    pub r: Tensor<'g>,
    /// The new moments.
    pub m: Tensor<'g>,
    pub v: Tensor<'g>,
    /// √v̂ + ε, by which other directions than m̂ can be divided.
    pub denominator: Tensor<'g>,
}

/// 1 − βᵗ for a scalar t ≥ 1, accurate where βᵗ is close to 1 (with β = 0.999 the difference of the two loses four digits
/// of f32): with y = t·ln β, 1 − eʸ = −2·tanh(y/2) / (1 − tanh(y/2)).
fn one_minus_power<'g>(beta: f64, t: Tensor<'g>) -> Tensor<'g> {
    let half = (t * (0.5 * beta.ln())).tanh();
    -2.0 * half / (1.0 - half)
}

/// ```text
/// m ← β1·m + (1 − β1)·g          m̂ = m / (1 − β1ᵗ)
/// v ← β2·v + (1 − β2)·g²         v̂ = v / (1 − β2ᵗ)
/// r = m̂ / (√v̂ + ε)
/// ```
/// `t` is the update's number, from 1, a scalar of g's type.
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

/// The learning rate with [`BiasCorrection::LearningRateOnly`] applied, unchanged otherwise.
pub fn corrected_learning_rate<'g>(adam: &Adam, rate: Tensor<'g>, t: Tensor<'g>) -> Tensor<'g> {
    match adam.bias_correction {
        BiasCorrection::LearningRateOnly => {
            rate * one_minus_power(adam.beta2, t).sqrt() / one_minus_power(adam.beta1, t)
        }
        BiasCorrection::None | BiasCorrection::InUpdate => rate,
    }
}

/// u = r + λ·w
pub fn add_decayed_weights<'g>(r: Tensor<'g>, w: Tensor<'g>, lambda: f64) -> Tensor<'g> {
    if lambda == 0.0 { r } else { r + lambda * w }
}

/// φ of the paper: what the weight's norm counts as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Phi {
    /// φ(z) = z: the authors' own code.
    #[default]
    Identity,
    /// φ(z) = min(max(z, `min`), `max`): the paper's example; it gives no bounds.
    Clamp { min: f64, max: f64 },
}

/// Bounds of a trust ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RatioClamp {
    pub min: f64,
    pub max: f64,
}

/// The trust ratio φ(‖w‖) / ‖u‖, a scalar; 1 where either norm is 0, so that a tensor that starts at zero can leave it.
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

/// w ← w − η·u
pub fn apply<'g>(w: Tensor<'g>, learning_rate: Tensor<'g>, u: Tensor<'g>) -> Tensor<'g> {
    w - scale(learning_rate, u)
}
