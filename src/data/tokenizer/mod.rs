//! WordPiece tokenizers: training a vocabulary, reading and writing tokenizer files, and encoding text.

pub mod comparison;
pub mod difference;
pub mod files;
mod signs;
pub mod train;
pub mod vocabulary;
pub mod vocabulary_trainer;
pub mod wordpiece;
