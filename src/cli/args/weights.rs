//! The choice among the weights of a checkpoint.

use clap::ValueEnum;

/// The weights of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// The weights after the step
    #[default]
    Model,
    /// The exponential moving average of the weights
    Ema,
}
