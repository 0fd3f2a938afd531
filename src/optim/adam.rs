//! Adam's moments and direction: the stage that LAMB and AdamW share.
//!
//! ```text
//! m ← β1·m + β3·g                     m̂ = m / (1 − β1ᵗ)
//! v ← β2·v + (1 − β2)·g²              v̂ = v / (1 − β2ᵗ)
//! r = m̂ / (√v̂ + ε)
//! ```
//! β3 is 1 − β1, or 1 without `grad_averaging`.

use serde::{Deserialize, Serialize};

use super::error::{self, OptimizerError};
use super::hyperparameters::{Hyperparameters, UpdateScalars};
use super::stages::{add_scalar, scale};
use crate::graph::Tensor;

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
    /// Corrects the learning rate for the first moment alone: η / (1 − β1ᵗ). The Lamb of pytorch_optimizer.
    FirstMomentOnly,
}

impl BiasCorrection {
    pub(super) fn describe(self) -> &'static str {
        match self {
            BiasCorrection::None => "none",
            BiasCorrection::InUpdate => "both moments",
            BiasCorrection::LearningRateOnly => "learning rate only: η·√(1 − β2ᵗ) / (1 − β1ᵗ)",
            BiasCorrection::FirstMomentOnly => "learning rate only, for the first moment: η / (1 − β1ᵗ)",
        }
    }
}

/// The place of ε relative to the square root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonPlace {
    /// √v + ε
    #[default]
    OutsideSqrt,
    /// √(v + ε)
    InsideSqrt,
}

impl EpsilonPlace {
    pub(super) fn describe(self) -> &'static str {
        match self {
            EpsilonPlace::OutsideSqrt => "√v + ε",
            EpsilonPlace::InsideSqrt => "√(v + ε)",
        }
    }
}

/// The moments that look one update ahead, as Nadam does (Dozat, 2016). All forms have the bias correction of both moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nesterov {
    /// No moment.
    #[default]
    None,
    /// The first: m̂ = β1·m / (1 − β1ᵗ⁺¹) + β3·g / (1 − β1ᵗ). `nesterov=True` of optax.
    FirstMoment,
    /// The first, and v̂ = β2·v / (1 − β2ᵗ): Nadam as published, and N-LAMB.
    Nadam,
    /// Both: v̂ = β2·v / (1 − β2ᵗ⁺¹) + (1 − β2)·g² / (1 − β2ᵗ). NN-LAMB.
    BothMoments,
}

impl Nesterov {
    pub(super) fn describe(self) -> &'static str {
        match self {
            Nesterov::None => "none",
            Nesterov::FirstMoment => "first moment",
            Nesterov::Nadam => "first moment, and β2 · v̂ (Nadam)",
            Nesterov::BothMoments => "both moments",
        }
    }
}

/// The settings of Adam.
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
    /// The moments that look ahead.
    pub nesterov: Nesterov,
    /// True: the new gradient enters m with 1 − β1. False: with 1 (apex `grad_averaging=False`).
    pub grad_averaging: bool,
}

/// The results of [`Adam::scale`].
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

impl Adam {
    /// Checks the range of every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, with what it requires.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        error::below_one("beta1", self.beta1)?;
        error::below_one("beta2", self.beta2)?;
        error::above_zero("epsilon", self.epsilon)?;
        if self.nesterov != Nesterov::None && self.bias_correction != BiasCorrection::InUpdate {
            return Err(OptimizerError::Value {
                key: "nesterov",
                requires: "bias_correction = \"in_update\", or nesterov = \"none\"".to_string(),
                got: format!("bias correction of {}", self.bias_correction.describe()),
            });
        }
        Ok(())
    }

    /// Returns the numbers of the formulas.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = Hyperparameters::default();
        numbers.add("beta1", self.beta1);
        numbers.add("beta3", if self.grad_averaging { 1.0 - self.beta1 } else { 1.0 });
        numbers.add("beta2", self.beta2);
        numbers.add("one_minus_beta2", 1.0 - self.beta2);
        numbers.add("epsilon", self.epsilon);
        let (first, second) = match self.bias_correction {
            BiasCorrection::None => (false, false),
            BiasCorrection::FirstMomentOnly => (true, false),
            BiasCorrection::InUpdate | BiasCorrection::LearningRateOnly => (true, true),
        };
        if first {
            numbers.add("half_log_beta1", 0.5 * self.beta1.ln());
        }
        if second {
            numbers.add("half_log_beta2", 0.5 * self.beta2.ln());
        }
        numbers
    }

    /// Updates the moments and returns the direction r.
    pub fn scale<'g>(
        &self,
        scalars: &UpdateScalars<'g>,
        g: Tensor<'g>,
        m: Tensor<'g>,
        v: Tensor<'g>,
    ) -> AdamScaled<'g> {
        let number = |name| scalars.get(name);
        let m = scale(number("beta1"), m) + scale(number("beta3"), g);
        let v = scale(number("beta2"), v) + scale(number("one_minus_beta2"), g.square());
        let (m_hat, v_hat) = match self.bias_correction {
            BiasCorrection::InUpdate => self.corrected(scalars, g, m, v),
            BiasCorrection::None | BiasCorrection::LearningRateOnly | BiasCorrection::FirstMomentOnly => (m, v),
        };
        let epsilon = number("epsilon");
        let denominator = match self.epsilon_place {
            EpsilonPlace::OutsideSqrt => add_scalar(v_hat.sqrt(), epsilon),
            EpsilonPlace::InsideSqrt => add_scalar(v_hat, epsilon).sqrt(),
        };
        AdamScaled { r: m_hat / denominator, m, v, denominator }
    }

    /// Returns m̂ and v̂.
    fn corrected<'g>(
        &self,
        scalars: &UpdateScalars<'g>,
        g: Tensor<'g>,
        m: Tensor<'g>,
        v: Tensor<'g>,
    ) -> (Tensor<'g>, Tensor<'g>) {
        let (log1, log2) = (scalars.get("half_log_beta1"), scalars.get("half_log_beta2"));
        let (t, beta1, beta2) = (scalars.t, scalars.get("beta1"), scalars.get("beta2"));
        let first = || scale(1.0 / one_minus_power(log1, t), m);
        let first_ahead = || {
            let ahead = scale(beta1 / one_minus_power(log1, t + 1.0), m);
            ahead + scale(scalars.get("beta3") / one_minus_power(log1, t), g)
        };
        let second = || scale(1.0 / one_minus_power(log2, t), v);
        match self.nesterov {
            Nesterov::None => (first(), second()),
            Nesterov::FirstMoment => (first_ahead(), second()),
            Nesterov::Nadam => (first_ahead(), scale(beta2 / one_minus_power(log2, t), v)),
            Nesterov::BothMoments => {
                let ahead = scale(beta2 / one_minus_power(log2, t + 1.0), v);
                let now = scale(scalars.get("one_minus_beta2") / one_minus_power(log2, t), g.square());
                (first_ahead(), ahead + now)
            }
        }
    }

    /// Returns the learning rate, with the part of the bias correction that the place of the correction gives it.
    pub fn learning_rate<'g>(&self, scalars: &UpdateScalars<'g>) -> Tensor<'g> {
        let rest = |name| one_minus_power(scalars.get(name), scalars.t);
        match self.bias_correction {
            BiasCorrection::None | BiasCorrection::InUpdate => scalars.learning_rate,
            BiasCorrection::LearningRateOnly => {
                scalars.learning_rate * rest("half_log_beta2").sqrt() / rest("half_log_beta1")
            }
            BiasCorrection::FirstMomentOnly => scalars.learning_rate / rest("half_log_beta1"),
        }
    }

    /// Returns the factor that [`Adam::learning_rate`] has at update `t`, from 1.
    pub fn learning_rate_factor(&self, t: u64) -> f64 {
        let rest = |beta: f64| 1.0 - beta.powf(t as f64);
        match self.bias_correction {
            BiasCorrection::None | BiasCorrection::InUpdate => 1.0,
            BiasCorrection::LearningRateOnly => rest(self.beta2).sqrt() / rest(self.beta1),
            BiasCorrection::FirstMomentOnly => 1.0 / rest(self.beta1),
        }
    }

    pub(super) fn describe(&self) -> Vec<(&'static str, String)> {
        let averaging = if self.grad_averaging { "(1 − β1)·g" } else { "1·g" };
        vec![
            ("betas", format!("{}, {}", self.beta1, self.beta2)),
            ("epsilon", format!("{:e}, as {}", self.epsilon, self.epsilon_place.describe())),
            ("bias correction", self.bias_correction.describe().to_string()),
            ("nesterov", self.nesterov.describe().to_string()),
            ("gradient averaging", averaging.to_string()),
        ]
    }
}

/// Returns 1 − βᵗ for a scalar t ≥ 1, from `half_log` = ln(β) / 2. Computed as written, it would lose four digits of f32 at
/// β = 0.999, where βᵗ is close to 1; so with y = t·ln β it is computed as 1 − eʸ = −2·tanh(y/2) / (1 − tanh(y/2)).
fn one_minus_power<'g>(half_log: Tensor<'g>, t: Tensor<'g>) -> Tensor<'g> {
    let half = (t * half_log).tanh();
    -2.0 * half / (1.0 - half)
}
