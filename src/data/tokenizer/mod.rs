//! Tokenizers: training and extending a vocabulary, reading and writing tokenizer files, and encoding text.

pub mod comparison;
pub mod difference;
pub mod encode;
pub mod extension;
pub mod files;
mod new_pieces;
mod parts;
mod pieces;
mod pipeline;
pub mod rules;
mod signs;
pub mod special_tokens;
mod subword_trainer;
pub mod train;
pub mod vocabulary;
pub mod vocabulary_trainer;
pub mod word_counts;
pub mod word_mark;
pub mod wordpiece;
