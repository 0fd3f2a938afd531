//! Dropout under different splits. No reference values exist for it, since every program draws its own masks; but ours are
//! a function of seed, step, example and site, so that a batch, however it is cut, must take the same steps.

use anyhow::Result;

use super::check::{Check, Quantity, Tolerances, worse};
use super::reference::ReferenceCase;
use super::{Verification, VerifyOptions};
use crate::optim::OptimizerConfig;
use crate::runtime::backend::Backend;
use crate::step::train_step::StepSpec;
use crate::task::Precision;

/// BERT's own, everywhere.
const PROBABILITY: f64 = 0.1;
/// Steps taken, each on a batch of the case.
const STEPS: usize = 4;
/// High enough for the weights to move visibly: a step changes a tensor by this share of its norm.
const LEARNING_RATE: f64 = 0.01;

/// Losses of the first LAMB steps of the case's model with dropout on.
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

/// Whether `found` are the losses of the uncut batch.
pub fn same_losses(found: &[f64], uncut: &[f64], precision: Precision) -> Check {
    let error = found.iter().zip(uncut).map(|(a, b)| (a - b).abs()).fold(0.0, worse);
    let tolerance = Tolerances::of(precision).loss;
    Check::new(Quantity::Dropout, "dropout", "loss, against the uncut batch", error, tolerance)
}
