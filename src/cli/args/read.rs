//! How corpora are read: the options that every verb over text shares.

use clap::{Args, ValueEnum};

use crate::data::{ReadOptions, SkippedPath, Tolerance};
use crate::output::note;

/// The forms of input, for the help of a verb.
pub const FORMS: &str = "\
Forms of input, by name:
  .txt, .text, any other     plain text: an empty line ends a document
  .jsonl, .ndjson            a record is a document; its text is under --text-field
  .parquet                   a row is a document; its text is in the column --text-field
  wiki_00, wiki_01 …         what WikiExtractor writes, <doc …> or --json
  .xml, .xml-p1p2 …          a Wikimedia dump (pages-articles): the articles, as plain text
  .json                      records, as .jsonl, if it is named itself or by a pattern
All but Parquet also compressed: .gz, .zst, .bz2, .xz.
A directory gives its files of these names, at any depth. What is hidden,
prepared data and vocab.txt are passed over.";

/// Says what was passed over among the inputs: the first thing of each kind, and how many more there are.
pub fn note_passed_over(skipped: &[SkippedPath]) {
    let mut told: Vec<&str> = Vec::new();
    for SkippedPath { path, reason } in skipped {
        if !told.contains(reason) {
            told.push(reason);
            let more = match skipped.iter().filter(|other| other.reason == *reason).count() {
                1 => String::new(),
                all => format!(" (and {} more)", all - 1),
            };
            note(format_args!("note: {} is {reason} and was passed over{more}", path.display()));
        }
    }
}

#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Key of the text in each record of JSONL, name of its column in Parquet.
    #[arg(long, default_value = "text", value_name = "NAME")]
    text_field: String,
    /// Bytes that are not UTF-8.
    #[arg(long, value_enum, default_value_t = OnFault::Count, value_name = "WHAT")]
    invalid_utf8: OnFault,
    /// Records of JSONL and rows of Parquet without a text.
    #[arg(long, value_enum, default_value_t = OnFault::Refuse, value_name = "WHAT")]
    missing_text: OnFault,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnFault {
    /// Count it and go on without it.
    Count,
    /// End with an error that names the place.
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
