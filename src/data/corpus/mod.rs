//! Corpora as they are published, each input as one stream of pieces: a piece is a line of text, and documents end where
//! the form of the input says so. One file a form:
//!
//! ```text
//! find (which files) ─ input (which is what) ─ compression ─┬─ text, jsonl ─────────┬─ batches ─► TextBatch
//!                                           └─ one file a form more ─┘
//! ```
//!
//! [`Input::read`] streams one input, and nothing is held but the batch at hand: what is read of an input, and how it is
//! cut into batches, depends on the input and the [`ReadOptions`] alone, so that several can be read at once and reading
//! can be taken up again after any document.

mod byte_ranges;
mod decompress;
mod discover;
mod file_kind;
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

#[cfg(test)]
mod tests;

use super::error::Result;

pub use discover::{FoundInputs, SkippedPath, find_inputs};
pub use input::{Input, Source};
pub use input_entry::InputEntry;
pub use options::{ReadCounts, ReadOptions, SentenceMode, Tolerance};
pub use sources::{SourcePath, find_sources};
pub use text_batch::{LONGEST_LINE, TextBatch, TextEvent};

/// Reads inputs one after the other and hands batches to `sink`, until it returns `false` or the inputs end. `progress`
/// hears of the bytes read from disk.
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
