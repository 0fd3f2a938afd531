//! The trait that every optimizer implements, its types, and the checks of settings that optimizers share.

use std::fmt;

use super::pattern;
use super::stages::GradientClip;
use crate::graph::Tensor;

/// An update rule with its settings: the formulas of one optimizer and their description.
///
/// An implementing type also is `Default + Serialize + Deserialize`, with `deny_unknown_fields`: its fields are the
/// settings of the `[optimizer]` table, and their JSON is part of a run's fingerprint in checkpoints.
pub trait UpdateRule: fmt::Debug {
    /// Returns the optimizer's name for people, as `LAMB`.
    fn name(&self) -> &'static str;

    /// Returns the names of the state tensors kept for each parameter, as `m` and `v`.
    fn state_names(&self) -> &'static [&'static str];

    /// Checks the range of every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, with what it requires.
    fn validate(&self) -> Result<(), OptimizerError>;

    /// Returns the clipping of the gradients, which [`Optimizer::update`](super::Optimizer::update) applies first.
    fn gradient_clip(&self) -> GradientClip;

    /// Returns the treatment of each tensor of `names`.
    ///
    /// # Errors
    /// If a pattern matches no name.
    fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>, OptimizerError>;

    /// Builds one tensor's update. `learning_rate` and `t` (the number of the update, from 1) are scalars of the weight's
    /// type.
    fn update<'a, 'g: 'a>(
        &'a self,
        param: &Param<'g>,
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
    ) -> PartialUpdate<'a, 'g>;

    /// Returns every resolved setting as (name, value), formatted for display.
    fn describe(&self) -> Vec<(&'static str, String)>;

    /// Returns the names of the presets; none by default.
    fn preset_names() -> &'static [&'static str]
    where
        Self: Sized,
    {
        &[]
    }

    /// Returns the settings of a preset; none for a name that [`UpdateRule::preset_names`] does not list.
    fn preset(_name: &str) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// An optimizer's setting that is out of range, or does not fit the tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizerError {
    /// One setting, what it requires and its value.
    #[error("{key} requires {requires}, got {got}")]
    Value {
        /// The setting's key.
        key: &'static str,
        /// The values that it accepts.
        requires: String,
        /// The value that was found.
        got: String,
    },
    /// A sentence with the key, what it requires and its value.
    #[error("{0}")]
    Settings(String),
}

/// The stages of an update that apply to one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Weight decay applies.
    pub decayed: bool,
    /// The trust ratio applies.
    pub adapted: bool,
}

impl Treatment {
    /// Returns the treatments by an optimizer that has no trust ratio: all tensors decay but those that match
    /// `exclude_from_weight_decay`.
    ///
    /// # Errors
    /// If a pattern matches no name.
    pub fn without_trust_ratio(
        exclude_from_weight_decay: &[String],
        names: &[&str],
    ) -> Result<Vec<Treatment>, OptimizerError> {
        let excluded = pattern::matched("exclude_from_weight_decay", exclude_from_weight_decay, names)?;
        Ok(excluded.into_iter().map(|excluded| Treatment { decayed: !excluded, adapted: false }).collect())
    }
}

/// One parameter tensor with its gradient and optimizer state, in a graph under construction.
pub struct Param<'g> {
    /// The weight before the update.
    pub weight: Tensor<'g>,
    /// The clipped gradient.
    pub gradient: Tensor<'g>,
    /// The optimizer state before the update, in the order of [`UpdateRule::state_names`].
    pub state: Vec<Tensor<'g>>,
    /// The stages that apply.
    pub treatment: Treatment,
}

/// One tensor's update up to the point where it needs norms, and the rest as a function of these norms.
///
/// The split lets [`Optimizer::update`](super::Optimizer::update) compute the norms of all tensors in one all-reduce.
pub struct PartialUpdate<'a, 'g> {
    /// The tensors whose norms the rest needs.
    pub norms_of: Vec<Tensor<'g>>,
    /// The rest of the update; its argument is the norms of `norms_of`, in the same order.
    pub finish: Box<Finish<'a, 'g>>,
}

/// A function from norms to new values.
pub type Finish<'a, 'g> = dyn FnOnce(&[Tensor<'g>]) -> TensorUpdate<'g> + 'a;

/// The new values of one tensor.
pub struct TensorUpdate<'g> {
    /// The weight after the update.
    pub weight: Tensor<'g>,
    /// The optimizer state after the update, in the order of [`UpdateRule::state_names`].
    pub state: Vec<Tensor<'g>>,
    /// The trust ratio, a scalar; 1 where none applies.
    pub trust_ratio: Tensor<'g>,
}

/// Returns the exclusions of Google's BERT code: biases and LayerNorm.
pub(super) fn default_exclusions() -> Vec<String> {
    vec!["*.bias".to_string(), "*LayerNorm*".to_string()]
}

/// Lists `patterns` for people.
pub(super) fn or_none(patterns: &[String]) -> String {
    if patterns.is_empty() { "none".to_string() } else { patterns.join(", ") }
}

/// Requires 0 ≤ `value` < 1, also after rounding to f32: a moment with the factor 1 would never decay.
pub(super) fn below_one(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    let holds = (0.0..1.0).contains(&value) && (value as f32) < 1.0;
    require(key, "a number from 0 to less than 1 in f32", value, holds)
}

/// Requires a finite `value` > 0.
pub(super) fn above_zero(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number above 0", value, value.is_finite() && value > 0.0)
}

/// Requires a finite `value` ≥ 0.
pub(super) fn not_negative(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number of at least 0", value, value.is_finite() && value >= 0.0)
}

/// Requires a norm above 0 as the bound of a clip.
pub(super) fn validate_clip(clip: GradientClip) -> Result<(), OptimizerError> {
    match clip {
        GradientClip::GlobalNorm { max, .. } => above_zero("gradient_clip.global_norm.max", max),
        GradientClip::PerGroup { max, .. } => above_zero("gradient_clip.per_group.max", max),
        GradientClip::None | GradientClip::PerTensor => Ok(()),
    }
}

fn require(key: &'static str, requires: &str, value: f64, holds: bool) -> Result<(), OptimizerError> {
    match holds {
        true => Ok(()),
        false => Err(OptimizerError::Value { key, requires: requires.to_string(), got: value.to_string() }),
    }
}
