//! Hugging Face directories: `config.json`, `model.safetensors` and a tokenizer, as `save_pretrained` of transformers writes
//! and `from_pretrained` reads them. All tensors of this crate have Hugging Face's names, so export renames nothing; import
//! renames tensors of older directories.
//!
//! Two things differ from a checkpoint: there are exactly `vocab_size` vocabulary rows (a checkpoint's may be padded), and the
//! decoder of the masked-language-model head is not stored (it is the word embedding). The model is described by the caller as
//! a [`PublishedModel`].

mod export;
mod import;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use export::export;
pub use import::{Imported, import};

use crate::shape::Shape;

const WORD_EMBEDDINGS: &str = "bert.embeddings.word_embeddings.weight";
const PREDICTIONS_BIAS: &str = "cls.predictions.bias";
const DECODER_WEIGHT: &str = "cls.predictions.decoder.weight";
const DECODER_BIAS: &str = "cls.predictions.decoder.bias";

/// The class of transformers that a directory is written for, which loads all its tensors without a warning. The other classes
/// load it too, and warn about heads that they do not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    /// The encoder and both heads.
    #[default]
    BertForPreTraining,
    /// No pooler and no next-sentence head.
    BertForMaskedLM,
    /// No heads.
    BertModel,
}

impl Architecture {
    /// All classes, in the order of the help text.
    pub const ALL: [Architecture; 3] =
        [Architecture::BertForPreTraining, Architecture::BertForMaskedLM, Architecture::BertModel];

    /// Returns the name of the class.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::BertForPreTraining => "BertForPreTraining",
            Architecture::BertForMaskedLM => "BertForMaskedLM",
            Architecture::BertModel => "BertModel",
        }
    }

    /// Returns whether the class has this tensor of `BertForPreTraining`.
    pub fn has(self, tensor: &str) -> bool {
        let lacks: &[&str] = match self {
            Architecture::BertForPreTraining => &[],
            Architecture::BertForMaskedLM => &["cls.seq_relationship.", "bert.pooler."],
            Architecture::BertModel => &["cls."],
        };
        !lacks.iter().any(|prefix| tensor.starts_with(prefix))
    }
}

/// The description of a model in its directory.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedModel {
    /// The keys of `config.json` that describe the model: sizes, activation, dropout, constants.
    pub config: Map<String, Value>,
    /// Names and shapes of the tensors of `BertForPreTraining`, in the model's order: f32, Linear weights `[out, in]`,
    /// exactly `vocab_size` vocabulary rows, no decoder.
    pub tensors: Vec<(String, Shape)>,
}

impl PublishedModel {
    /// Returns an integer of the configuration.
    fn size(&self, key: &str) -> Option<u64> {
        self.config.get(key).and_then(Value::as_u64)
    }
}
