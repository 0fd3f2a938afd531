//! Text to batches, in two stages of different time.
//!
//! *Once*, [`prepare`] reads documents, splits sentences, looks up WordPieces and writes token ids as shards: nothing
//! that is random, nothing that depends on a sequence length. *For every step*, [`Examples::batch`] cuts the documents
//! into sentence pairs, masks them and pads them: a pure function of (seed, phase, epoch, example), so that resuming is
//! arithmetic and every host makes exactly its own rows.
//!
//! ```text
//! corpus ─ sentences ─ wordpiece ─ shard │ prepared ─ pairs ─ epochs ─ order ─ mask ─ examples ─ batch
//!             once, `prepare`            │            for every step
//! ```
//!
//! Nothing here knows of devices, models or optimizers.

mod baseline;
mod batch;
mod check;
mod corpus;
mod epochs;
mod error;
mod example_config;
mod examples;
mod filter;
mod full_sentences;
mod mask;
mod order;
mod packing;
mod pairs;
mod prepare;
mod prepared;
mod remote;
mod sentences;
mod shard;
mod shard_reader;
mod statistics;
mod survey;
mod text;
mod tokenizer_files;
mod trained_tokenizer;
mod vocabulary;
mod vocabulary_trainer;
mod wordpiece;

pub use baseline::{unigram_baseline, unigram_loss};
pub use batch::{Batch, PackedRows};
pub use check::{Checked, SourceState, check};
pub use corpus::{
    Found, Input, LONGEST_LINE, PassedOver, Piece, ReadCounts, ReadOptions, Sentences, Source, SourcePath, TextBatch,
    Tolerance, find_inputs, find_sources, read_text,
};
pub use error::{DataError, Result};
pub use example_config::{ExampleConfig, Masking, Mode};
pub use examples::{Example, Examples, Window};
pub use filter::{Filter, RULES, Rule};
pub use mask::{MaskConfig, Masker, SpanMask, Targets, number_to_predict};
pub use order::Order;
pub use packing::{Packing, Placed, predictions_of_row};
pub use prepare::{Outcome, Preparation, Progress, Stage, prepare};
pub use prepared::{
    Deduplication, Document, Documents, MANIFEST, MANIFEST_FORMAT, Manifest, PrepareOptions, Prepared, Removed,
    ShardEntry, SourceEntry, TOKENIZER_DIRECTORY,
};
pub use remote::{DataFetch, publish, remote_manifest};
pub use sentences::sentences;
pub use shard::{Counts, SHARD_FORMAT, ShardBuilder, ShardHeader, Split, sha256_of_file};
pub use shard_reader::Shard;
pub use statistics::{
    Bar, DocumentLengths, ExampleLengths, PackedLengths, Spread, document_lengths, doubling_bars, example_lengths,
};
pub use survey::{Coverage, Duplicates, Masks, Packed, Slice, Survey};
pub use text::{IGNORED_LABEL, Segment, Text};
pub use trained_tokenizer::{Trained, train_tokenizer};
pub use vocabulary::{CONTINUATION_PREFIX, SPECIAL_TOKENS, SpecialIds, Vocabulary};
pub use vocabulary_trainer::{VocabularyOptions, train_vocabulary};
pub use wordpiece::{Tokenizer, WordRules};
