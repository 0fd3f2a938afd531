//! Training of tokenizers on a text, and more pieces for the vocabulary of one.

pub mod extension;
mod merges;
mod new_pieces;
pub mod options;
mod signs;
mod subwords;
pub mod train;
pub mod word_counts;
pub mod wordpiece;
