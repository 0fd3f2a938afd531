//! The inputs of the encoder: the part of a batch that does not depend on the training objective.

use super::BertConfig;
use super::dropout::Dropout;
use crate::batch::pretraining::PackedTensors;
use crate::graph::Tensor;
use crate::task::DropoutKey;

/// The tensors that the encoder reads, for plain or packed rows.
#[derive(Clone, Copy)]
pub struct EncoderInputs<'g> {
    /// s32\[B,S\]: tokens, then padding.
    pub input_ids: Tensor<'g>,
    /// s32\[B,S\]: 1 for tokens, 0 for padding; in packed rows the number of the token's sequence in its row, from 1.
    pub attention_mask: Tensor<'g>,
    /// s32\[B,S\]: the segment of each token.
    pub token_type_ids: Tensor<'g>,
    /// The tensors that only packed rows have.
    pub packed: Option<PackedTensors<Tensor<'g>>>,
}

impl<'g> EncoderInputs<'g> {
    /// Returns (B, S): the rows of the micro-batch and the length of a row.
    pub fn dims(&self) -> (usize, usize) {
        let dims = self.input_ids.dims();
        (dims[0], dims[1])
    }

    /// Appends the random words of these rows at the first `sites` sites of a model of width `hidden_size`.
    pub fn dropout(&self, key: DropoutKey<'g>, sites: usize, hidden_size: usize) -> Dropout<'g> {
        match self.packed {
            None => Dropout::new(key, self.dims().0, sites),
            Some(packed) => Dropout::packed(key, self.attention_mask, packed, sites, hidden_size),
        }
    }
}

/// Checks that `rows` rows of `sequence_length` positions fit the model and the types of indices.
///
/// # Errors
/// If the sequence is longer than the position embeddings, or there are too many rows.
pub(super) fn validate(model: &BertConfig, rows: usize, sequence_length: usize) -> anyhow::Result<()> {
    model.validate_sequence_length(sequence_length)?;
    // Flat token positions and row numbers are s32.
    anyhow::ensure!(
        rows.checked_mul(sequence_length).is_some_and(|positions| i32::try_from(positions).is_ok()),
        "rows × sequence_length requires less than 2^31, got {rows} × {sequence_length}"
    );
    Ok(())
}
