//! Predictions of masked tokens: transformers' `BertForMaskedLM` at given positions.

use crate::batch::BatchSpec;
use crate::batch::prediction::{PredictionForm, PredictionTensors};
use crate::bert::params::Specs;
use crate::bert::positions::at_positions;
use crate::bert::{Bert, BertConfig, Recompute, inputs};
use crate::graph::Tensor;
use crate::task::{Model, ParamSpec, Precision};

/// The tokens at masked positions. The model has neither pooler nor next-sentence head.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskedLanguageModel {
    /// The configuration of the model.
    pub model: BertConfig,
    /// S, the positions of a row.
    pub sequence_length: usize,
    /// P, the masked positions of a row.
    pub masked_positions: usize,
}

impl MaskedLanguageModel {
    fn form(&self) -> PredictionForm {
        PredictionForm { sequence_length: self.sequence_length, masked_positions: Some(self.masked_positions) }
    }
}

impl Model for MaskedLanguageModel {
    fn validate(&self, rows: usize) -> anyhow::Result<()> {
        self.model.validate()?;
        self.model.validate_batch(self.sequence_length, self.masked_positions)?;
        inputs::validate(&self.model, rows, self.sequence_length)
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        Specs::encoder(&self.model).mlm_head().list
    }

    fn batch(&self) -> BatchSpec {
        self.form().spec()
    }

    /// `logits` \[B,P,V\], without the padded vocabulary.
    fn outputs<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
    ) -> Vec<(&'static str, Tensor<'g>)> {
        let params = self.parameters();
        let bert = Bert::new(&self.model, &params, weights, precision, None, Recompute::default());
        let batch = PredictionTensors::from_vec(batch.to_vec());
        let positions = batch.masked_lm_positions.expect("the batch of this model has masked positions");
        let x = bert.hidden_states(&batch.encoder_inputs());
        let logits = bert.mlm_head(at_positions(x, positions));
        let logits = logits.reshape(&[&positions.dims()[..], &logits.dims()[1..]].concat());
        vec![("logits", logits.slice_in(2, 0, self.model.vocab_size))]
    }
}
