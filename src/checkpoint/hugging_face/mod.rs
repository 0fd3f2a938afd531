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
mod tokenizer;

use serde_json::{Map, Value};

pub use export::{MODEL_CARD, ONNX_MODEL, check_replaceable, export};
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
    /// The encoder and both heads of pretraining.
    #[default]
    BertForPreTraining,
    /// No pooler and no next-sentence head.
    BertForMaskedLM,
    /// No heads.
    BertModel,
    /// A classifier or regression on the pooler.
    BertForSequenceClassification,
    /// A classifier of tokens, and no pooler.
    BertForTokenClassification,
    /// The head of answer spans, and no pooler.
    BertForQuestionAnswering,
}

impl Architecture {
    /// All classes, in the order of the help text.
    pub const ALL: [Architecture; 6] = [
        Architecture::BertForPreTraining,
        Architecture::BertForMaskedLM,
        Architecture::BertModel,
        Architecture::BertForSequenceClassification,
        Architecture::BertForTokenClassification,
        Architecture::BertForQuestionAnswering,
    ];

    /// Returns the name of the class.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::BertForPreTraining => "BertForPreTraining",
            Architecture::BertForMaskedLM => "BertForMaskedLM",
            Architecture::BertModel => "BertModel",
            Architecture::BertForSequenceClassification => "BertForSequenceClassification",
            Architecture::BertForTokenClassification => "BertForTokenClassification",
            Architecture::BertForQuestionAnswering => "BertForQuestionAnswering",
        }
    }

    /// Returns the class with this name.
    pub fn from_name(name: &str) -> Option<Architecture> {
        Architecture::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// Returns whether the class has a tensor of this name.
    pub fn has(self, tensor: &str) -> bool {
        is_encoder(tensor) || self.heads().iter().any(|prefix| tensor.starts_with(prefix))
    }

    /// Returns the classes that a model of this class can be exported for: those whose heads it has.
    pub const fn exports(self) -> &'static [Architecture] {
        use Architecture::*;
        match self {
            BertForPreTraining => &[BertForPreTraining, BertForMaskedLM, BertModel],
            BertForMaskedLM => &[BertForMaskedLM],
            BertModel => &[BertModel],
            BertForSequenceClassification => &[BertForSequenceClassification, BertModel],
            BertForTokenClassification => &[BertForTokenClassification],
            BertForQuestionAnswering => &[BertForQuestionAnswering],
        }
    }

    /// Returns the prefixes of the tensors above the encoder.
    const fn heads(self) -> &'static [&'static str] {
        match self {
            Architecture::BertForPreTraining => &["bert.pooler.", "cls."],
            Architecture::BertForMaskedLM => &["cls.predictions."],
            Architecture::BertModel => &["bert.pooler."],
            Architecture::BertForSequenceClassification => &["bert.pooler.", "classifier."],
            Architecture::BertForTokenClassification => &["classifier."],
            Architecture::BertForQuestionAnswering => &["qa_outputs."],
        }
    }
}

/// Returns whether a tensor belongs to embeddings or layers, which every model has, and not to a head or to the pooler.
pub fn is_encoder(tensor: &str) -> bool {
    tensor.starts_with("bert.") && !tensor.starts_with("bert.pooler.")
}

/// The description of a model in its directory.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedModel {
    /// The class of the model.
    pub architecture: Architecture,
    /// The keys of `config.json` that describe the model: sizes, activation, dropout, constants, labels.
    pub config: Map<String, Value>,
    /// Names and shapes of the tensors of the class, in the model's order: f32, Linear weights `[out, in]`, exactly
    /// `vocab_size` vocabulary rows, no decoder.
    pub tensors: Vec<(String, Shape)>,
}

impl PublishedModel {
    /// Returns an integer of the configuration.
    fn size(&self, key: &str) -> Option<u64> {
        self.config.get(key).and_then(Value::as_u64)
    }
}
