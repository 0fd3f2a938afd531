//! The `[kernels]` table: for each fused operation, the choice between its composed form and its kernels.

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};

use super::{FusedAttention, FusedLayerNorm, FusedOperation};
use crate::bert::BertConfig;
use crate::bert::config::named;
use crate::task::Precision;

/// The rows of the operations that are compared before a run.
const ROWS: usize = 2;

/// A fused operation, by its key in `[kernels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// Self-attention at all positions.
    Attention,
    /// Bias, dropout, residual and LayerNorm at the end of attention and of the feed-forward layer, at all positions.
    LayerNorm,
}

impl Kernel {
    /// All fused operations.
    pub const ALL: [Kernel; 2] = [Kernel::Attention, Kernel::LayerNorm];

    /// Returns the key.
    pub const fn name(self) -> &'static str {
        match self {
            Kernel::Attention => "attention",
            Kernel::LayerNorm => "layer_norm",
        }
    }

    /// Checks that the kernels compute `model` in rows of `length` with `precision`.
    ///
    /// # Errors
    /// Otherwise; the message has the requirement.
    pub fn check(self, model: &BertConfig, length: usize, precision: Precision) -> anyhow::Result<()> {
        let next = format!("set {self} to \"composed\"");
        ensure!(
            precision == Precision::Bf16,
            "{self} = \"triton\" requires precision \"bf16\", got \"{}\"; {next}",
            precision.compute()
        );
        let refusal = match self {
            Kernel::Attention => FusedAttention::of(model, 1, length).refusal(),
            Kernel::LayerNorm => FusedLayerNorm::of(model, 1, length).refusal(),
        };
        match refusal {
            Some(requirement) => bail!("{self} = \"triton\" requires {requirement}; {next}"),
            None => Ok(()),
        }
    }

    /// Returns the operations that a step of `model` in rows of `lengths` may contain, with few rows, to compare their kernels with
    /// the composed form.
    pub fn operations(self, model: &BertConfig, lengths: &[usize]) -> Vec<Box<dyn FusedOperation>> {
        match self {
            Kernel::Attention => {
                let plain = lengths.iter().map(|&length| FusedAttention::of(model, ROWS, length));
                let both = plain.flat_map(|plain| [plain, FusedAttention { packed: true, ..plain }]);
                both.map(|attention| Box::new(attention) as Box<dyn FusedOperation>).collect()
            }
            // Its programs do not depend on the length of rows.
            Kernel::LayerNorm => lengths
                .first()
                .map(|&length| Box::new(FusedLayerNorm::of(model, ROWS, length)) as Box<dyn FusedOperation>)
                .into_iter()
                .collect(),
        }
    }
}

named!(Kernel, "kernels");

/// The form in which a step computes a fused operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelChoice {
    /// Composed, until the kernels have been measured on a device.
    #[default]
    Auto,
    /// Operations that the compiler fuses as it can.
    Composed,
    /// Kernels of lambert's own, for NVIDIA GPUs: experimental.
    Triton,
}

impl KernelChoice {
    /// All choices.
    pub const ALL: [KernelChoice; 3] = [KernelChoice::Auto, KernelChoice::Composed, KernelChoice::Triton];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            KernelChoice::Auto => "auto",
            KernelChoice::Composed => "composed",
            KernelChoice::Triton => "triton",
        }
    }

    /// Returns whether the operation is one node with kernels.
    pub fn is_fused(self) -> bool {
        self == KernelChoice::Triton
    }
}

named!(KernelChoice, "a kernel");

/// The `[kernels]` table of a run file. Kernels round differently, so a resumed run must share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kernels {
    /// Self-attention: `composed`, `triton` or `auto`.
    pub attention: KernelChoice,
    /// Bias, dropout, residual and LayerNorm: `composed`, `triton` or `auto`.
    pub layer_norm: KernelChoice,
}

impl Kernels {
    /// Returns the choice for `kernel`.
    pub fn of(self, kernel: Kernel) -> KernelChoice {
        match kernel {
            Kernel::Attention => self.attention,
            Kernel::LayerNorm => self.layer_norm,
        }
    }

    /// Returns these choices with another one for `kernel`.
    pub fn with(mut self, kernel: Kernel, choice: KernelChoice) -> Kernels {
        match kernel {
            Kernel::Attention => self.attention = choice,
            Kernel::LayerNorm => self.layer_norm = choice,
        }
        self
    }

    /// Returns the operations that are computed by kernels.
    pub fn fused(self) -> impl Iterator<Item = Kernel> {
        Kernel::ALL.into_iter().filter(move |&kernel| self.of(kernel).is_fused())
    }
}
