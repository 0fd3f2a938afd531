//! Models that predict without a loss: [`MaskedLanguageModel`] fills masks, [`Encoder`] gives hidden states and embeddings of
//! texts.

mod encoder;
mod masked_language_model;

pub use encoder::{Encoder, EncoderOutput};
pub use masked_language_model::MaskedLanguageModel;

use super::EncoderInputs;
use crate::batch::prediction::PredictionTensors;
use crate::graph::Tensor;

impl<'g> PredictionTensors<Tensor<'g>> {
    /// Returns the tensors that the encoder reads.
    fn encoder_inputs(&self) -> EncoderInputs<'g> {
        let PredictionTensors { input_ids, attention_mask, token_type_ids, .. } = *self;
        EncoderInputs { input_ids, attention_mask, token_type_ids, packed: None }
    }
}
