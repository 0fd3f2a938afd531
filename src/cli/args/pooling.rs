//! The values of `--pooling`.

use clap::ValueEnum;

use crate::bert::EncoderOutput;

/// The pooling of hidden states to an embedding.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Pooling {
    /// Mean over all tokens, `[CLS]` and `[SEP]` included
    #[default]
    Mean,
    /// Hidden state of `[CLS]`
    Cls,
    /// Maximum over all tokens
    Max,
}

impl Pooling {
    pub fn output(self) -> EncoderOutput {
        match self {
            Pooling::Mean => EncoderOutput::Mean,
            Pooling::Cls => EncoderOutput::Cls,
            Pooling::Max => EncoderOutput::Max,
        }
    }
}
