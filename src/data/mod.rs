//! Text to batches, in two stages of different time.
//!
//! *Once*, [`prepare`] reads documents, splits sentences, looks up WordPieces and writes token ids as shards: nothing
//! that is random, nothing that depends on a sequence length. *For every step*, [`Dataset::batch`] cuts the documents
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
mod files;
pub mod prepare;
pub mod store;
pub mod survey;
pub mod tokenizer;

pub use corpus::filter::{FILTER_RULES, Filter, FilterRule};
pub use corpus::sentences::sentences;
pub use corpus::{
    FoundInputs, Input, InputEntry, LONGEST_LINE, ReadCounts, ReadOptions, SentenceMode, SkippedPath, Source,
    SourcePath, TextBatch, TextEvent, Tolerance, find_inputs, find_sources, read_text,
};
pub use error::{DataError, Result};
pub use examples::batch::{Batch, PackedRows};
pub use examples::config::{ExampleConfig, ExampleMode, Masking};
pub use examples::dataset::{Dataset, Example, Window};
pub use examples::layout::{ExampleLayout, IGNORED_LABEL, Segment};
pub use examples::mask::{MaskConfig, Masker, SpanMask, Targets, prediction_count};
pub use examples::packing::{PackedExample, Packing, max_predictions_per_row};
pub use examples::permutation::Permutation;
pub use examples::source::Batches;
pub use files::{MANIFEST, TOKENIZER_DIRECTORY, sha256_of_file};
pub use prepare::{Preparation, PrepareOutcome, PrepareProgress, PrepareStage, prepare};
pub use store::check::{CheckReport, InputState, check};
pub use store::documents::{Document, Documents};
pub use store::manifest::{Deduplication, MANIFEST_FORMAT, Manifest, PrepareOptions, Removed, ShardEntry};
pub use store::prepared::PreparedData;
pub use store::remote::{DataFetch, data_manifest, publish, remote_manifest};
pub use store::shard::{Counts, SHARD_FORMAT, ShardBuilder, ShardHeader, Split};
pub use store::shard_reader::Shard;
pub use survey::baseline::{unigram_baseline, unigram_loss};
pub use survey::statistics::{
    DocumentLengths, ExampleLengths, HistogramBin, LengthSummary, PackedLengths, document_lengths, example_lengths,
    log2_histogram,
};
pub use survey::{DuplicateCounts, MaskStatistics, PackingOptions, PositionSlice, Survey, VocabularyCoverage};
pub use tokenizer::train::{TrainedTokenizer, train_tokenizer};
pub use tokenizer::vocabulary::{CONTINUATION_PREFIX, SPECIAL_TOKENS, SpecialIds, Vocabulary};
pub use tokenizer::vocabulary_trainer::{VocabularyOptions, train_vocabulary};
pub use tokenizer::wordpiece::{Tokenizer, WordRules};
