//! Options for reading inputs, and the counters of a read.

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Bytes after which a line is split.
pub const LONGEST_LINE: usize = 1 << 20;

/// The grouping of text lines into sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentenceMode {
    /// A line is a paragraph, which is split into sentences.
    #[default]
    Split,
    /// A line is a sentence.
    Lines,
    /// A line is part of a paragraph, as in books wrapped at 80 columns: consecutive lines are joined up to the next
    /// empty line and then split. In plain text, two empty lines in a row end a document.
    Wrapped,
}

/// The reaction to invalid input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// Count it and continue without it.
    Count,
    /// Fail with an error that names its place.
    Refuse,
}

/// Options for reading inputs of any format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    /// Meaning of a line.
    pub sentences: SentenceMode,
    /// Key of the text in JSONL records, and name of its column in Parquet files.
    pub text_field: String,
    /// Reaction to bytes that are not UTF-8. With [`Tolerance::Count`], each run of them is read as U+FFFD, which the
    /// tokenizer drops.
    pub invalid_utf8: Tolerance,
    /// Reaction to JSONL records and Parquet rows without text.
    pub missing_text: Tolerance,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            sentences: SentenceMode::Split,
            text_field: "text".to_owned(),
            invalid_utf8: Tolerance::Count,
            missing_text: Tolerance::Refuse,
        }
    }
}

/// Documents read, and the parts of the input that were replaced, split or left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadCounts {
    /// Documents with text.
    pub documents: u64,
    /// Records and articles that hold only white space.
    pub empty_documents: u64,
    /// Records without the text field.
    pub without_text: u64,
    /// Bytes that were not UTF-8.
    pub replaced_bytes: u64,
    /// NUL characters, which are removed.
    pub nul_bytes: u64,
    /// Lines longer than [`LONGEST_LINE`], which are split. The key is that of format 2 of the manifest.
    #[serde(rename = "cut_lines")]
    pub overlong_lines: u64,
    /// Redirect pages of a Wikimedia dump.
    pub redirects: u64,
    /// Disambiguation pages of a Wikimedia dump.
    pub disambiguations: u64,
    /// Pages of a Wikimedia dump in namespaces other than articles: talk, users, templates.
    pub other_pages: u64,
}

impl fmt::Display for ReadCounts {
    /// Writes the number of documents, and the other counters that are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} documents", self.documents)?;
        for (count, name) in [
            (self.empty_documents, "empty documents"),
            (self.without_text, "records without text"),
            (self.replaced_bytes, "replaced bytes"),
            (self.nul_bytes, "NUL characters"),
            (self.overlong_lines, "overlong lines"),
            (self.redirects, "redirects"),
            (self.disambiguations, "disambiguation pages"),
            (self.other_pages, "other pages"),
        ] {
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        Ok(())
    }
}

impl AddAssign for ReadCounts {
    fn add_assign(&mut self, other: ReadCounts) {
        self.documents += other.documents;
        self.empty_documents += other.empty_documents;
        self.without_text += other.without_text;
        self.replaced_bytes += other.replaced_bytes;
        self.nul_bytes += other.nul_bytes;
        self.overlong_lines += other.overlong_lines;
        self.redirects += other.redirects;
        self.disambiguations += other.disambiguations;
        self.other_pages += other.other_pages;
    }
}
