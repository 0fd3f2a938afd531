//! The encoder: self-attention and feed-forward layers, each followed by LayerNorm(input + dropout(output)).
//!
//! Source: google-research/bert `modeling.py`, transformer_model and attention_layer.

use super::dropout::Site;
use super::layers::{Bert, Recompute, softmax};
use crate::graph::{DotDimensions, Tensor};

/// What is added to the scores of padding: far below any score, and small enough that scores keep their digits beside it.
const MASKED: f64 = -10000.0;

impl<'g> Bert<'_, 'g> {
    /// All layers: x `[B, S, H]` and `attention_mask` s32`[B, S]` (1 = token, 0 = padding) → `[B, S, H]`.
    pub(super) fn encoder(&self, x: Tensor<'g>, attention_mask: Tensor<'g>) -> Tensor<'g> {
        let mask = self.master(attention_mask);
        let mask = (1.0 - mask) * MASKED;
        (0..self.config.num_hidden_layers).fold(x, |x, layer| {
            x.graph().scope(&format!("layer.{layer}"), || {
                self.recomputed_if(self.recompute == Recompute::Layer, x, || self.encoder_layer(x, mask, layer))
            })
        })
    }

    fn encoder_layer(&self, x: Tensor<'g>, mask: Tensor<'g>, layer: usize) -> Tensor<'g> {
        let name = format!("bert.encoder.layer.{layer}");
        let graph = x.graph();
        let attended = graph.scope("attention", || {
            let context = self.self_attention(x, mask, layer);
            let y = self.linear(context, &format!("{name}.attention.output.dense"));
            self.add_and_norm(x, y, Site::AttentionOutput(layer), &format!("{name}.attention.output.LayerNorm"))
        });
        graph.scope("feed_forward", || {
            let inner = self.gelu(self.linear(attended, &format!("{name}.intermediate.dense")));
            let y = self.linear(inner, &format!("{name}.output.dense"));
            self.add_and_norm(attended, y, Site::Output(layer), &format!("{name}.output.LayerNorm"))
        })
    }

    /// LayerNorm(x + dropout(y)), the sum in the master type.
    fn add_and_norm(&self, x: Tensor<'g>, y: Tensor<'g>, site: Site, name: &str) -> Tensor<'g> {
        self.layer_norm(self.master(x) + self.master(self.dropped(y, site)), name)
    }

    /// softmax(q·kᵀ/√D + mask)·v for each head: x `[B, S, H]`, mask `[B, S]` → `[B, S, H]`.
    fn self_attention(&self, x: Tensor<'g>, mask: Tensor<'g>, layer: usize) -> Tensor<'g> {
        let (rows, length) = (mask.dims()[0], mask.dims()[1]);
        let (heads, size) = (self.config.num_attention_heads, self.config.head_size());
        let project = |projection: &str| {
            let y = self.linear(x, &format!("bert.encoder.layer.{layer}.attention.self.{projection}"));
            y.reshape(&[rows, length, heads, size])
        };
        let (q, k, v) = (project("query"), project("key"), project("value"));
        let recompute = self.recompute == Recompute::Attention;
        let probs = self.recomputed_if(recompute, q, || {
            // [B, S, A, D] with [B, S, A, D] over D, for each row and head: [B, A, S, S]
            let scores = self.dot(q, k, over(&[0, 2], &[3], &[0, 2], &[3])) * (1.0 / (size as f64).sqrt());
            let probs = softmax(scores + mask.broadcast_like(scores, &[0, 3]));
            self.dropped(self.compute(probs), Site::AttentionProbs(layer))
        });
        // [B, A, S, S] with [B, S, A, D] over the keys: [B, A, S, D]
        let context = self.compute(self.dot(probs, v, over(&[0, 1], &[3], &[0, 2], &[1])));
        context.transpose(&[0, 2, 1, 3]).reshape(&[rows, length, heads * size])
    }
}

fn over(lhs_batch: &[usize], lhs: &[usize], rhs_batch: &[usize], rhs: &[usize]) -> DotDimensions {
    DotDimensions {
        lhs_batch: lhs_batch.to_vec(),
        rhs_batch: rhs_batch.to_vec(),
        lhs_contracting: lhs.to_vec(),
        rhs_contracting: rhs.to_vec(),
    }
}
