//! Activation recomputation (activation checkpointing) by named policy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::config::{ConfigError, by_name};

/// The activations that the backward pass recomputes instead of storing them; see [`crate::graph::Graph::recomputed`].
/// Losses and gradients do not depend on it. Dropout masks are recomputed under every policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recompute {
    /// No activation: all are stored.
    #[default]
    None,
    /// The attention probabilities, at the cost of one matrix product a layer: nothing of size S² is stored.
    Attention,
    /// All activations inside an encoder layer, at the cost of a second forward pass: only the inputs of layers are stored.
    Layer,
}

impl Recompute {
    /// All policies.
    pub const ALL: [Recompute; 3] = [Recompute::None, Recompute::Attention, Recompute::Layer];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            Recompute::None => "none",
            Recompute::Attention => "attention",
            Recompute::Layer => "layer",
        }
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Recompute {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        by_name("recompute", Recompute::ALL, Recompute::name, name)
    }
}
