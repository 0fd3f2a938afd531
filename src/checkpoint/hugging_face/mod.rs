//! The other party's format: a directory with `config.json`, `model.safetensors` and a tokenizer, as transformers'
//! `save_pretrained` writes and `from_pretrained` reads it. Tensor names are theirs from birth in this house, so export
//! renames nothing; only import does, because directories older than the names exist.
//!
//! Two things differ from a checkpoint: the vocabulary rows are exactly `vocab_size` (ours may be padded), and the
//! decoder of the masked-language-model head is not stored (it is the word embedding). What the model is, this room does
//! not know: whoever calls it describes it as a [`PublishedModel`].

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

/// The class of transformers that a directory is written for: it loads everything in it, so it has nothing to warn of. The
/// other classes load it too, and name the heads that they have no place for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    /// Everything that was trained.
    #[default]
    BertForPreTraining,
    /// Without pooler and next-sentence head.
    BertForMaskedLM,
    /// Without both heads.
    BertModel,
}

impl Architecture {
    pub const ALL: [Architecture; 3] =
        [Architecture::BertForPreTraining, Architecture::BertForMaskedLM, Architecture::BertModel];

    /// The name of the class.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::BertForPreTraining => "BertForPreTraining",
            Architecture::BertForMaskedLM => "BertForMaskedLM",
            Architecture::BertModel => "BertModel",
        }
    }

    /// Whether the class has a place for this tensor of `BertForPreTraining`.
    pub fn has(self, tensor: &str) -> bool {
        let lacks: &[&str] = match self {
            Architecture::BertForPreTraining => &[],
            Architecture::BertForMaskedLM => &["cls.seq_relationship.", "bert.pooler."],
            Architecture::BertModel => &["cls."],
        };
        !lacks.iter().any(|prefix| tensor.starts_with(prefix))
    }
}

/// A model as its directory shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedModel {
    /// The keys of `config.json` that describe the model: sizes, activation, dropout, constants.
    pub config: Map<String, Value>,
    /// Names and shapes of the tensors of `BertForPreTraining`, in the model's order: f32, Linear weights `[out, in]`,
    /// exactly `vocab_size` vocabulary rows, no decoder.
    pub tensors: Vec<(String, Shape)>,
}

impl PublishedModel {
    /// An integer of the configuration.
    fn size(&self, key: &str) -> Option<u64> {
        self.config.get(key).and_then(Value::as_u64)
    }
}
