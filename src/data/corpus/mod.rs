//! Corpora in the formats in which they are published. Each input is read as one stream of events: a line of text, or
//! the end of a document.
//!
//! ```text
//! discover (files) ─ input (format) ─ decompress ─ formats (text, jsonl, parquet, wiki …) ─ TextBatch
//! ```
//!
//! [`Input::read`] streams one input and holds one batch at a time. The text and its batches depend on the input and
//! the [`ReadOptions`] alone, so several inputs can be read in parallel, and reading can resume after any document.

mod byte_ranges;
mod decompress;
mod discover;
pub mod filter;
mod formats;
mod input;
mod input_entry;
mod lines;
mod options;
pub mod sentences;
mod sources;
mod text_batch;
mod utf8;
mod whole_file;

#[cfg(test)]
mod tests;

use crate::data::error::Result;

pub(in crate::data) use whole_file::{extension_of, read_whole_text};

pub use discover::{FoundInputs, SkippedPath, find_inputs};
pub use input::Input;
pub use input_entry::{InputEntry, Source};
pub use options::{LONGEST_LINE, ReadCounts, ReadOptions, SentenceMode, Tolerance};
pub use sources::{SourcePath, find_sources};
pub use text_batch::{TextBatch, TextEvent};

/// The version of the rules by which files become documents and sentences: readers of formats, cleaning of markup, filters, ends of
/// sentences. A change of the rules raises it, so that an interrupted preparation is not continued with other rules than those that it
/// began with.
pub const TEXT_RULES: u32 = 1;

/// Reads inputs one after the other and passes batches to `sink`, until it returns `false` or the inputs end. Calls
/// `progress` with the number of bytes read from disk.
///
/// # Errors
/// As [`Input::read`].
pub fn read_text(
    inputs: &[Input],
    options: &ReadOptions,
    progress: &(dyn Fn(u64) + Sync),
    sink: &mut dyn FnMut(TextBatch) -> bool,
) -> Result<()> {
    for input in inputs {
        if !input.read(options, progress, sink)? {
            break;
        }
    }
    Ok(())
}
