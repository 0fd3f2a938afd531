//! Verbs about saved models: their quality, their predictions, and their exchange with Hugging Face.

pub mod average;
pub mod embed;
pub mod evaluate;
pub mod export;
pub mod extend;
pub mod import;
pub mod predict;
