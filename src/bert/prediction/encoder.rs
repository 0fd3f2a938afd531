//! Hidden states and embeddings of texts: transformers' `BertModel`, and the pooling of sentence-transformers.

use crate::batch::BatchSpec;
use crate::batch::prediction::{PredictionForm, PredictionTensors};
use crate::bert::params::Specs;
use crate::bert::{Bert, BertConfig, EncoderInputs, Recompute, inputs};
use crate::graph::Tensor;
use crate::task::{Model, ParamSpec, Precision};

/// The hidden states of padding in a maximum.
const ABSENT: f64 = -1e9;

/// The encoder without heads. Only the requested outputs are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    /// The configuration of the model.
    pub model: BertConfig,
    /// S, the positions of a row.
    pub sequence_length: usize,
    /// The outputs, in order. The model has a pooler if [`EncoderOutput::PoolerOutput`] is one of them.
    pub outputs: Vec<EncoderOutput>,
}

/// An output of [`Encoder`], computed from the hidden states x after the last layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncoderOutput {
    /// x: `[B, S, H]`.
    LastHiddenState,
    /// tanh(dense(x at the first token)): `[B, H]`.
    PoolerOutput,
    /// x at the first token: `[B, H]`.
    Cls,
    /// The mean of x over the tokens of a row: `[B, H]`; zeros for a row without tokens.
    Mean,
    /// The maximum of x over the tokens of a row: `[B, H]`.
    Max,
}

impl EncoderOutput {
    /// Returns the name of the output: those of transformers, and `cls`, `mean` and `max`.
    pub const fn name(self) -> &'static str {
        match self {
            EncoderOutput::LastHiddenState => "last_hidden_state",
            EncoderOutput::PoolerOutput => "pooler_output",
            EncoderOutput::Cls => "cls",
            EncoderOutput::Mean => "mean",
            EncoderOutput::Max => "max",
        }
    }

    /// Appends the output in the master type: x `[B, S, H]`.
    fn of<'g>(self, bert: &Bert<'_, 'g>, x: Tensor<'g>, inputs: &EncoderInputs<'g>) -> Tensor<'g> {
        // s32[B,S] → [B,S,H]
        let by_position = |tensor: Tensor<'g>| tensor.broadcast(&x.dims(), &[0, 1]);
        match self {
            EncoderOutput::LastHiddenState => bert.master(x),
            EncoderOutput::PoolerOutput => bert.master(bert.pooler(bert.first_token(x))),
            EncoderOutput::Cls => bert.master(bert.first_token(x)),
            EncoderOutput::Mean => {
                let mask = bert.master(inputs.attention_mask);
                let sum = (bert.master(x) * by_position(mask)).reduce_sum(&[1]);
                let tokens = mask.reduce_sum(&[1]);
                sum / tokens.maximum(tokens.filled(1.0)).broadcast_like(sum, &[0])
            }
            EncoderOutput::Max => {
                let (x, mask) = (bert.master(x), by_position(inputs.attention_mask));
                mask.gt(mask.filled(0.0)).select(x, x.filled(ABSENT)).reduce_max(&[1])
            }
        }
    }
}

impl Model for Encoder {
    fn validate(&self, rows: usize) -> anyhow::Result<()> {
        self.model.validate()?;
        inputs::validate(&self.model, rows, self.sequence_length)
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        let encoder = Specs::encoder(&self.model);
        let has_pooler = self.outputs.contains(&EncoderOutput::PoolerOutput);
        if has_pooler { encoder.pooler().list } else { encoder.list }
    }

    fn batch(&self) -> BatchSpec {
        PredictionForm { sequence_length: self.sequence_length, masked_positions: None }.spec()
    }

    /// The requested outputs, by [`EncoderOutput::name`].
    fn outputs<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
    ) -> Vec<(&'static str, Tensor<'g>)> {
        let params = self.parameters();
        let bert = Bert::new(&self.model, &params, weights, precision, None, Recompute::default());
        let inputs = PredictionTensors::from_vec(batch.to_vec()).encoder_inputs();
        let x = bert.hidden_states(&inputs);
        self.outputs.iter().map(|output| (output.name(), output.of(&bert, x, &inputs))).collect()
    }
}
