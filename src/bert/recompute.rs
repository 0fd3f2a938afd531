//! Activation recomputation (activation checkpointing) by named policy.

use serde::{Deserialize, Serialize};

use super::config::named;

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

named!(Recompute, "recompute");
