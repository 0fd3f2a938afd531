//! Parts of the encoder as one operation each: a composite whose definition and derivative are written as graphs, and as Triton kernels
//! for NVIDIA GPUs. A step contains such an operation only if a run chooses its kernels; otherwise it contains the operations of
//! [`encoder`](super::encoder), which compute the same.

mod attention;
mod choice;
mod dropout;
mod layer_norm;
mod operation;
#[cfg(test)]
mod testing;

pub use attention::FusedAttention;
pub(super) use attention::{AttentionInputs, MASKED, over, rounded_softmax};
pub use choice::{AttentionForm, Kernel, KernelChoice, Kernels};
pub use layer_norm::FusedLayerNorm;
pub(super) use layer_norm::LayerNormInputs;
pub use operation::FusedOperation;
