//! The exponential moving average (EMA) of the weights, which a step updates after the weights.
//!
//! ```text
//! ema ← ema + max(1 − decay, 9 / (10 + n)) · (weight − ema)      n: the number of the step in the run, from 0
//! ```
//!
//! This is the decay min(decay, (1 + n) / (10 + n)) of TensorFlow's `ExponentialMovingAverage` with `num_updates`: without it, the
//! first weights, which are random, would remain in the average for about 1 / (1 − decay) steps. The average begins as the first
//! weights, so it is an average of weights at every step. optax calls it `ema`, timm `--model-ema`, PyTorch `AveragedModel`.

use super::Hyperparameters;
use crate::graph::Tensor;

/// The kind of the averages among the tensors of the state: a checkpoint names them `ema/<parameter>`.
pub const STATE_NAME: &str = "ema";

/// The name of 1 − decay among the hyper-parameters.
pub const ONE_MINUS_DECAY: &str = "one_minus_ema_decay";

/// Returns the number in the formula: 1 − `decay`, in f64, because f32 would lose digits of it.
pub fn hyperparameters(decay: f64) -> Hyperparameters {
    let mut numbers = Hyperparameters::default();
    numbers.add(ONE_MINUS_DECAY, 1.0 - decay);
    numbers
}

/// Returns the parameter whose average has the name `name` in a checkpoint; none if it names no average.
pub fn parameter(name: &str) -> Option<&str> {
    name.strip_prefix(STATE_NAME)?.strip_prefix('/')
}

/// Returns the name of a held-out metric of the averaged weights: `ema_mlm_loss` for `mlm_loss`.
pub fn metric_name(name: &str) -> String {
    format!("{STATE_NAME}_{name}")
}

/// Returns the share of the weights in the average after the step `n`, a scalar of the type of the weights.
pub fn share<'g>(one_minus_decay: Tensor<'g>, n: Tensor<'g>) -> Tensor<'g> {
    let warm_up = n.graph().scalar(9.0, n.dtype()) / (n + 10.0);
    one_minus_decay.maximum(warm_up)
}

/// Returns the average after `weight` has been added with the share `share`, a scalar.
pub fn update<'g>(average: Tensor<'g>, weight: Tensor<'g>, share: Tensor<'g>) -> Tensor<'g> {
    average + share.broadcast_like(average, &[]) * (weight - average)
}
