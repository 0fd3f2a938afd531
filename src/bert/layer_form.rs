//! The form of the encoder's layers in a program.

use serde::{Deserialize, Serialize};

use super::config::named;

/// The form of the encoder's layers in the program of a step. The weights, and the weights' tensors, are the same in both; sums
/// may be rounded differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    /// Unrolled: over a run, the loop loses more time in its steps than it saves in compilation.
    #[default]
    Auto,
    /// Each layer by itself: the compiler optimizes across layers and fits the memory of each value to its use.
    Unrolled,
    /// A loop over stacked layers: the compiler sees one layer for all of them.
    Loop,
}

impl Layers {
    /// All forms.
    pub const ALL: [Layers; 3] = [Layers::Auto, Layers::Unrolled, Layers::Loop];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            Layers::Auto => "auto",
            Layers::Unrolled => "unrolled",
            Layers::Loop => "loop",
        }
    }

    /// Returns whether `count` layers are a loop.
    pub(super) fn are_looped(self, count: usize) -> bool {
        self == Layers::Loop && count > 1
    }
}

named!(Layers, "layers");
