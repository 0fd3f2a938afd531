//! BERT for pretraining, in Hugging Face's names: embeddings, a post-LayerNorm encoder, a pooler, the MLM head on the masked
//! positions, and the next-sentence head.
//!
//! Source: google-research/bert `modeling.py` and `run_pretraining.py`; names and weight layouts are those of
//! transformers' `BertForPreTraining`.

mod config;
mod dropout;
mod embeddings;
mod encoder;
pub mod flops;
mod heads;
mod layers;
mod params;
mod pretraining;
mod recompute;

pub use config::{Activation, BertConfig, BertSettings, ConfigError, Preset, VOCABULARY_MULTIPLE};
pub use dropout::{Dropout, Site, mask_graph};
pub use heads::{Outputs, Sums};
pub use layers::Bert;
pub use params::param_specs;
pub use pretraining::{BatchTensors, BertPretraining};
pub use recompute::Recompute;
