//! WordPiece tokenizers: training and extending a vocabulary, reading and writing tokenizer files, and encoding text.

pub mod comparison;
pub mod difference;
pub mod extension;
pub mod files;
mod new_pieces;
mod pieces;
mod signs;
pub mod train;
pub mod vocabulary;
pub mod vocabulary_trainer;
pub mod word_counts;
pub mod wordpiece;
