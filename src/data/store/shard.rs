//! Writes a shard of prepared data: a safetensors file with the token ids of whole documents and the starts of their
//! sentences and documents. Pairs and masks are made later, with each batch. `docs/data.md` specifies the layout byte
//! by byte; [`Shard`](super::shard_reader::Shard) reads it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::digest::Sha256Writer;

/// The version of the shard layout. Other versions are rejected.
pub const SHARD_FORMAT: u32 = 1;

/// The only key of the file's `__metadata__`; its value is a [`ShardHeader`] in JSON. With several keys, whose order is
/// not fixed, equal shards would not be equal bytes.
pub(super) const METADATA_KEY: &str = "lambert_prepared";

pub(super) const TOKENS: &str = "tokens";
pub(super) const SENTENCE_STARTS: &str = "sentence_starts";
pub(super) const DOCUMENT_STARTS: &str = "document_starts";
pub(super) const TOKEN_COUNTS: &str = "token_counts";

/// The part of the documents used for training or for evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Documents for training.
    Train,
    /// Documents for evaluation.
    HeldOut,
}

impl Split {
    /// Returns the name used in file names and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::HeldOut => "held_out",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers of documents, sentences and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Number of documents.
    pub documents: u64,
    /// Number of sentences.
    pub sentences: u64,
    /// Number of tokens.
    pub tokens: u64,
    /// Tokens that are `[UNK]`.
    pub unknown_tokens: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { documents, sentences, tokens, unknown_tokens } = self;
        write!(f, "{documents} documents, {sentences} sentences, {tokens} tokens, {unknown_tokens} of them [UNK]")
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.documents += other.documents;
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        self.unknown_tokens += other.unknown_tokens;
    }
}

/// The metadata of a shard's safetensors file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardHeader {
    /// [`SHARD_FORMAT`].
    pub format: u32,
    /// The split of the documents.
    pub split: Split,
    /// sha256 of the vocabulary.
    pub vocabulary_sha256: String,
    /// Number of tokens in the vocabulary.
    pub vocabulary_size: usize,
    /// Counts of the shard.
    pub counts: Counts,
    /// Name and sha256 of each input file of the whole preparation.
    pub sources: BTreeMap<String, String>,
}

/// Collects documents in memory and writes them as one shard.
#[derive(Debug)]
pub struct ShardBuilder {
    /// Two bytes per id if the vocabulary size is at most 65,536, else four; little-endian.
    tokens: Vec<u8>,
    wide: bool,
    unknown_id: u32,
    sentence_starts: Vec<u32>,
    document_starts: Vec<u32>,
    token_counts: Vec<u64>,
}

/// Appends ids in the format of a shard: four bytes each if `wide`, else two; little-endian.
pub(crate) fn append_ids(bytes: &mut Vec<u8>, ids: &[u32], wide: bool) {
    if wide {
        ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
    } else {
        // In one piece: growing by two bytes at a time would dominate the cost.
        let narrow: Vec<u16> = ids.iter().map(|&id| (id as u16).to_le()).collect();
        bytes.extend_from_slice(bytemuck::cast_slice(&narrow));
    }
}

impl ShardBuilder {
    /// Creates an empty shard.
    pub fn new(vocabulary: &Vocabulary) -> Self {
        ShardBuilder {
            tokens: Vec::new(),
            wide: vocabulary.len() > 1 << 16,
            unknown_id: vocabulary.special().unk,
            sentence_starts: vec![0],
            document_starts: vec![0],
            token_counts: vec![0; vocabulary.len()],
        }
    }

    /// Returns the number of tokens collected so far.
    pub fn tokens(&self) -> usize {
        self.tokens.len() / if self.wide { 4 } else { 2 }
    }

    /// Adds a sentence to the current document. An empty one is skipped.
    pub fn push_sentence(&mut self, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        ids.iter().for_each(|&id| self.token_counts[id as usize] += 1);
        append_ids(&mut self.tokens, ids, self.wide);
        self.sentence_starts.push(self.tokens() as u32);
    }

    /// Returns the number of tokens of the current document.
    pub fn document_tokens(&self) -> usize {
        let first_sentence = self.document_starts[self.document_starts.len() - 1] as usize;
        self.tokens() - self.sentence_starts[first_sentence] as usize
    }

    /// Ends the current document. A document without sentences is dropped.
    pub fn end_document(&mut self) {
        if self.document_tokens() > 0 {
            self.document_starts.push(self.sentence_starts.len() as u32 - 1);
        }
    }

    /// Returns the counts of the documents collected so far.
    pub fn counts(&self) -> Counts {
        Counts {
            documents: self.document_starts.len() as u64 - 1,
            sentences: self.sentence_starts.len() as u64 - 1,
            tokens: self.tokens() as u64,
            unknown_tokens: self.token_counts[self.unknown_id as usize],
        }
    }

    /// Returns the size of the tensors in bytes, which follow the header in the file.
    pub fn bytes(&self) -> usize {
        8 * self.token_counts.len() + 4 * (self.document_starts.len() + self.sentence_starts.len()) + self.tokens.len()
    }

    /// Writes the shard as a new file and returns its size and sha256.
    pub fn write(&self, path: &Path, header: &ShardHeader) -> io::Result<(u64, String)> {
        // In order of descending alignment, as in every safetensors file: each tensor starts at a multiple of its
        // element size.
        let parts: [(&str, Dtype, usize, &[u8]); 4] = [
            (TOKEN_COUNTS, Dtype::U64, 8, bytemuck::cast_slice(&self.token_counts)),
            (DOCUMENT_STARTS, Dtype::U32, 4, bytemuck::cast_slice(&self.document_starts)),
            (SENTENCE_STARTS, Dtype::U32, 4, bytemuck::cast_slice(&self.sentence_starts)),
            match self.wide {
                true => (TOKENS, Dtype::U32, 4, &self.tokens),
                false => (TOKENS, Dtype::U16, 2, &self.tokens),
            },
        ];
        let mut end = 0;
        let infos = parts.map(|(name, dtype, size, bytes)| {
            let start = end;
            end += bytes.len();
            (name.to_owned(), TensorInfo { dtype, shape: vec![bytes.len() / size], data_offsets: (start, end) })
        });
        let about = HashMap::from([(METADATA_KEY.to_owned(), serde_json::to_string(header)?)]);
        let metadata = Metadata::new(Some(about), infos.to_vec()).map_err(io::Error::other)?;
        let mut text = serde_json::to_string(&metadata)?;
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));

        let mut file = Sha256Writer::new(BufWriter::new(File::create_new(path)?));
        let length = (text.len() as u64).to_le_bytes();
        for bytes in [&length[..], text.as_bytes()].into_iter().chain(parts.map(|part| part.3)) {
            file.write_all(bytes)?;
        }
        let bytes = file.bytes();
        let (file, sha256) = file.finish();
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok((bytes, sha256))
    }
}
