//! The trait that every optimizer implements, and its types.

use std::fmt;

use super::error::OptimizerError;
use super::hyperparameters::{Hyperparameters, UpdateScalars};
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

    /// Returns the numbers that [`UpdateRule::update`] reads from its scalars. Settings of 0 that leave a term out of the
    /// formulas have none.
    fn hyperparameters(&self) -> Hyperparameters;

    /// Builds one tensor's update.
    fn update<'a, 'g: 'a>(&'a self, param: &Param<'g>, scalars: &'a UpdateScalars<'g>) -> PartialUpdate<'a, 'g>;

    /// Returns the length of the step of update `t`, from 1, at the learning rate 1, of a tensor with the norm `w_norm` and
    /// `elements` elements, if the rule divides the gradient by its size: the length then is the same for the smallest gradient.
    /// Returns 0 if the step shrinks with the gradient. Weight decay is left out.
    fn normalised_step(&self, adapted: bool, t: u64, w_norm: f64, elements: usize) -> f64;

    /// Returns every resolved setting as (name, value), formatted for display.
    fn describe(&self) -> Vec<(&'static str, String)>;

    /// Returns the published implementations of the rule.
    fn presets() -> &'static [Preset<Self>]
    where
        Self: Sized;
}

/// A published implementation that a run file can name; it sets every setting.
pub struct Preset<R> {
    /// The value of `preset` in a run file.
    pub name: &'static str,
    /// The implementation.
    pub source: &'static str,
    /// Its settings.
    pub settings: fn() -> R,
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
