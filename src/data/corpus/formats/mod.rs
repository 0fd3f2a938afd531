//! One module for each form of input: plain text, JSONL, Parquet, WikiExtractor's files and Wikimedia's XML dumps. Each
//! writes the lines and document ends of an input to [`Batches`](super::text_batch::Batches).

mod entities;
pub(super) mod jsonl;
mod panics;
pub(super) mod parquet;
pub(super) mod text;
pub(super) mod wiki_extractor;
pub(super) mod wikimedia;
mod wikitext;
