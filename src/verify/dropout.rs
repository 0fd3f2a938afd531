//! Checks that losses with dropout do not depend on how a batch is split. There are no reference values, because every
//! implementation draws other masks. Here masks are a function of (seed, step, example, site).

use anyhow::Result;

use super::check::{Check, Quantity, Tolerances, worse};
use super::reference::ReferenceCase;
use super::{Verification, VerifyOptions};
use crate::optim::OptimizerConfig;
use crate::runtime::backend::Backend;
use crate::step::StepSpec;
use crate::task::Precision;

/// The dropout probability of BERT, at every site.
const PROBABILITY: f64 = 0.1;
/// Steps of the comparison, each on a batch of the case.
const STEPS: usize = 4;
/// A rate at which a step changes a tensor by a visible share of its norm.
const LEARNING_RATE: f64 = 0.01;

/// Returns the losses of the first LAMB steps of the model of the case with dropout.
///
/// # Errors
/// If the backend fails.
pub fn losses<E: Backend>(case: &ReferenceCase, backend: &E, options: &VerifyOptions) -> Result<Vec<f64>> {
    let verification = Verification::new(case, backend, options);
    let mut task = verification.task();
    task.model.hidden_dropout_prob = PROBABILITY;
    task.model.attention_probs_dropout_prob = PROBABILITY;
    let spec = StepSpec { dropout: true, ..verification.spec(task, &OptimizerConfig::default()) };
    let mut losses = Vec::new();
    let rates = vec![LEARNING_RATE; STEPS.min(case.batches.len())];
    verification.steps(&spec, &rates, |_, metrics| losses.push(metrics[0]))?;
    Ok(losses)
}

/// Compares the losses `found` with those of the unsplit batch.
pub fn same_losses(found: &[f64], unsplit: &[f64], precision: Precision) -> Check {
    let error = found.iter().zip(unsplit).map(|(a, b)| (a - b).abs()).fold(0.0, worse);
    let tolerance = Tolerances::of(precision).loss;
    Check::new(Quantity::Dropout, "dropout", "loss, against the unsplit batch", error, tolerance)
}
