//! Labelled data, from files to batches, for fine-tuning, probes and predictions.
//!
//! ```text
//! table (TSV, CSV, JSONL, Parquet) ─ texts ───────────────────┐
//! tokens (CoNLL, JSONL) ──────────────────────────────────────┼─ examples ─ batch
//! squad (JSON) ─ windows (of long contexts) ──────────────────┘
//!                   └─ answers (from logits, by answer_text)
//! ```
//!
//! [`LabelledTexts`], [`LabelledSentences`] and [`Questions`] are files in memory; each of them can also be built without a
//! file and labels, for predictions. [`LabelledExamples`] holds their tokens and labels, and is the source of batches.

mod answer_text;
mod answers;
mod columns;
mod delimited;
mod examples;
mod json_lines;
mod labels;
mod parquet;
mod sequence;
mod squad;
mod table;
mod texts;
mod tokens;
mod windows;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use answers::{AnswerCandidate, AnswerOptions, PredictedAnswer, SpanLogits};
pub use columns::Column;
pub use examples::{ExampleLabels, LabelledExamples, WordClasses};
pub use labels::LabelNames;
pub use squad::{Answer, Context, Gold, Question, Questions, SquadVersion};
pub use texts::{LabelledTexts, TextColumns, TextPair};
pub use tokens::{LabelledSentences, TokenColumns};
pub use windows::{QuestionWindows, WindowOptions};

use super::error::Result;
use super::files::sha256_of_file;
use crate::digest::Sha256Hasher;

/// Returns a fingerprint of files: the sha256 of the sha256 of each, in order. Their names have no influence.
///
/// # Errors
/// If a file cannot be read.
pub fn fingerprint<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let mut hasher = Sha256Hasher::default();
    for file in files {
        hasher.update(sha256_of_file(file, &|_| ())?.as_bytes());
    }
    Ok(hasher.finish())
}
