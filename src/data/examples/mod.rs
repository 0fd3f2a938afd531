//! Builds training examples from prepared documents: a pure function of (seed, phase, epoch, example number).

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
