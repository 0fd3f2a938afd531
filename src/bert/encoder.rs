//! The encoder: self-attention and feed-forward layers, each followed by LayerNorm(input + dropout(output)).
//!
//! Source: google-research/bert `modeling.py`, transformer_model and attention_layer.

use std::ops::Range;

use super::Recompute;
use super::dropout::{Dropout, Site};
use super::fused::{
    AttentionForm, AttentionInputs, FusedAttention, FusedLayerNorm, LayerNormInputs, MASKED, over, rounded_softmax,
};
use super::inputs::EncoderInputs;
use super::layers::{Bert, softmax};
use super::positions::at_positions;
use crate::graph::{ScanInputs, ScanOutputs, Tensor};
use crate::shape::DType;

/// The beginning of the names of the weights of layer 0.
const LAYER_0: &str = "bert.encoder.layer.0.";

impl<'g> Bert<'_, 'g> {
    /// Appends embeddings and encoder: the hidden states `[B, S, H]` after the last layer.
    pub(super) fn hidden_states(&self, inputs: &EncoderInputs<'g>) -> Tensor<'g> {
        let graph = inputs.input_ids.graph();
        let x = graph.scope("embeddings", || self.embeddings(inputs));
        graph.scope("encoder", || self.layers(x, self.layer_mask(inputs), 0..self.config.num_hidden_layers))
    }

    /// Appends embeddings and encoder: the hidden states `[B, N, H]` after the last layer at `positions` s32`[B, N]`. The last
    /// layer computes only them: other positions take part in it as keys and values.
    pub(super) fn hidden_states_at(&self, inputs: &EncoderInputs<'g>, positions: Tensor<'g>) -> Tensor<'g> {
        let graph = inputs.input_ids.graph();
        let x = graph.scope("embeddings", || self.embeddings(inputs));
        graph.scope("encoder", || {
            let last = self.config.num_hidden_layers - 1;
            let x = self.layers(x, self.layer_mask(inputs), 0..last);
            let mask = self.attention_bias(inputs);
            graph.scope(&format!("layer.{last}"), || {
                self.recomputed_if(self.recompute == Recompute::Layer, x, || {
                    let taken = |x: Tensor<'g>| {
                        at_positions(x, positions).reshape(&[&positions.dims()[..], &x.dims()[2..]].concat())
                    };
                    let mask = if inputs.packed.is_some() { taken(mask) } else { mask };
                    self.at(positions, inputs.dims().1).encoder_layer(taken(x), x, mask, last)
                })
            })
        })
    }

    /// Appends the layers of numbers `range`: x `[B, S, H]` → `[B, S, H]`.
    fn layers(&self, x: Tensor<'g>, mask: Tensor<'g>, range: Range<usize>) -> Tensor<'g> {
        if self.layers.are_looped(range.len()) {
            return self.layer_loop(x, mask, range.len());
        }
        range.fold(x, |x, layer| x.graph().scope(&format!("layer.{layer}"), || self.layer(x, mask, layer)))
    }

    /// Appends the first `count` layers as a loop: x `[B, S, H]` → `[B, S, H]`. Its body is layer 0, with the weights and random
    /// words of each layer in turn.
    fn layer_loop(&self, x: Tensor<'g>, mask: Tensor<'g>, count: usize) -> Tensor<'g> {
        let graph = x.graph();
        let mut kinds: Vec<&str> = self.weights.keys().filter_map(|name| name.strip_prefix(LAYER_0)).collect();
        kinds.sort_unstable();
        let weights = kinds.iter().map(|kind| {
            let of_layer = |layer| {
                let weight = self.weight(&format!("bert.encoder.layer.{layer}.{kind}"));
                weight.reshape(&[&[1], &weight.dims()[..]].concat())
            };
            let stacked = graph.concatenate(&(0..count).map(of_layer).collect::<Vec<_>>(), 0);
            // Matrices are operands of products only: the stack has the type in which these read it.
            if stacked.dims().len() == 3 { self.compute(stacked) } else { stacked }
        });
        let words = self.dropout.map(|dropout| dropout.of_layers(count));
        let inputs = ScanInputs {
            constants: [mask].into_iter().chain(self.dropout.and_then(|dropout| dropout.keys())).collect(),
            carried: vec![x],
            stacked: weights.chain(words.into_iter().flatten()).collect(),
        };
        let outputs = graph.scan("layers", count, &inputs, |ScanInputs { constants, carried, stacked }| {
            let (weights, words) = stacked.split_at(kinds.len());
            let weights = self.weights.keys().filter_map(|&name| {
                let kind = kinds.binary_search(&name.strip_prefix(LAYER_0)?).ok()?;
                Some((name, weights[kind]))
            });
            let dropout = <[Tensor; 2]>::try_from(words).ok();
            let layer = Bert {
                config: self.config,
                weights: weights.collect(),
                precision: self.precision,
                dropout: dropout.map(|words| Dropout::of_layer(words, constants.get(1).copied())),
                recompute: self.recompute,
                layers: self.layers,
                kernels: self.kernels,
                fixed_padding: self.fixed_padding,
            };
            let x = carried[0].graph().scope("layers", || layer.layer(carried[0], constants[0], 0));
            ScanOutputs { carried: vec![x], stacked: Vec::new() }
        });
        outputs.carried[0]
    }

    /// Appends a layer at all positions: x `[B, S, H]` → `[B, S, H]`.
    fn layer(&self, x: Tensor<'g>, mask: Tensor<'g>, layer: usize) -> Tensor<'g> {
        self.recomputed_if(self.recompute == Recompute::Layer, x, || self.encoder_layer(x, x, mask, layer))
    }

    /// Appends the mask of layers at all positions: the bias of the scores, or the numbers of the sequences s32`[B, S]` for fused
    /// attention in packed rows.
    fn layer_mask(&self, inputs: &EncoderInputs<'g>) -> Tensor<'g> {
        let by_number = self.kernels.attention.is_fused() && inputs.packed.is_some();
        if by_number { inputs.attention_mask } else { self.attention_bias(inputs) }
    }

    /// Appends the bias of the scores, 0 or [`MASKED`]: `[B, S]` by key, for padding; in packed rows `[B, S, S]` by query and
    /// key, for keys of other sequences, so that sequences of one row do not attend to each other.
    fn attention_bias(&self, inputs: &EncoderInputs<'g>) -> Tensor<'g> {
        let numbers = inputs.attention_mask;
        if inputs.packed.is_none() {
            return (1.0 - self.master(numbers)) * MASKED;
        }
        let (rows, length) = inputs.dims();
        let of = |dimension| numbers.broadcast(&[rows, length, length], &[0, dimension]);
        let other = of(1).ne(of(2));
        self.master(other) * MASKED
    }

    /// Appends a layer at the positions of the queries: queries `[B, N, H]`, x `[B, S, H]` → `[B, N, H]`. If it is computed at
    /// all positions, `queries` is `x`.
    fn encoder_layer(&self, queries: Tensor<'g>, x: Tensor<'g>, mask: Tensor<'g>, layer: usize) -> Tensor<'g> {
        let name = format!("bert.encoder.layer.{layer}");
        let graph = x.graph();
        let fused = self.kernels.layer_norm.is_fused() && queries.id() == x.id();
        let output = if fused { Self::fused_output } else { Self::output };
        let attended = graph.scope("attention", || {
            let context = self.self_attention(queries, x, mask, layer);
            output(self, queries, context, Site::AttentionOutput(layer), &format!("{name}.attention.output"))
        });
        graph.scope("feed_forward", || {
            let inner = self.gelu(self.linear(attended, &format!("{name}.intermediate.dense")));
            output(self, attended, inner, Site::Output(layer), &format!("{name}.output"))
        })
    }

    /// Appends LayerNorm(x + dropout(dense(inner))), the end of a sub-layer of input `x`; the sum has the master type.
    fn output(&self, x: Tensor<'g>, inner: Tensor<'g>, site: Site, name: &str) -> Tensor<'g> {
        let y = self.linear(inner, &format!("{name}.dense"));
        self.layer_norm(self.master(x) + self.master(self.dropped(y, site)), &format!("{name}.LayerNorm"))
    }

    /// Appends [`Bert::output`] with everything after the product as one operation: x `[B, S, H]` → `[B, S, H]`.
    fn fused_output(&self, x: Tensor<'g>, inner: Tensor<'g>, site: Site, name: &str) -> Tensor<'g> {
        let dims = x.dims();
        let probability = self.config.hidden_dropout_prob;
        let words = self.dropout.filter(|_| probability > 0.0).map(|dropout| dropout.hidden_words(site, &dims));
        let norm = FusedLayerNorm {
            dropout: if words.is_some() { probability } else { 0.0 },
            dtype: self.precision.compute(),
            ..FusedLayerNorm::of(self.config, dims[0], dims[1])
        };
        norm.apply(LayerNormInputs {
            x: self.compute(self.times_transposed(inner, self.weight(&format!("{name}.dense.weight")))),
            residual: x,
            bias: self.weight(&format!("{name}.dense.bias")),
            gamma: self.weight(&format!("{name}.LayerNorm.weight")),
            beta: self.weight(&format!("{name}.LayerNorm.bias")),
            words,
        })
    }

    /// Appends softmax(q·kᵀ/√D + mask)·v for each head: queries `[B, N, H]`, x `[B, S, H]`, mask `[B, S]` or `[B, N, S]` →
    /// `[B, N, H]`.
    fn self_attention(&self, queries: Tensor<'g>, x: Tensor<'g>, mask: Tensor<'g>, layer: usize) -> Tensor<'g> {
        if queries.id() == x.id() && self.kernels.attention.is_fused() {
            return self.fused_attention(x, mask, layer);
        }
        let [q, k, v] = if queries.id() == x.id() {
            self.heads(x, layer, ["query", "key", "value"])
        } else {
            let ([q], [k, v]) = (self.heads(queries, layer, ["query"]), self.heads(x, layer, ["key", "value"]));
            [q, k, v]
        };
        let size = self.config.head_size();
        let recompute = self.recompute == Recompute::Attention;
        let probs = self.recomputed_if(recompute, q, || {
            // [B, N, A, D] with [B, S, A, D] over D, for each row and head: [B, A, N, S]
            let scores = self.dot(q, k, over(&[0, 2], &[3], &[0, 2], &[3])) * (1.0 / (size as f64).sqrt());
            let keys: &[usize] = if mask.dims().len() == 2 { &[0, 3] } else { &[0, 2, 3] };
            let scores = scores + mask.broadcast_like(scores, keys);
            let probs = match self.kernels.attention {
                AttentionForm::Separate => rounded_softmax(scores, self.precision.compute()),
                _ => self.compute(softmax(scores)),
            };
            self.dropped(probs, Site::AttentionProbs(layer))
        });
        // [B, A, N, S] with [B, S, A, D] over the keys: [B, A, N, D]
        let context = self.compute(self.dot(probs, v, over(&[0, 1], &[3], &[0, 2], &[1])));
        context.transpose(&[0, 2, 1, 3]).reshape(&queries.dims())
    }

    /// Appends self-attention at all positions as one operation: x `[B, S, H]` → `[B, S, H]`; see [`Bert::layer_mask`].
    fn fused_attention(&self, x: Tensor<'g>, mask: Tensor<'g>, layer: usize) -> Tensor<'g> {
        let (rows, length) = (x.dims()[0], x.dims()[1]);
        let probability = self.config.attention_probs_dropout_prob;
        let words = self.dropout.filter(|_| probability > 0.0).map(|dropout| dropout.attention_words(layer, length));
        let attention = FusedAttention {
            rows,
            length,
            heads: self.config.num_attention_heads,
            size: self.config.head_size(),
            packed: mask.dtype() == DType::S32,
            dropout: if words.is_some() { probability } else { 0.0 },
            dtype: self.precision.compute(),
        };
        let qkv = self.projections(x, layer, ["query", "key", "value"]);
        attention.apply(AttentionInputs { qkv, mask, words }).reshape(&x.dims())
    }

    /// Appends projections of x `[B, S, H]` for all heads: `[B, S, A, D]` each.
    fn heads<const N: usize>(&self, x: Tensor<'g>, layer: usize, projections: [&str; N]) -> [Tensor<'g>; N] {
        if self.kernels.attention == AttentionForm::Separate {
            return projections.map(|projection| self.separate_heads(x, layer, projection));
        }
        let all = self.projections(x, layer, projections);
        let dims = all.dims();
        std::array::from_fn(|i| all.slice_in(2, i, i + 1).reshape(&[&dims[..2], &dims[3..]].concat()))
    }

    /// Appends a projection of x `[B, S, H]` for all heads, `[B, S, A, D]`, computed as `[A·D, B, S]`. With positions last, the products
    /// of attention fill the lanes of a TPU's vector registers, which 64 elements of a head do not, and need no transpose.
    fn separate_heads(&self, x: Tensor<'g>, layer: usize, projection: &str) -> Tensor<'g> {
        let columns = self.linear_transposed(x, &format!("bert.encoder.layer.{layer}.attention.self.{projection}"));
        let (heads, size) = (self.config.num_attention_heads, self.config.head_size());
        columns.reshape(&[heads, size, x.dims()[0], x.dims()[1]]).transpose(&[2, 3, 0, 1])
    }

    /// Appends projections of x `[B, S, H]` for all heads, as one product: `[B, S, N, A, D]`.
    fn projections<const N: usize>(&self, x: Tensor<'g>, layer: usize, projections: [&str; N]) -> Tensor<'g> {
        let names = projections.map(|name| format!("bert.encoder.layer.{layer}.attention.self.{name}"));
        let (rows, length) = (x.dims()[0], x.dims()[1]);
        let (heads, size) = (self.config.num_attention_heads, self.config.head_size());
        self.linears(x, &names).reshape(&[rows, length, N, heads, size])
    }
}
