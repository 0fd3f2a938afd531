//! A directory of prepared data: `prepared.json` says what was made from what, `tokenizer/` is a copy of the tokenizer
//! that made the ids, and the shards of the two splits hold the documents.
//!
//! [`Prepared::open`] checks everything but the tokens themselves; [`Prepared::verify`] also reads every byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shard::{Counts, Split};
use super::shard_reader::Shard;
use crate::data::corpus::{ReadCounts, ReadOptions, Source};
use crate::data::error::{DataError, Result};
use crate::data::prepare::filter::Filter;
use crate::data::tokenizer::vocabulary::Vocabulary;

/// The version of the manifest's form; another one is refused.
pub const MANIFEST_FORMAT: u32 = 2;
/// File name of the manifest.
pub const MANIFEST: &str = "prepared.json";
/// Directory of the tokenizer's copy, within a prepared directory.
pub const TOKENIZER_DIRECTORY: &str = "tokenizer";

/// The next move of one who named another directory.
const NAME_PREPARED: &str = "name a directory that `lambert prepare` made";

/// Which documents are left out because they stood earlier in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deduplication {
    /// None.
    #[default]
    Keep,
    /// Equal ones, but for white space at the ends of lines.
    Exact,
    /// Nearly equal ones as well, by MinHash signatures.
    Near,
}

/// Documents that were left out, and the bytes of their text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removed {
    pub documents: u64,
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Removed) {
        self.documents += other.documents;
        self.bytes += other.bytes;
    }
}

/// The settings that decide what is prepared; two preparations with equal settings and inputs are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepareOptions {
    pub reading: ReadOptions,
    /// Share of the documents that is kept apart.
    pub held_out: f64,
    /// Decides, with a document's text, which split it goes to.
    pub seed: u64,
    /// Tokens that a shard has at most, but for the rest of its last document; shards share the text evenly. A document
    /// longer than this is cut.
    pub shard_tokens: usize,
    /// Rules that a document must meet, in the order in which they are asked.
    pub filters: Vec<Filter>,
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

/// An input file as it was when it was prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    pub name: String,
    pub bytes: u64,
    /// Nanoseconds since 1970 of the last modification.
    pub modified: u64,
    pub sha256: String,
    /// The source that it belongs to, with its weight.
    #[serde(default, skip_serializing_if = "is_default")]
    pub source: Source,
    /// What was met while reading it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reading: ReadCounts,
    /// Documents of it to train on, each as often as it was taken.
    #[serde(default, skip_serializing_if = "is_default")]
    pub train_documents: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A shard as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    pub file: String,
    pub split: Split,
    pub bytes: u64,
    pub sha256: String,
    pub counts: Counts,
}

/// The content of `prepared.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub vocabulary_sha256: String,
    pub vocabulary_size: usize,
    /// sha256 of each file of the tokenizer's copy. Data of earlier versions does not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokenizer: BTreeMap<String, String>,
    /// Whether the tokenizer lower-cases; part of what decides the ids.
    pub lowercase: bool,
    pub options: PrepareOptions,
    pub train: Counts,
    pub held_out: Counts,
    /// What was met while reading the inputs.
    pub reading: ReadCounts,
    /// Documents that were cut because they were longer than a shard, or than 16 MiB of text.
    pub cut_documents: u64,
    /// What was left out, by the name of the filter, or as `exact_duplicates` and `near_duplicates`.
    pub removed: BTreeMap<String, Removed>,
    pub inputs: Vec<SourceEntry>,
    pub shards: Vec<ShardEntry>,
}

impl Manifest {
    /// Reads `DIR/prepared.json`.
    ///
    /// # Errors
    /// If there is none; as [`Manifest::parse`].
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(MANIFEST);
        match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(DataError::file(directory, format!("a file {MANIFEST}"), "none", NAME_PREPARED))
            }
            read => Manifest::parse(&path, &read.map_err(DataError::io("read", &path))?),
        }
    }

    /// The manifest that is the text of the file `path`.
    ///
    /// # Errors
    /// If it is none, or of another format.
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
                "run `lambert prepare` of this version again with --force",
            ));
        }
        serde_json::from_slice(text).map_err(unreadable)
    }

    pub fn counts(&self, split: Split) -> Counts {
        match split {
            Split::Train => self.train,
            Split::HeldOut => self.held_out,
        }
    }
}

/// The shards of one split as one sequence of documents and one sequence of sentences.
#[derive(Debug)]
pub struct Documents {
    shards: Vec<Shard>,
    /// Index of each shard's first document and first sentence; one more entry than shards.
    first_document: Vec<usize>,
    first_sentence: Vec<usize>,
}

impl Documents {
    fn new(shards: Vec<Shard>) -> Self {
        let sums = |count: fn(&Counts) -> u64| {
            let mut sum = 0;
            let firsts = shards.iter().map(|shard| {
                let first = sum;
                sum += count(&shard.counts()) as usize;
                first
            });
            let mut firsts: Vec<usize> = firsts.collect();
            firsts.push(sum);
            firsts
        };
        let (first_document, first_sentence) = (sums(|c| c.documents), sums(|c| c.sentences));
        Documents { shards, first_document, first_sentence }
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.first_document[self.shards.len()]
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of sentences of all documents.
    pub fn sentences(&self) -> usize {
        self.first_sentence[self.shards.len()]
    }

    /// Document `index` of the split.
    pub fn get(&self, index: usize) -> Document<'_> {
        let shard = self.first_document.partition_point(|&first| first <= index) - 1;
        let local = index - self.first_document[shard];
        let reader = &self.shards[shard];
        Document {
            index,
            first_sentence: self.first_sentence[shard] + reader.sentences_of(local).start,
            starts: reader.starts_of(local),
            shard: reader,
        }
    }

    /// The document that holds sentence `sentence` of the split.
    pub fn of_sentence(&self, sentence: usize) -> Document<'_> {
        let shard = self.first_sentence.partition_point(|&first| first <= sentence) - 1;
        let local = self.shards[shard].document_of(sentence - self.first_sentence[shard]);
        self.get(self.first_document[shard] + local)
    }

    /// How often each token of the vocabulary stands in the split.
    pub fn token_counts(&self, vocabulary_size: usize) -> Vec<u64> {
        let mut sum = vec![0; vocabulary_size];
        for shard in &self.shards {
            for (total, count) in sum.iter_mut().zip(shard.token_counts()) {
                *total += count;
            }
        }
        sum
    }
}

/// One document: where its sentences start, and the shard that holds its tokens.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a> {
    /// Index of the document in the split.
    pub index: usize,
    /// Index of its first sentence in the split.
    pub first_sentence: usize,
    /// Start of each sentence among the shard's tokens, and the end of the last.
    pub starts: &'a [u32],
    pub shard: &'a Shard,
}

/// A directory of prepared data, opened.
#[derive(Debug)]
pub struct Prepared {
    directory: PathBuf,
    manifest: Manifest,
    vocabulary: Vocabulary,
    train: Documents,
    held_out: Documents,
}

impl Prepared {
    /// Opens a directory that `prepare` made. Reads the manifest, the vocabulary and the starts of all sentences
    /// (4 bytes a sentence), and checks each shard's size, counts and vocabulary.
    ///
    /// # Errors
    /// If a file is missing, truncated, of another format, or belongs to another vocabulary.
    pub fn open(directory: &Path) -> Result<Self> {
        let manifest = Manifest::read(directory)?;
        let vocabulary_file = directory.join(TOKENIZER_DIRECTORY).join("vocab.txt");
        let vocabulary = Vocabulary::read(&vocabulary_file)?;
        if vocabulary.sha256() != manifest.vocabulary_sha256 {
            return Err(DataError::file(
                &vocabulary_file,
                format!(
                    "the vocabulary with sha256 {} ({} tokens)",
                    manifest.vocabulary_sha256, manifest.vocabulary_size
                ),
                format!("one with sha256 {} ({} tokens)", vocabulary.sha256(), vocabulary.len()),
                "put the vocabulary back that the data was prepared with, or run `lambert prepare` again with --force",
            ));
        }
        let open = |split: Split| -> Result<Documents> {
            let mut shards = Vec::new();
            for entry in manifest.shards.iter().filter(|entry| entry.split == split) {
                let shard = Shard::open(&directory.join(&entry.file), split, &vocabulary)?;
                if shard.counts() != entry.counts {
                    return Err(DataError::file(
                        shard.path(),
                        format!("the counts that {MANIFEST} gives, {:?}", entry.counts),
                        format!("{:?}", shard.counts()),
                        "the directory mixes two preparations: run `lambert prepare` again with --force",
                    ));
                }
                shards.push(shard);
            }
            let documents = Documents::new(shards);
            // An epoch's table holds sentence numbers in 32 bits.
            if documents.sentences() > u32::MAX as usize {
                return Err(DataError::file(
                    directory,
                    format!("at most {} sentences in a split", u32::MAX),
                    documents.sentences().to_string(),
                    "prepare the inputs as several directories",
                ));
            }
            Ok(documents)
        };
        let (train, held_out) = (open(Split::Train)?, open(Split::HeldOut)?);
        Ok(Prepared { directory: directory.to_owned(), manifest, vocabulary, train, held_out })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The tokenizer that made the data, ready to be copied beside an exported model.
    pub fn tokenizer_directory(&self) -> PathBuf {
        self.directory.join(TOKENIZER_DIRECTORY)
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    pub fn documents(&self, split: Split) -> &Documents {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }

    /// How often each token of the vocabulary stands in a split.
    pub fn token_counts(&self, split: Split) -> Vec<u64> {
        self.documents(split).token_counts(self.vocabulary.len())
    }
}
