//! Data, from text to batches, in two stages.
//!
//! *Once per corpus*, [`prepare()`] reads documents, splits them into sentences, tokenizes them and writes the token ids as
//! shards. Nothing in them is random or depends on a sequence length. *For every step*, [`Dataset::batch`] splits documents
//! into sentence pairs, masks and pads them. A batch is a pure function of (seed, phase, example number): resuming needs no
//! state, and every host builds exactly its own rows.
//!
//! ```text
//! corpus ─ sentences ─ tokenizer ─ shards │ store ─ pairs ─ epochs ─ permutation ─ mask ─ packing ─ batch
//!          once, `prepare`                │          for every step, `examples`
//! ```
//!
//! The sub-modules import in one direction: [`corpus`] ← [`tokenizer`] ← [`store`] ← [`prepare`](mod@prepare) ←
//! [`examples`] ← [`survey`]; [`labelled`] reads files of labelled examples. `docs/data.md` specifies the files byte by byte. The
//! formulas are in [`epochs`](examples::epochs), [`permutation`](examples::permutation), [`pairs`](examples::pairs),
//! [`mask`](examples::mask) and [`packing`](examples::packing).
//!
//! # Example
//!
//! Trains a tokenizer, prepares a text and builds a batch:
//!
//! ```
//! use std::sync::Arc;
//!
//! use lambert::data::{
//!     Dataset, ExampleConfig, Preparation, PrepareOptions, PreparedData, Split, Tokenizer, VocabularyOptions,
//!     find_inputs, prepare, train_tokenizer,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let directory = tempfile::tempdir()?;
//! let [text, tokenizer, out] = ["text.txt", "tokenizer", "prepared"].map(|name| directory.path().join(name));
//! std::fs::write(&text, "It rains. The river rises.\n\nThe sun shines. The river falls.\n\n".repeat(20))?;
//!
//! let inputs = find_inputs(&[text])?.inputs;
//! train_tokenizer(&inputs, &VocabularyOptions::new(100, true), &tokenizer, false, &|_| ())?;
//! let tokenizer = Tokenizer::open(&tokenizer, false)?;
//! let options = PrepareOptions { held_out: 0.0, ..PrepareOptions::default() };
//! let preparation = Preparation { inputs: &inputs, tokenizer: &tokenizer, options: &options, out: &out, force: false };
//! prepare(&preparation, &|_, _| ())?;
//!
//! let prepared = Arc::new(PreparedData::open(&out)?);
//! let dataset = Dataset::new(prepared, Split::Train, ExampleConfig::bert(32, 5))?;
//! let batch = dataset.batch(0, 8)?; // examples 0 to 7: sequence length 32, at most 5 masked positions each
//! assert_eq!(batch.input_ids.len(), 8 * 32);
//! assert_eq!(dataset.batch(7, 1)?.input_ids, batch.input_ids[7 * 32..]);
//! # Ok(())
//! # }
//! ```

pub mod corpus;
mod error;
pub mod examples;
mod files;
pub mod labelled;
mod parquet_file;
pub mod prepare;
pub mod store;
pub mod survey;
pub mod tokenizer;

pub use corpus::filter::{FILTER_RULES, Filter, FilterRule};
pub use corpus::sentences::sentences;
pub use corpus::{
    FoundInputs, Input, InputEntry, LONGEST_LINE, ReadCounts, ReadOptions, SentenceMode, SkippedPath, Source,
    SourcePath, TEXT_RULES, TextBatch, TextEvent, Tolerance, find_inputs, find_sources, read_text,
};
pub(crate) use error::describe_json_error;
pub use error::{DataError, Result};
pub use examples::batch::{Batch, PackedRows};
pub use examples::config::{ExampleConfig, ExampleMode, Masking, MaskingRamp};
pub use examples::dataset::{Dataset, Example, Window};
pub use examples::layout::{ExampleLayout, Segment};
pub use examples::mask::{MaskConfig, MaskShares, Masker, SpanMask, Targets, prediction_count};
pub use examples::packing::{PackedExample, Packing, max_predictions_per_row};
pub use examples::permutation::Permutation;
pub use examples::source::Batches;
pub use files::{MANIFEST, TOKENIZER_DIRECTORY, sha256_of_file};
pub use labelled::{
    Answer, AnswerCandidate, AnswerOptions, Column, Context, ExampleLabels, Gold, LabelNames, LabelledExamples,
    LabelledSentences, LabelledTexts, PredictedAnswer, Question, QuestionWindows, Questions, SpanLogits, SquadVersion,
    TextColumns, TextPair, TokenColumns, WindowOptions, WordClasses, fingerprint,
};
pub use prepare::{
    Part, PartOutcome, PartUpload, PartsDownload, Preparation, PrepareOutcome, PrepareProgress, PrepareStage, join,
    prepare, prepare_part, remove_remote_parts,
};
pub use store::check::{CheckReport, InputState, check};
pub use store::documents::{Document, Documents};
pub use store::manifest::{Deduplication, MANIFEST_FORMAT, Manifest, PrepareOptions, Removed, ShardEntry};
#[cfg(target_os = "linux")]
pub use store::mapped_file::watch_mapped_files;
pub use store::prepared::PreparedData;
pub use store::remote::{DataFetch, data_manifest, publish, remote_manifest};
pub use store::shard::{Counts, SHARD_FORMAT, ShardBuilder, ShardHeader, Split};
pub use store::shard_reader::Shard;
pub use survey::statistics::{
    DocumentLengths, ExampleLengths, HistogramBin, LengthSummary, PackedLengths, document_lengths, example_lengths,
    log2_histogram,
};
pub use survey::{DuplicateCounts, MaskStatistics, PackingOptions, PositionSlice, Survey, VocabularyCoverage};
pub use tokenizer::comparison::{RulesFile, TokenizerFiles, VocabularyFile};
pub use tokenizer::difference::{RulesDifference, VocabularyDifference};
pub use tokenizer::encode::Tokenizer;
pub use tokenizer::rules::{PipelineRules, TokenizerRules};
pub use tokenizer::special_tokens::{PairForm, SPECIAL_TOKENS, SpecialIds};
pub use tokenizer::training::extension::{
    AddedPiece, Extension, ExtensionOptions, Fertility, TextShare, extend_tokenizer, extended_files, reserved_tokens,
};
pub use tokenizer::training::options::{TokenizerModel, VocabularyOptions};
pub use tokenizer::training::train::{TrainedTokenizer, train_tokenizer};
pub use tokenizer::training::word_counts::LeftOut;
pub use tokenizer::training::wordpiece::{TrainedVocabulary, train_vocabulary};
pub use tokenizer::vocabulary::Vocabulary;
pub use tokenizer::word_mark::{CONTINUATION_PREFIX, WordMark};
pub use tokenizer::wordpiece::{LONGEST_WORD, WordPiece, WordRules};
