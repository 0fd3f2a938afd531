//! The layers of BERT. Only this module chooses number formats.
//!
//! Letters in this module: B rows of the micro-batch, S sequence length, P masked positions of a row, H hidden size, A attention heads,
//! D = H/A head size, V padded vocabulary. Activations are `[B, S, H]`, those of masked positions `[B·P, H]`: a layer maps
//! the last dimension and accepts any dimensions before it.

use std::collections::HashMap;

use super::dropout::{Dropout, Site};
use super::{Activation, BertConfig, Kernels, Layers, Recompute};
use crate::graph::{DotDimensions, Tensor};
use crate::task::ParamSpec;
use crate::task::Precision;

/// A BERT in a graph under construction: its weights by name and its configuration.
pub struct Bert<'c, 'g> {
    pub(super) config: &'c BertConfig,
    pub(super) weights: HashMap<&'c str, Tensor<'g>>,
    pub(super) precision: Precision,
    pub(super) dropout: Option<Dropout<'g>>,
    pub(super) recompute: Recompute,
    pub(super) layers: Layers,
    pub(super) kernels: Kernels,
    /// Lookups of the padding token give its embedding no gradient.
    pub(super) fixed_padding: bool,
}

impl<'c, 'g> Bert<'c, 'g> {
    /// Names `weights`, which are the tensors of `specs` in the same order, of type [`Precision::master`]. Without `dropout`
    /// nothing is dropped, whatever the probabilities of the configuration.
    pub fn new(
        config: &'c BertConfig,
        specs: &'c [ParamSpec],
        weights: &[Tensor<'g>],
        precision: Precision,
        dropout: Option<Dropout<'g>>,
        recompute: Recompute,
    ) -> Self {
        let weights = specs.iter().map(|s| s.name.as_str()).zip(weights.iter().copied()).collect();
        Bert {
            config,
            weights,
            precision,
            dropout,
            recompute,
            layers: Layers::Unrolled,
            kernels: Kernels::default(),
            fixed_padding: false,
        }
    }

    /// Builds the encoder's layers in this form; unrolled by default.
    pub fn with_layers(self, layers: Layers) -> Self {
        Bert { layers, ..self }
    }

    /// Computes the operations that have kernels in these forms; composed by default.
    pub fn with_kernels(self, kernels: Kernels) -> Self {
        Bert { kernels, ..self }
    }

    /// Gives the embedding of the padding token no gradient from lookups, as `padding_idx` of transformers' `BertModel`. It makes
    /// a difference where a loss reads the hidden states of padding.
    pub(super) fn with_fixed_padding(self) -> Self {
        Bert { fixed_padding: true, ..self }
    }

    /// Returns the model for activations `[B, N, H]` of `positions` s32`[B, N]` in rows of `length`.
    pub(super) fn at(&self, positions: Tensor<'g>, length: usize) -> Self {
        let dropout = self.dropout.map(|dropout| dropout.at(positions, length, self.config.hidden_size));
        Bert { weights: self.weights.clone(), dropout, ..*self }
    }

    /// Returns the weight `name`.
    ///
    /// # Panics
    /// If the model has no such tensor.
    #[track_caller]
    pub(super) fn weight(&self, name: &str) -> Tensor<'g> {
        *self.weights.get(name).unwrap_or_else(|| panic!("BERT has no tensor {name}"))
    }

    /// Converts to the type of activations.
    pub(super) fn compute(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.convert(self.precision.compute())
    }

    /// Converts to the type of sums and norms.
    pub(super) fn master(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.convert(self.precision.master())
    }

    /// Appends a matrix product, as every one of the model: operands in the compute type, result in the product type.
    pub(super) fn dot(&self, x: Tensor<'g>, y: Tensor<'g>, dimensions: DotDimensions) -> Tensor<'g> {
        self.compute(x).dot_general(self.compute(y), dimensions, self.precision.product())
    }

    /// Appends x·Wᵀ + b in the product type: `[…, in]` → `[…, out]`, W being `name.weight` `[out, in]`.
    pub(super) fn linear_wide(&self, x: Tensor<'g>, name: &str) -> Tensor<'g> {
        self.affine(x, self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")))
    }

    /// Appends [`Bert::linear_wide`], rounded to the type of activations.
    pub(super) fn linear(&self, x: Tensor<'g>, name: &str) -> Tensor<'g> {
        self.compute(self.linear_wide(x, name))
    }

    /// Appends [`Bert::linear`] of several names as one product, the outputs side by side: `[…, in]` → `[…, Σ out]`.
    pub(super) fn linears(&self, x: Tensor<'g>, names: &[String]) -> Tensor<'g> {
        let joined = |kind: &str| {
            let tensors: Vec<Tensor> = names.iter().map(|name| self.weight(&format!("{name}.{kind}"))).collect();
            x.graph().concatenate(&tensors, 0)
        };
        self.compute(self.affine(x, joined("weight"), joined("bias")))
    }

    /// Appends [`Bert::linear`] as W·xᵀ + b, with the outputs first: x `[B, S, in]` → `[out, B, S]`.
    pub(super) fn linear_transposed(&self, x: Tensor<'g>, name: &str) -> Tensor<'g> {
        let by_rows = DotDimensions { lhs_contracting: vec![1], rhs_contracting: vec![last(x)], ..Default::default() };
        let y = self.dot(self.weight(&format!("{name}.weight")), x, by_rows);
        self.compute(y + self.weight(&format!("{name}.bias")).broadcast_like(y, &[0]))
    }

    /// Appends x·Wᵀ + b in the product type: x `[…, in]`, W `[out, in]`, b `[out]` → `[…, out]`.
    fn affine(&self, x: Tensor<'g>, weight: Tensor<'g>, bias: Tensor<'g>) -> Tensor<'g> {
        let y = self.times_transposed(x, weight);
        y + bias.broadcast_like(y, &[last(y)])
    }

    /// Appends x·Wᵀ in the product type: `[…, in]` with W `[out, in]` → `[…, out]`.
    pub(super) fn times_transposed(&self, x: Tensor<'g>, weight: Tensor<'g>) -> Tensor<'g> {
        let by_rows = DotDimensions { lhs_contracting: vec![last(x)], rhs_contracting: vec![1], ..Default::default() };
        self.dot(x, weight, by_rows)
    }

    /// Appends (x − mean) / √(variance + ε) · γ + β over the last dimension of `[…, H]`, in the master type; the result is an
    /// activation. The variance divides by H, not by H − 1.
    pub(super) fn layer_norm(&self, x: Tensor<'g>, name: &str) -> Tensor<'g> {
        let (gamma, beta) = (self.weight(&format!("{name}.weight")), self.weight(&format!("{name}.bias")));
        let x = self.master(x);
        let last = last(x);
        let others: Vec<usize> = (0..last).collect();
        let centered = x - x.mean(&[last]).broadcast_like(x, &others);
        let variance = centered.square().mean(&[last]);
        let scale = (variance + self.config.layer_norm_eps).rsqrt();
        let normed = centered * scale.broadcast_like(x, &others);
        self.compute(normed * gamma.broadcast_like(x, &[last]) + beta.broadcast_like(x, &[last]))
    }

    /// Appends the configured GELU, computed in the master type.
    pub(super) fn gelu(&self, x: Tensor<'g>) -> Tensor<'g> {
        let x = self.master(x);
        self.compute(match self.config.hidden_act {
            // x·Φ(x)
            Activation::Gelu => 0.5 * x * (1.0 + (x * std::f64::consts::FRAC_1_SQRT_2).erf()),
            // XLA:GPU recognises this form, with these constants, and fuses it into the preceding product.
            Activation::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * (x * x * x));
                x * (0.5 * (1.0 + inner.tanh()))
            }
        })
    }

    /// Appends dropout at `site` to `x`, whose first dimension counts the rows of the micro-batch.
    pub(super) fn dropped(&self, x: Tensor<'g>, site: Site) -> Tensor<'g> {
        let probability = match site {
            Site::AttentionProbs(_) => self.config.attention_probs_dropout_prob,
            Site::Embeddings | Site::AttentionOutput(_) | Site::Output(_) => self.config.hidden_dropout_prob,
            Site::Classifier(_) => self.config.classifier_dropout.unwrap_or(self.config.hidden_dropout_prob),
        };
        self.dropout.map_or(x, |dropout| dropout.apply(x, site, probability))
    }

    /// Runs `build` inside a recomputed region if `condition`.
    pub(super) fn recomputed_if(
        &self,
        condition: bool,
        x: Tensor<'g>,
        build: impl FnOnce() -> Tensor<'g>,
    ) -> Tensor<'g> {
        if condition { x.graph().recomputed(build) } else { build() }
    }
}

/// Returns the number of the last dimension.
fn last(x: Tensor<'_>) -> usize {
    x.dims().len() - 1
}

/// Appends softmax over the last dimension. The maximum keeps the exponentials in range; no gradient flows through it.
pub(super) fn softmax(x: Tensor<'_>) -> Tensor<'_> {
    let last = last(x);
    let kept: Vec<usize> = (0..last).collect();
    let e = (x - x.reduce_max(&[last]).stop_gradient().broadcast_like(x, &kept)).exp();
    e / e.reduce_sum(&[last]).broadcast_like(x, &kept)
}
