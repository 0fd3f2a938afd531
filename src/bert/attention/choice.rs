//! The choice between the composed form of self-attention and its kernels.

use serde::{Deserialize, Serialize};

use crate::bert::config::named;

/// The form in which a step computes self-attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionKernel {
    /// Composed, until the kernel has been measured on a device.
    #[default]
    Auto,
    /// Matrix products and a softmax, which the compiler fuses as it can. The probabilities are stored for the backward pass.
    Composed,
    /// Kernels of lambert's own, for NVIDIA GPUs: experimental.
    Triton,
}

impl AttentionKernel {
    /// All choices.
    pub const ALL: [AttentionKernel; 3] = [AttentionKernel::Auto, AttentionKernel::Composed, AttentionKernel::Triton];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            AttentionKernel::Auto => "auto",
            AttentionKernel::Composed => "composed",
            AttentionKernel::Triton => "triton",
        }
    }

    /// Returns whether attention is one operation with kernels.
    pub fn is_fused(self) -> bool {
        self == AttentionKernel::Triton
    }
}

named!(AttentionKernel, "attention");
