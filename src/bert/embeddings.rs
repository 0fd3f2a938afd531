//! The embeddings of BERT: from token ids to the inputs of the encoder.

use super::dropout::Site;
use super::inputs::EncoderInputs;
use super::layers::Bert;
use crate::graph::Tensor;
use crate::shape::Shape;

impl<'g> Bert<'_, 'g> {
    /// Appends LayerNorm(word + position + type), then dropout: `[B, S, H]`.
    ///
    /// Source: google-research/bert `modeling.py`, embedding_lookup and embedding_postprocessor.
    pub(super) fn embeddings(&self, inputs: &EncoderInputs<'g>) -> Tensor<'g> {
        let EncoderInputs { input_ids, token_type_ids, packed, .. } = *inputs;
        let ((rows, length), hidden) = (inputs.dims(), self.config.hidden_size);
        let tokens = rows * length;
        let ids = input_ids.reshape(&[tokens]);
        let words = self.weight("bert.embeddings.word_embeddings.weight").take_rows(ids);
        let words = if self.fixed_padding { self.without_gradient_of_padding(words, ids) } else { words };

        let positions = self.weight("bert.embeddings.position_embeddings.weight").slice_in(0, 0, length);
        let positions = match packed {
            // A row as one vector: its gradient is a sum over the rows of a matrix. As a sum over the first of three
            // dimensions, it would make XLA:GPU lay out the activations of all layers for it, with rows innermost.
            None => {
                let row = positions.reshape(&[length * hidden]);
                row.broadcast(&[rows, length * hidden], &[1]).reshape(&[tokens, hidden])
            }
            Some(packed) => positions.take_rows(packed.position_ids.reshape(&[tokens])),
        };

        // A product with one-hot rows: the table is tiny, and the gradient is a product too, instead of a scatter in which
        // all tokens update the same two rows.
        let types = token_type_ids.reshape(&[tokens]);
        let class = types.graph().iota(Shape::new(types.dtype(), [tokens, self.config.type_vocab_size]), 1);
        let one_hot = class.eq(types.broadcast_like(class, &[0])).convert(self.precision.master());
        let table = self.weight("bert.embeddings.token_type_embeddings.weight");
        let types = one_hot.matmul(table, self.precision.master());

        let x = self.layer_norm(words + positions + types, "bert.embeddings.LayerNorm");
        self.dropped(x.reshape(&[rows, length, hidden]), Site::Embeddings)
    }

    /// Stops the gradient of the rows of x `[N, H]` whose ids s32`[N]` are padding.
    fn without_gradient_of_padding(&self, x: Tensor<'g>, ids: Tensor<'g>) -> Tensor<'g> {
        let is_padding = ids.eq(ids.filled(self.config.pad_token_id as f64)).broadcast_like(x, &[0]);
        is_padding.select(x.stop_gradient(), x)
    }
}
