//! Tokenizers: training and extending a vocabulary, reading and writing tokenizer files, and encoding text.

pub mod comparison;
pub mod difference;
pub mod encode;
pub mod files;
mod names;
mod parts;
mod pieces;
mod pipeline;
pub mod rules;
pub mod special_tokens;
pub mod training;
pub mod vocabulary;
pub mod word_mark;
pub mod wordpiece;
