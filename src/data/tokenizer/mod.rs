//! WordPiece tokenizers: training a vocabulary, the files of a tokenizer, encoding text.

pub mod files;
pub mod train;
pub mod vocabulary;
pub mod vocabulary_trainer;
pub mod wordpiece;
