//! From prepared documents to the batch of a step: a pure function of (seed, phase, epoch, example).

pub mod batch;
pub mod config;
pub mod dataset;
pub mod epochs;
pub mod full_sentences;
pub mod layout;
pub mod mask;
pub mod packing;
pub mod pairs;
pub mod permutation;
pub mod source;
