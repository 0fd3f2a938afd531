//! BERT in Hugging Face's names: embeddings, a post-LayerNorm encoder, and the heads for pretraining and fine-tuning.
//!
//! Source: google-research/bert `modeling.py`, `run_pretraining.py`, `run_classifier.py` and `run_squad.py`; names and weight
//! layouts are those of transformers' `BertForPreTraining`, `BertForSequenceClassification`, `BertForTokenClassification` and
//! `BertForQuestionAnswering`.

mod config;
mod dropout;
mod embeddings;
mod encoder;
mod fine_tuning;
pub mod flops;
mod fused;
mod head;
mod heads;
mod inputs;
mod layer_form;
mod layers;
mod loss;
mod params;
mod positions;
mod prediction;
mod pretraining;
mod recompute;
mod settings;
mod synthetic;

pub use config::{Activation, BertConfig, ConfigError, Preset, SIZES, VOCABULARY_MULTIPLE};
pub use dropout::{Dropout, Site, mask_graph};
pub use fine_tuning::{
    FineTuning, Objective, QuestionAnswering, Regression, SequenceClassification, TokenClassification, fine_tuning_task,
};
pub use fused::{AttentionForm, FusedAttention, FusedLayerNorm, FusedOperation, Kernel, KernelChoice, Kernels};
pub use head::Head;
pub use inputs::EncoderInputs;
pub use layer_form::Layers;
pub use layers::Bert;
pub use params::{VOCABULARY_SIZED, param_specs, param_specs_of};
pub use prediction::{Encoder, EncoderOutput, MaskedLanguageModel};
pub use pretraining::{BatchTensors, BertPretraining, Outputs, Sums};
pub use recompute::Recompute;
pub use settings::BertSettings;
