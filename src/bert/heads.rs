//! The heads of BERT: pooler, masked language modelling, next-sentence prediction, classifier, answer spans. A head maps the
//! hidden states `[B, S, H]` of the encoder to logits; losses are in `loss.rs`.

use super::dropout::Site;
use super::inputs::EncoderInputs;
use super::layers::Bert;
use super::positions::at_positions;
use crate::graph::Tensor;
use crate::shape::DType;

/// Added to the logits of padded vocabulary rows, which gives them a probability of exactly zero.
const ABSENT: f64 = -1e9;

impl<'g> Bert<'_, 'g> {
    /// Appends the hidden states of the first token of each row: x `[B, S, H]` → `[B, H]`.
    pub(super) fn first_token(&self, x: Tensor<'g>) -> Tensor<'g> {
        x.slice_in(1, 0, 1).reshape(&[x.dims()[0], self.config.hidden_size])
    }

    /// Appends the hidden states of the first token of each sequence: `[B, H]`, in packed rows `[B·K, H]`.
    pub(super) fn first_tokens(&self, x: Tensor<'g>, inputs: &EncoderInputs<'g>) -> Tensor<'g> {
        match inputs.packed {
            None => self.first_token(x),
            Some(packed) => at_positions(x, packed.cls_positions),
        }
    }

    /// Appends tanh(dense(first)): the hidden states of first tokens `[…, H]` → `[…, H]`.
    pub(super) fn pooler(&self, first: Tensor<'g>) -> Tensor<'g> {
        self.compute(self.linear_wide(first, "bert.pooler.dense").tanh())
    }

    /// Appends decoder(LayerNorm(gelu(dense(x)))): the hidden states of masked positions `[B·P, H]` → `[B·P, V]`.
    ///
    /// Source: google-research/bert `run_pretraining.py`, get_masked_lm_output.
    pub(super) fn mlm_head(&self, x: Tensor<'g>) -> Tensor<'g> {
        let x = self.gelu(self.linear(x, "cls.predictions.transform.dense"));
        let x = self.layer_norm(x, "cls.predictions.transform.LayerNorm");
        let logits = self.times_transposed(x, self.weight("bert.embeddings.word_embeddings.weight"));
        logits + self.decoder_bias().broadcast_like(logits, &[1])
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

    /// Appends dense(pooler(first)): the hidden states of first tokens `[…, H]` → `[…, 2]`.
    pub(super) fn nsp_head(&self, first: Tensor<'g>) -> Tensor<'g> {
        self.linear_wide(self.pooler(first), "cls.seq_relationship")
    }

    /// Appends dense(dropout(x)): `[B, …, H]` → `[B, …, C]`.
    ///
    /// Source: transformers' `BertForSequenceClassification` and `BertForTokenClassification`.
    pub(super) fn classifier(&self, x: Tensor<'g>) -> Tensor<'g> {
        let x = self.dropped(x, Site::Classifier(self.config.num_hidden_layers));
        self.linear_wide(x, "classifier")
    }

    /// Appends the logits of the first and of the last token of an answer: x `[B, S, H]` → `[B, S]` each.
    ///
    /// Source: google-research/bert `run_squad.py`, create_model.
    pub(super) fn span_head(&self, x: Tensor<'g>) -> [Tensor<'g>; 2] {
        let logits = self.linear_wide(x, "qa_outputs");
        let dims = logits.dims();
        [0, 1].map(|end| logits.slice_in(2, end, end + 1).reshape(&dims[..2]))
    }
}
