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

/// The form in which a step computes self-attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentionForm {
    /// Separate on TPUs; else composed, until the kernels have been measured on a device.
    #[default]
    Auto,
    /// Matrix products and a softmax, which the compiler fuses as it can. The probabilities are stored for the backward pass.
    Composed,
    /// Composed, with a product each for queries, keys and values that puts the positions last, and with a softmax whose derivative
    /// reads the rounded probabilities: XLA's TPU compiler then transposes less, and moves fewer bytes of size S².
    Separate,
    /// Kernels of lambert's own, for NVIDIA GPUs: experimental.
    Triton,
}

impl AttentionForm {
    /// All forms.
    pub const ALL: [AttentionForm; 4] =
        [AttentionForm::Auto, AttentionForm::Composed, AttentionForm::Separate, AttentionForm::Triton];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            AttentionForm::Auto => "auto",
            AttentionForm::Composed => "composed",
            AttentionForm::Separate => "separate",
            AttentionForm::Triton => "triton",
        }
    }

    /// Returns the form that this choice stands for on `platform`, by the name that its plugin reports.
    pub fn on(self, platform: &str) -> AttentionForm {
        match (self, platform) {
            (AttentionForm::Auto, "tpu") => AttentionForm::Separate,
            (AttentionForm::Auto, _) => AttentionForm::Composed,
            (chosen, _) => chosen,
        }
    }

    /// Returns whether attention is one node with kernels.
    pub fn is_fused(self) -> bool {
        self == AttentionForm::Triton
    }
}

named!(AttentionForm, "attention");

/// The form in which a step computes another fused operation.
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

/// The `[kernels]` table of a run file. Forms round differently, so a resumed run must share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kernels {
    /// Self-attention: `composed`, `separate`, `triton` or `auto`.
    pub attention: AttentionForm,
    /// Bias, dropout, residual and LayerNorm: `composed`, `triton` or `auto`.
    pub layer_norm: KernelChoice,
}

impl Kernels {
    /// Returns whether `kernel` is one node with kernels.
    pub fn fuses(self, kernel: Kernel) -> bool {
        match kernel {
            Kernel::Attention => self.attention.is_fused(),
            Kernel::LayerNorm => self.layer_norm.is_fused(),
        }
    }

    /// Returns these choices with kernels for `kernel`.
    pub fn fusing(self, kernel: Kernel) -> Kernels {
        match kernel {
            Kernel::Attention => Kernels { attention: AttentionForm::Triton, ..self },
            Kernel::LayerNorm => Kernels { layer_norm: KernelChoice::Triton, ..self },
        }
    }

    /// Returns these choices with the composed form of `kernel`.
    pub fn composing(self, kernel: Kernel) -> Kernels {
        match kernel {
            Kernel::Attention => Kernels { attention: AttentionForm::Composed, ..self },
            Kernel::LayerNorm => Kernels { layer_norm: KernelChoice::Composed, ..self },
        }
    }

    /// Returns these choices as they are on `platform`, by the name that its plugin reports.
    pub fn on(self, platform: &str) -> Kernels {
        Kernels { attention: self.attention.on(platform), ..self }
    }

    /// Returns the operations that are computed by kernels.
    pub fn fused(self) -> impl Iterator<Item = Kernel> {
        Kernel::ALL.into_iter().filter(move |&kernel| self.fuses(kernel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_separate_on_tpus_alone_and_other_choices_hold_everywhere() {
        use AttentionForm::*;
        assert_eq!(["tpu", "cuda", "cpu"].map(|platform| Auto.on(platform)), [Separate, Composed, Composed]);
        assert_eq!(["tpu", "cuda"].map(|platform| Composed.on(platform)), [Composed; 2]);
        assert_eq!([Separate.on("cuda"), Triton.on("tpu")], [Separate, Triton]);
    }
}
