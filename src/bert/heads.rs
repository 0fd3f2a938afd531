//! The two pretraining heads and their losses: masked language modelling on the masked positions, and next-sentence
//! prediction.
//!
//! Losses are *sums* over the micro-batch, never means: the denominators are those of the global batch.

use super::layers::{Bert, cross_entropy, logit_of};
use super::pretraining::BatchTensors;
use crate::graph::Tensor;
use crate::shape::DType;

/// Added to the logits of padded vocabulary rows, which gives them a probability of exactly zero.
const ABSENT: f64 = -1e9;

/// Sums over a micro-batch, scalars of the master type.
#[derive(Clone, Copy)]
pub struct Sums<'g> {
    /// Σ w·nll over masked positions.
    pub mlm_nll: Tensor<'g>,
    /// Σ w over masked positions whose label has the highest logit (a tie counts).
    pub mlm_correct: Tensor<'g>,
    /// Σ nll over sequences.
    pub nsp_nll: Tensor<'g>,
    /// The number of sequences whose label has the higher logit.
    pub nsp_correct: Tensor<'g>,
}

/// The outputs of the model for a micro-batch.
#[derive(Clone, Copy)]
pub struct Outputs<'g> {
    /// `[B, S, H]`
    pub sequence_output: Tensor<'g>,
    /// `[B, P, V]`, with the padded vocabulary.
    pub masked_lm_logits: Tensor<'g>,
    /// `[B, 2]`, in packed rows `[B, K, 2]`
    pub seq_relationship_logits: Tensor<'g>,
}

impl<'g> Bert<'_, 'g> {
    /// Appends the forward pass; outputs have the master type.
    pub fn forward(&self, batch: &BatchTensors<'g>) -> Outputs<'g> {
        let graph = batch.input_ids.graph();
        let (rows, hidden) = (batch.input_ids.dims()[0], self.config.hidden_size);
        let x = graph.scope("embeddings", || self.embeddings(batch));
        let x = graph.scope("encoder", || self.encoder(x, batch));
        let masked_lm_logits = graph.scope("mlm", || self.mlm_head(x, batch.masked_lm_positions));
        let first = match batch.packed {
            None => x.slice_in(1, 0, 1).reshape(&[rows, hidden]),
            Some(packed) => at_positions(x, packed.cls_positions),
        };
        let logits = graph.scope("nsp", || self.nsp_head(first));
        let seq_relationship_logits = match batch.packed {
            None => logits,
            Some(packed) => logits.reshape(&[&packed.cls_positions.dims()[..], &[2]].concat()),
        };
        Outputs { sequence_output: self.master(x), masked_lm_logits, seq_relationship_logits }
    }

    /// Appends both losses and both counts of correct predictions, summed over the micro-batch.
    pub fn sums(&self, batch: &BatchTensors<'g>) -> Sums<'g> {
        let outputs = self.forward(batch);
        let graph = batch.input_ids.graph();
        graph.scope("loss", || {
            let (mlm_nll, mlm_correct) =
                self.weighted_sums(outputs.masked_lm_logits, batch.masked_lm_ids, self.master(batch.masked_lm_weights));
            let (nsp_nll, nsp_correct) = self.weighted_sums(
                outputs.seq_relationship_logits,
                batch.next_sentence_labels,
                batch.sequence_weights(self.precision.master()),
            );
            Sums { mlm_nll, mlm_correct, nsp_nll, nsp_correct }
        })
    }

    /// Returns (Σ w·nll, Σ w·\[the label has the highest logit\]) for logits `[…, C]`, labels and weights `[…]`.
    fn weighted_sums(&self, logits: Tensor<'g>, labels: Tensor<'g>, weights: Tensor<'g>) -> (Tensor<'g>, Tensor<'g>) {
        let classes = logits.dims()[logits.dims().len() - 1];
        let n = labels.shape().elements();
        let (logits, labels, weights) = (logits.reshape(&[n, classes]), labels.reshape(&[n]), weights.reshape(&[n]));
        let nll = cross_entropy(logits, labels);
        let right = logit_of(logits, labels).ge(logits.reduce_max(&[1])).convert(weights.dtype());
        ((weights * nll).sum(), (weights * right).sum())
    }

    /// Appends decoder(LayerNorm(gelu(dense(x at positions)))): x `[B, S, H]`, positions s32`[B, P]` → `[B, P, V]`.
    ///
    /// Source: google-research/bert `run_pretraining.py`, get_masked_lm_output.
    fn mlm_head(&self, x: Tensor<'g>, positions: Tensor<'g>) -> Tensor<'g> {
        let dims = positions.dims();
        let x = self.gelu(self.linear(at_positions(x, positions), "cls.predictions.transform.dense"));
        let x = self.layer_norm(x, "cls.predictions.transform.LayerNorm");
        let logits = self.times_transposed(x, self.weight("bert.embeddings.word_embeddings.weight"));
        let logits = logits + self.decoder_bias().broadcast_like(logits, &[1]);
        logits.reshape(&[dims[0], dims[1], self.config.padded_vocab_size()])
    }

    /// Appends the bias of the decoder, with [`ABSENT`] in the padded rows.
    fn decoder_bias(&self) -> Tensor<'g> {
        let bias = self.weight("cls.predictions.bias");
        if self.config.padded_vocab_size() == self.config.vocab_size {
            return bias;
        }
        let row = bias.graph().iota(bias.shape().with_dtype(DType::S32), 0);
        row.lt(row.filled(self.config.vocab_size as f64)).select(bias, bias.filled(ABSENT))
    }

    /// Appends dense(tanh(pooler(first))): the activations of the first token `[…, H]` → `[…, 2]`.
    fn nsp_head(&self, first: Tensor<'g>) -> Tensor<'g> {
        let pooled = self.compute(self.linear_wide(first, "bert.pooler.dense").tanh());
        self.linear_wide(pooled, "cls.seq_relationship")
    }
}

/// Appends the activations at `positions` s32`[B, N]` of their rows: x `[B, S, H]` → `[B·N, H]`.
fn at_positions<'g>(x: Tensor<'g>, positions: Tensor<'g>) -> Tensor<'g> {
    let (rows, length, hidden) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    let row_starts = x.graph().iota(positions.shape(), 0) * length as f64;
    let x = x.reshape(&[rows * length, hidden]);
    x.take_rows((positions + row_starts).reshape(&[positions.shape().elements()]))
}
