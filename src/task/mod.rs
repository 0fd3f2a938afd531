//! Models and training objectives as traits. A [`Model`] declares its parameters, the tensors of its batches and its outputs;
//! a [`Task`] adds a loss and metrics. Steps, devices, checkpoints and the trainer use these traits and contain no code for a
//! specific model.

mod params;
mod precision;

use std::fmt::Debug;

pub use params::{Init, ParamSpec};
pub use precision::Precision;

use crate::batch::{BatchSpec, HostBatch};
use crate::graph::Tensor;
use crate::metrics::MetricKind;
use crate::shape::{DType, Shape};

/// A quantity that is the ratio of two sums over the global batch: a loss term or a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// The name in metrics files, such as `mlm_loss`.
    pub name: &'static str,
    /// The name in tables and messages, such as `MLM loss`.
    pub label: &'static str,
    /// The index in [`Task::denominators`] of the divisor.
    pub denominator: usize,
    /// The kind; losses are terms of the task's loss.
    pub kind: MetricKind,
}

/// The keys of dropout masks. A mask is a function of these keys and the layer where it is applied, not of device state.
#[derive(Clone, Copy)]
pub struct DropoutKey<'g> {
    /// u32\[2\]: the seed of the run.
    pub seed: Tensor<'g>,
    /// u32\[\]: the number of the step in the run, from 0.
    pub step: Tensor<'g>,
    /// u32\[\]: the number of the micro-batch's first row in the global batch.
    pub first_row: Tensor<'g>,
}

/// A model on batches of one form: its parameters, its inputs, and what it computes for each row. Prediction needs no more.
pub trait Model: Debug + Send + Sync {
    /// Returns a text that differs between models whose graphs differ: programs are compiled once for each.
    fn identity(&self) -> String {
        format!("{self:?}")
    }

    /// Checks that a program on `rows` rows is possible.
    ///
    /// # Errors
    /// The setting that is impossible, with what it requires.
    fn validate(&self, rows: usize) -> anyhow::Result<()>;

    /// Returns the learned tensors, in the order of inputs, outputs, gradients and optimizer state.
    fn parameters(&self) -> Vec<ParamSpec>;

    /// Returns the tensors of a batch.
    fn batch(&self) -> BatchSpec;

    /// Appends the forward pass without dropout and returns what the model computes for each row, by name. `weights` are the
    /// parameters in their order and in the master type.
    fn outputs<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
    ) -> Vec<(&'static str, Tensor<'g>)>;
}

/// A model and its loss on labelled batches: what a run trains.
///
/// The loss is Σ over the terms of (sum over the global batch / denominator over the global batch). A task returns sums over
/// the rows that it is given and never divides: denominators are summed over micro-batches, replicas and hosts before the
/// first micro-batch, so that the update does not depend on how a batch is split.
pub trait Task: Model {
    /// Returns the names of the denominators.
    fn denominators(&self) -> &'static [&'static str];

    /// Returns the loss terms and metrics, in the order of [`Task::sums`].
    fn ratios(&self) -> &'static [Ratio];

    /// Appends the denominators over the rows of `batch`: scalars of type `dtype`, one for each of [`Task::denominators`].
    fn denominator_sums<'g>(&self, batch: &[Tensor<'g>], dtype: DType) -> Vec<Tensor<'g>>;

    /// Appends the forward pass and the loss: the numerators over the rows of `batch`, scalars of the master type, one for
    /// each of [`Task::ratios`]. Arguments are those of [`Model::outputs`]. Without `dropout` nothing is dropped.
    fn sums<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
        dropout: Option<DropoutKey<'g>>,
    ) -> Vec<Tensor<'g>>;

    /// Appends, for tasks whose batches may end in unused rows, which rows hold an example: pred\[B\]. Micro-batches behind
    /// the last such row are skipped. None if every row always counts.
    fn occupied_rows<'g>(&self, _batch: &[Tensor<'g>]) -> Option<Tensor<'g>> {
        None
    }

    /// Returns the ratios that mean nothing on the data at hand (a label that no example has) and are left out of reports.
    fn unreported(&self) -> &'static [&'static str] {
        &[]
    }

    /// Returns the floating-point operations of training on one row.
    fn training_flops(&self) -> f64;

    /// Returns how many examples a full row holds.
    fn examples_per_row(&self) -> usize {
        1
    }

    /// Builds a batch of `rows` full rows of random contents, for benchmarks.
    fn synthetic_batch(&self, rows: usize) -> HostBatch;
}

/// The names of a step's `metrics`, in order: `loss`, its terms, the other ratios, `grad_norm`, and `skipped` (1 if a
/// gradient was not finite, so that nothing was updated).
pub fn metric_names(task: &dyn Task) -> Vec<&'static str> {
    let ratios = |in_loss: bool| {
        task.ratios().iter().filter(move |ratio| ratio.kind.is_loss() == in_loss).map(|ratio| ratio.name)
    };
    ["loss"].into_iter().chain(ratios(true)).chain(ratios(false)).chain(["grad_norm", "skipped"]).collect()
}

/// The shapes of a task's parameters in f32, by name.
pub fn parameter_shapes(params: &[ParamSpec]) -> Vec<(String, Shape)> {
    params.iter().map(|param| (param.name.clone(), param.shape(DType::F32))).collect()
}
