//! The settings with which inputs are read, and the counters that reading keeps.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::text_batch::LONGEST_LINE;

/// How a line of text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SentenceMode {
    /// A line is a paragraph: split it into sentences.
    #[default]
    Split,
    /// A line is a sentence.
    Lines,
    /// A line is a part of a paragraph, as in books wrapped at 80 columns: lines up to an empty one are joined and then
    /// split. In plain text, two empty lines in a row end a document.
    Wrapped,
}

/// What to do with a thing that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// Count it and go on without it.
    Count,
    /// End with an error that says where it is.
    Refuse,
}

/// How inputs are read, whatever their form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    pub sentences: SentenceMode,
    /// Key of the text in each record of JSONL, and name of its column in Parquet.
    pub text_field: String,
    /// Bytes that are not UTF-8: each run of them is read as U+FFFD, which the tokenizer drops, or refused.
    pub invalid_utf8: Tolerance,
    /// Records of JSONL and rows of Parquet without a text.
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

/// What was met while reading: documents, and what was not taken as it stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReadCounts {
    /// Documents that ended and have text.
    pub documents: u64,
    /// Records and articles that have no text but white space.
    pub empty_documents: u64,
    /// Records without the field of the text.
    pub without_text: u64,
    /// Bytes that were not UTF-8.
    pub replaced_bytes: u64,
    /// NUL characters, which were left out.
    pub nul_bytes: u64,
    /// Lines that were cut because they were longer than [`LONGEST_LINE`].
    pub cut_lines: u64,
    /// Pages of a dump that only name another page.
    pub redirects: u64,
    /// Pages of a dump that list the meanings of their title.
    pub disambiguations: u64,
    /// Pages of a dump that are no articles: talk, users, templates.
    pub other_pages: u64,
}

impl AddAssign for ReadCounts {
    fn add_assign(&mut self, other: ReadCounts) {
        self.documents += other.documents;
        self.empty_documents += other.empty_documents;
        self.without_text += other.without_text;
        self.replaced_bytes += other.replaced_bytes;
        self.nul_bytes += other.nul_bytes;
        self.cut_lines += other.cut_lines;
        self.redirects += other.redirects;
        self.disambiguations += other.disambiguations;
        self.other_pages += other.other_pages;
    }
}
