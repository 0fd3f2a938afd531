//! The options for reading corpora, shared by `prepare` and `tokenizer train`.

use clap::{Args, ValueEnum};

use crate::data::{ReadOptions, SkippedPath, Tolerance};
use crate::output::note;

/// The help text about input formats.
pub const FORMS: &str = "\
Input formats, by file name:
  .txt, .text, any other     plain text; an empty line ends a document
  .jsonl, .ndjson            one document per record, in the field --text-field
  .parquet                   one document per row, in the column --text-field
  wiki_00, wiki_01 …         output of WikiExtractor, <doc …> or --json
  .xml, .xml-p1p2 …          a Wikimedia dump (pages-articles); articles become plain text
  .json                      records as in .jsonl; only if named directly or by a pattern
All formats except Parquet may be compressed: .gz, .zst, .bz2, .xz.
A directory stands for its files with these names, at any depth; hidden files,
prepared data and vocab.txt are skipped.";

/// Prints which inputs were skipped: for each reason the first path, and the number of others.
pub fn note_skipped(skipped: &[SkippedPath]) {
    let mut noted: Vec<&str> = Vec::new();
    for SkippedPath { path, reason } in skipped {
        if !noted.contains(reason) {
            noted.push(reason);
            let more = match skipped.iter().filter(|other| other.reason == *reason).count() {
                1 => String::new(),
                all => format!(" (and {} more)", all - 1),
            };
            note(format_args!("note: skipped {}{more}: it is {reason}", path.display()));
        }
    }
}

#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Field of a JSONL record, or column of a Parquet file, that contains the text
    #[arg(long, default_value = "text", value_name = "NAME")]
    text_field: String,
    /// Action for bytes that are not UTF-8
    #[arg(long, value_enum, default_value_t = OnFault::Count, value_name = "ACTION")]
    invalid_utf8: OnFault,
    /// Action for JSONL records and Parquet rows without a text
    #[arg(long, value_enum, default_value_t = OnFault::Refuse, value_name = "ACTION")]
    missing_text: OnFault,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnFault {
    /// Skip them and report their number
    Count,
    /// Fail with an error that names the location
    Refuse,
}

impl ReadArgs {
    pub fn options(self) -> ReadOptions {
        let tolerance = |on_fault| match on_fault {
            OnFault::Count => Tolerance::Count,
            OnFault::Refuse => Tolerance::Refuse,
        };
        ReadOptions {
            text_field: self.text_field,
            invalid_utf8: tolerance(self.invalid_utf8),
            missing_text: tolerance(self.missing_text),
            ..ReadOptions::default()
        }
    }
}
