//! The manifest of a prepared directory, `prepared.json`: the options and inputs that the data was made from, and the shards.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::shard::{Counts, Split};
use crate::data::corpus::filter::Filter;
use crate::data::corpus::{InputEntry, ReadCounts, ReadOptions};
use crate::data::error::{DataError, Result};
use crate::data::files::MANIFEST;
use crate::data::tokenizer::rules::{PipelineRules, TokenizerRules};
use crate::data::tokenizer::wordpiece::WordRules;
use crate::digest::{is_sealed, seal};
use crate::files;
use crate::settings::is_default;

/// The version of the manifest format. Other versions are rejected.
pub const MANIFEST_FORMAT: u32 = 2;

/// The next step for a user who named another directory.
const NAME_PREPARED: &str = "name a directory of prepared data";

/// The next step for a user whose data is damaged.
pub(super) const PREPARE_AGAIN: &str = "run `lambert prepare` again (set force to overwrite the data)";

/// The removal of repeated documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deduplication {
    /// None.
    #[default]
    Keep,
    /// Removes documents that are equal but for white space at line ends.
    Exact,
    /// Also removes near duplicates, found by MinHash signatures.
    Near,
}

/// Number of removed documents and bytes of their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    /// Number of documents.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Removed) {
        self.documents += other.documents;
        self.bytes += other.bytes;
    }
}

/// The options of a preparation. Equal options and inputs give equal data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareOptions {
    /// Options of reading the inputs.
    pub reading: ReadOptions,
    /// Share of the documents to hold out for evaluation.
    pub held_out: f64,
    /// Selects, together with a document's text, its split.
    pub seed: u64,
    /// Maximum tokens of a shard, exceeded only by the rest of its last document. The text is spread evenly over the
    /// shards. A longer document is split.
    pub shard_tokens: usize,
    /// Rules that a document must meet, in the order in which they are applied.
    pub filters: Vec<Filter>,
    /// The removal of repeated documents.
    pub duplicates: Deduplication,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            reading: ReadOptions::default(),
            held_out: 0.02,
            seed: 0,
            shard_tokens: 1 << 25,
            filters: Vec::new(),
            duplicates: Deduplication::Keep,
        }
    }
}

/// A shard as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// File name of the shard.
    pub file: String,
    /// The split of its documents.
    pub split: Split,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// sha256 of the file.
    pub sha256: String,
    /// Counts of the shard.
    pub counts: Counts,
}

/// The content of `prepared.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The sha256 of this file without these digits. Data of earlier versions does not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// sha256 of the vocabulary.
    pub vocabulary_sha256: String,
    /// Number of tokens in the vocabulary.
    pub vocabulary_size: usize,
    /// sha256 of each file of the tokenizer's copy. Data of earlier versions does not record it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokenizer: BTreeMap<String, String>,
    /// The identity of a tokenizer that is not BERT's WordPiece; the three settings after it are those of BERT's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineRules>,
    /// Whether the tokenizer lower-cases.
    pub lowercase: bool,
    /// Whether the tokenizer removes accents; absent if it does if and only if it lower-cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_accents: Option<bool>,
    /// Whether every Chinese character is a word; absent for `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenize_chinese_chars: Option<bool>,
    /// The version of the rules by which the text was read, [`TEXT_RULES`](crate::data::TEXT_RULES). Data of earlier versions does not
    /// record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_rules: Option<u32>,
    /// The options of the preparation.
    pub options: PrepareOptions,
    /// Counts of the training split.
    pub train: Counts,
    /// Counts of the held-out split.
    pub held_out: Counts,
    /// The counters of reading all inputs.
    pub reading: ReadCounts,
    /// Documents longer than a shard or 16 MiB of text, which are split. The key is that of format 2.
    #[serde(rename = "cut_documents")]
    pub overlong_documents: u64,
    /// Removed documents, by the name of the filter, or as `exact_duplicates` and `near_duplicates`.
    pub removed: BTreeMap<String, Removed>,
    /// The input files, in order.
    pub inputs: Vec<InputEntry>,
    /// The shards of both splits, in order.
    pub shards: Vec<ShardEntry>,
}

impl Manifest {
    /// Reads `DIR/prepared.json`.
    ///
    /// # Errors
    /// If the file does not exist; as [`Manifest::parse`].
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(MANIFEST);
        match files::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(DataError::file(directory, format!("a file {MANIFEST}"), "none", NAME_PREPARED))
            }
            read => Manifest::parse(&path, &read.map_err(DataError::io("read", &path))?),
        }
    }

    /// Parses the manifest with the content `text`, read from the file `path`.
    ///
    /// # Errors
    /// If the text is not a manifest, of another format, or not the one that was written.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let unreadable = |e: serde_json::Error| DataError::file(path, "a manifest", format!("{e}"), NAME_PREPARED);
        let Version { format } = serde_json::from_slice(text).map_err(unreadable)?;
        if format != MANIFEST_FORMAT {
            return Err(DataError::file(
                path,
                format!("format {MANIFEST_FORMAT}"),
                format!("format {format}"),
                "run `lambert prepare` again with this version (set force to overwrite the data)",
            ));
        }
        let manifest: Manifest = serde_json::from_slice(text).map_err(unreadable)?;
        match &manifest.sha256 {
            Some(sha256) if !is_sealed(&String::from_utf8_lossy(text), sha256) => {
                Err(DataError::file(path, "the content that it was written with", "another sha256", PREPARE_AGAIN))
            }
            _ => Ok(manifest),
        }
    }

    /// Returns the text of `prepared.json`.
    ///
    /// # Errors
    /// If a value has no JSON form.
    pub fn to_text(&self) -> serde_json::Result<String> {
        let unsealed = serde_json::to_string_pretty(&Manifest { sha256: Some(String::new()), ..self.clone() })?;
        Ok(seal(&(unsealed + "\n")))
    }

    /// Returns the rules of the tokenizer.
    pub fn rules(&self) -> TokenizerRules {
        self.pipeline.clone().map_or_else(
            || {
                let (strip_accents, chinese) = (self.strip_accents, self.tokenize_chinese_chars);
                TokenizerRules::WordPiece(WordRules::from_settings(self.lowercase, strip_accents, chinese))
            },
            TokenizerRules::Pipeline,
        )
    }

    /// Returns the counts of a split.
    pub fn counts(&self, split: Split) -> Counts {
        match split {
            Split::Train => self.train,
            Split::HeldOut => self.held_out,
        }
    }
}
