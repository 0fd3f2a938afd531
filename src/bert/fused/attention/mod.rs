//! Self-attention as one operation: a composite whose definition and derivative are written here as graphs, and in `kernels.rs` as
//! Triton kernels, which keep nothing of size S² in memory (FlashAttention, arXiv 2205.14135 and 2307.08691).
//!
//! The derivative reads the logarithm of each query's sum of exponentials, and computes the scores again. Dropout has the same masks
//! as elsewhere, computed from the same counters.

mod example;
mod kernels;
mod softmax;

use std::sync::Arc;

pub(in crate::bert) use softmax::rounded_softmax;

use super::FusedOperation;
use crate::bert::BertConfig;
use crate::bert::dropout::{AttentionWords, Dropout, Site};
use crate::graph::{Composite, Computation, DotDimensions, Graph, Tensor};
use crate::shape::{DType, HostTensor, Shape};
use crate::triton::Launch;

/// Added to the attention scores of padding: far below any score, and small enough for scores to keep their digits.
pub(in crate::bert) const MASKED: f64 = -10000.0;

/// The shape of one fused self-attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FusedAttention {
    /// Rows of the micro-batch, B.
    pub rows: usize,
    /// Positions of a row, S.
    pub length: usize,
    /// Heads, A.
    pub heads: usize,
    /// Size of a head, D.
    pub size: usize,
    /// Whether the mask is by sequence, s32`[B, S]` numbers of sequences that attend to themselves, instead of f32`[B, S]`, which
    /// is added to the scores of each key.
    pub packed: bool,
    /// The probability with which an attention probability is dropped.
    pub dropout: f64,
    /// The type of queries, keys, values and contexts. Kernels require bf16.
    pub dtype: DType,
}

/// The operands of a fused self-attention.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'g> {
    /// Queries, keys and values `[B, S, 3, A, D]`.
    pub qkv: Tensor<'g>,
    /// See [`FusedAttention::packed`].
    pub mask: Tensor<'g>,
    /// The random words of dropout, if there is any.
    pub words: Option<AttentionWords<'g>>,
}

impl<'g> AttentionInputs<'g> {
    fn from_parameters(all: &[Tensor<'g>]) -> Self {
        let words = match all[2..] {
            [first, second, keys] => Some(AttentionWords { first, second, keys }),
            _ => None,
        };
        AttentionInputs { qkv: all[0], mask: all[1], words }
    }

    fn all(self) -> Vec<Tensor<'g>> {
        let words = self.words.map(|words| [words.first, words.second, words.keys]);
        [self.qkv, self.mask].into_iter().chain(words.into_iter().flatten()).collect()
    }
}

impl FusedAttention {
    /// Returns the attention of a layer of `model` in rows of `length` that are not packed, with dropout.
    pub fn of(model: &BertConfig, rows: usize, length: usize) -> FusedAttention {
        FusedAttention {
            rows,
            length,
            heads: model.num_attention_heads,
            size: model.head_size(),
            packed: false,
            dropout: model.attention_probs_dropout_prob,
            dtype: DType::BF16,
        }
    }

    /// Returns the requirement that the kernels have on a shape and that this one does not meet; none if they compute it.
    pub fn refusal(&self) -> Option<String> {
        kernels::refusal(self)
    }

    /// Appends the attention: softmax(q·kᵀ/√D + mask)·v for each head, `[B, S, A, D]`.
    pub fn apply<'g>(&self, inputs: AttentionInputs<'g>) -> Tensor<'g> {
        inputs.qkv.graph().composite(&self.composite(), &inputs.all())[0]
    }

    /// Returns the kernels of the definition and of its derivative, if they compute this shape.
    pub fn kernels(&self) -> Option<[Launch; 2]> {
        let suits = self.dtype == DType::BF16 && self.refusal().is_none();
        let grid = kernels::grid(self);
        suits.then(|| {
            // The registers of the backward kernel have no room for a second stage.
            [(kernels::forward(self), 2), (kernels::backward(self), 1)].map(|(program, stages)| Launch {
                program,
                grid,
                stages,
            })
        })
    }

    /// Returns (qkv, mask, words) → (context `[B, S, A, D]`, log Σ exp(scores) f32`[B, A, S]`).
    fn definition(&self) -> Computation {
        let graph = Graph::new("attention");
        let inputs = AttentionInputs::from_parameters(&self.parameters(&graph));
        let scores = self.scores(inputs);
        let kept: [usize; 3] = [0, 1, 2];
        let largest = scores.reduce_max(&[3]);
        let exponentials = (scores - largest.broadcast_like(scores, &kept)).exp();
        let sums = exponentials.reduce_sum(&[3]);
        let probs = exponentials / sums.broadcast_like(scores, &kept);
        let context = self.values(self.dropped(probs, inputs), inputs);
        graph.finish(&[context.convert(self.dtype), largest + sums.log()])
    }

    /// Returns (qkv, mask, words, context, log-sum-exp, cotangent of the context) → cotangent of qkv.
    ///
    /// ```text
    /// p = exp(scores − lse);   p′, dp from p, do·vᵀ by dropout;   δ = Σ_d do · context  (= Σ_k p · dp)
    /// dv = p′ᵀ·do;   ds = p · (dp − δ) / √D;   dq = ds·k;   dk = dsᵀ·q
    /// ```
    fn derivative(&self) -> Computation {
        let graph = Graph::new("attention.gradients");
        let inputs = AttentionInputs::from_parameters(&self.parameters(&graph));
        let context = graph.parameter("context", self.context_shape());
        let lse = graph.parameter("lse", self.lse_shape());
        let cotangent = graph.parameter("cotangent", self.context_shape());
        let sum_type = self.sum_type();

        let scores = self.scores(inputs);
        let probs = (scores - lse.broadcast_like(scores, &[0, 1, 2])).exp();
        // [B, S, A, D] with [B, S, A, D] over D: [B, A, S, S]
        let of_probs = cotangent.dot_general(self.part(inputs, 2), over(&[0, 2], &[3], &[0, 2], &[3]), sum_type);
        let of_probs = self.dropped(of_probs, inputs);
        let delta = (cotangent.convert(sum_type) * context.convert(sum_type)).reduce_sum(&[3]).transpose(&[0, 2, 1]);
        let scale = 1.0 / (self.size as f64).sqrt();
        let of_scores = (probs * (of_probs - delta.broadcast_like(probs, &[0, 1, 2])) * scale).convert(self.dtype);

        let dropped = self.dropped(probs, inputs).convert(self.dtype);
        let (over_keys, over_queries) = (over(&[0, 1], &[3], &[0, 2], &[1]), over(&[0, 1], &[2], &[0, 2], &[1]));
        let cotangents = [
            of_scores.dot_general(self.part(inputs, 1), over_keys, sum_type),
            of_scores.dot_general(self.part(inputs, 0), over_queries.clone(), sum_type),
            dropped.dot_general(cotangent, over_queries, sum_type),
        ];
        // [B, A, S, D] → [B, S, 1, A, D]
        let of_parts = cotangents.map(|of_part| {
            let of_part = of_part.transpose(&[0, 2, 1, 3]).convert(self.dtype);
            of_part.reshape(&[self.rows, self.length, 1, self.heads, self.size])
        });
        graph.finish(&[graph.concatenate(&of_parts, 2)])
    }

    /// Appends the parameters of the definition.
    fn parameters<'g>(&self, graph: &'g Graph) -> Vec<Tensor<'g>> {
        let by_position = |dtype| Shape::new(dtype, [self.rows, self.length]);
        let mut parameters = vec![
            graph.parameter("qkv", self.qkv_shape()),
            graph.parameter("mask", by_position(if self.packed { DType::S32 } else { self.sum_type() })),
        ];
        if self.dropout > 0.0 {
            parameters.push(graph.parameter("first_words", by_position(DType::U32)));
            parameters.push(graph.parameter("second_words", by_position(DType::U32)));
            parameters.push(graph.parameter("keys", by_position(DType::S32)));
        }
        parameters
    }

    /// Returns the type of scores and sums: f32, or wider if the activations are.
    fn sum_type(&self) -> DType {
        if self.dtype == DType::F64 { DType::F64 } else { DType::F32 }
    }

    fn qkv_shape(&self) -> Shape {
        Shape::new(self.dtype, [self.rows, self.length, 3, self.heads, self.size])
    }

    fn context_shape(&self) -> Shape {
        Shape::new(self.dtype, [self.rows, self.length, self.heads, self.size])
    }

    fn lse_shape(&self) -> Shape {
        Shape::new(self.sum_type(), [self.rows, self.heads, self.length])
    }

    /// Appends the queries, keys or values (0, 1, 2): `[B, S, A, D]`.
    fn part<'g>(&self, inputs: AttentionInputs<'g>, part: usize) -> Tensor<'g> {
        inputs.qkv.slice_in(2, part, part + 1).reshape(&self.context_shape().dims)
    }

    /// Appends the masked scores `[B, A, S, S]`.
    fn scores<'g>(&self, inputs: AttentionInputs<'g>) -> Tensor<'g> {
        let (q, k) = (self.part(inputs, 0), self.part(inputs, 1));
        let scores = q.dot_general(k, over(&[0, 2], &[3], &[0, 2], &[3]), self.sum_type());
        let scores = scores * (1.0 / (self.size as f64).sqrt());
        let bias = if self.packed {
            let of = |dimension| inputs.mask.broadcast_like(scores, &[0, dimension]);
            of(2).ne(of(3)).convert(self.sum_type()) * MASKED
        } else {
            inputs.mask.broadcast_like(scores, &[0, 3])
        };
        scores + bias
    }

    /// Appends dropout of `x` `[B, A, S, S]`.
    fn dropped<'g>(&self, x: Tensor<'g>, inputs: AttentionInputs<'g>) -> Tensor<'g> {
        let site = Site::AttentionProbs(0);
        inputs.words.map_or(x, |words| Dropout::of_attention(words).apply(x, site, self.dropout))
    }

    /// Appends the sums of values by the probabilities `[B, A, S, S]`: `[B, S, A, D]`.
    fn values<'g>(&self, probs: Tensor<'g>, inputs: AttentionInputs<'g>) -> Tensor<'g> {
        let values = self.part(inputs, 2);
        let sums = probs.convert(self.dtype).dot_general(values, over(&[0, 1], &[3], &[0, 2], &[1]), self.sum_type());
        sums.transpose(&[0, 2, 1, 3])
    }
}

impl FusedOperation for FusedAttention {
    fn name(&self) -> String {
        format!("attention {} {}", if self.packed { "packed" } else { "plain" }, self.length)
    }

    fn composed(&self) -> Composite {
        let [definition, derivative] = [self.definition(), self.derivative()].map(Arc::new);
        let derivative = Composite { definition: derivative, residuals: 0, derivative: None, kernel: None };
        Composite { definition, residuals: 1, derivative: Some(Arc::new(derivative)), kernel: None }
    }

    fn composite(&self) -> Composite {
        let composed = self.composed();
        let Some([forward, backward]) = self.kernels() else { return composed };
        let derivative = composed
            .derivative
            .as_ref()
            .map(|derivative| Arc::new(Composite { kernel: Some(backward.custom_call()), ..(**derivative).clone() }));
        Composite { derivative, kernel: Some(forward.custom_call()), ..composed }
    }

    fn result(&self) -> &'static str {
        "context"
    }

    fn differentiable(&self) -> &'static [&'static str] {
        &["query, key, value"]
    }

    fn example(&self, seed: u64) -> Vec<HostTensor> {
        example::operands(self, seed)
    }

    fn example_cotangent(&self, seed: u64) -> HostTensor {
        example::cotangent(self, seed)
    }
}

/// Returns the dimensions of a dot.
pub(in crate::bert) fn over(lhs_batch: &[usize], lhs: &[usize], rhs_batch: &[usize], rhs: &[usize]) -> DotDimensions {
    DotDimensions {
        lhs_batch: lhs_batch.to_vec(),
        rhs_batch: rhs_batch.to_vec(),
        lhs_contracting: lhs.to_vec(),
        rhs_contracting: rhs.to_vec(),
    }
}

#[cfg(test)]
mod tests;
