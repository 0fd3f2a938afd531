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

pub mod corpus;
mod error;
pub mod examples;
pub mod prepare;
pub mod store;
pub mod survey;
pub mod tokenizer;

pub use corpus::sentences::sentences;
pub use corpus::{
    Found, Input, LONGEST_LINE, PassedOver, Piece, ReadCounts, ReadOptions, Sentences, Source, SourcePath, TextBatch,
    Tolerance, find_inputs, find_sources, read_text,
};
pub use error::{DataError, Result};
pub use examples::batch::{Batch, PackedRows};
pub use examples::config::{ExampleConfig, Masking, Mode};
pub use examples::dataset::{Example, Examples, Window};
pub use examples::mask::{MaskConfig, Masker, SpanMask, Targets, number_to_predict};
pub use examples::packing::{Packing, Placed, predictions_of_row};
pub use examples::permutation::Order;
pub use examples::text::{IGNORED_LABEL, Segment, Text};
pub use prepare::filter::{Filter, RULES, Rule};
pub use prepare::{Outcome, Preparation, Progress, Stage, prepare};
pub use store::check::{Checked, SourceState, check};
pub use store::prepared::{
    Deduplication, Document, Documents, MANIFEST, MANIFEST_FORMAT, Manifest, PrepareOptions, Prepared, Removed,
    ShardEntry, SourceEntry, TOKENIZER_DIRECTORY,
};
pub use store::remote::{DataFetch, data_manifest, publish, remote_manifest};
pub use store::shard::{Counts, SHARD_FORMAT, ShardBuilder, ShardHeader, Split, sha256_of_file};
pub use store::shard_reader::Shard;
pub use survey::baseline::{unigram_baseline, unigram_loss};
pub use survey::statistics::{
    Bar, DocumentLengths, ExampleLengths, PackedLengths, Spread, document_lengths, doubling_bars, example_lengths,
};
pub use survey::{Coverage, Duplicates, Masks, Packed, Slice, Survey};
pub use tokenizer::train::{Trained, train_tokenizer};
pub use tokenizer::vocabulary::{CONTINUATION_PREFIX, SPECIAL_TOKENS, SpecialIds, Vocabulary};
pub use tokenizer::vocabulary_trainer::{VocabularyOptions, train_vocabulary};
pub use tokenizer::wordpiece::{Tokenizer, WordRules};
