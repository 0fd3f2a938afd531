//! The input formats, one module each: plain text, JSONL, Parquet, WikiExtractor's files and Wikimedia's XML dumps.
//! Each writes the lines and document ends of an input to a [`BatchWriter`](super::text_batch::BatchWriter).

mod entities;
pub(super) mod jsonl;
pub(super) mod parquet;
pub(super) mod text;
pub(super) mod wiki_extractor;
pub(super) mod wikimedia;
mod wikitext;
