//! One shard of prepared data: a safetensors file of whole documents, as token ids and the places where sentences and
//! documents start. No pairs and no masks: those are made when a batch is.
//!
//! Starts are read into memory when a shard is opened (4 bytes a sentence); token ids stay in the file, and a batch
//! reads the ranges that it needs. The layout, byte by byte, is in `data/README.md`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{DataError, Result};
use super::prepared::Split;
use super::vocabulary::{Vocabulary, hexadecimal};

/// The version of this layout; another one is refused.
pub const SHARD_FORMAT: u32 = 1;

/// The one key of the file's `__metadata__`; its value is a [`ShardHeader`] as JSON. (One key, because the order of
/// several is not kept, and equal shards shall be equal bytes.)
const METADATA_KEY: &str = "lambert_prepared";

const TOKENS: &str = "tokens";
const SENTENCE_STARTS: &str = "sentence_starts";
const DOCUMENT_STARTS: &str = "document_starts";
const TOKEN_COUNTS: &str = "token_counts";

const DAMAGED: &str = "the file is damaged or is not one of ours: run `lambert prepare` again with --force";

/// How much text there is, in the units of this room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    pub documents: u64,
    pub sentences: u64,
    pub tokens: u64,
    /// Tokens that are `[UNK]`.
    pub unknown_tokens: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.documents += other.documents;
        self.sentences += other.sentences;
        self.tokens += other.tokens;
        self.unknown_tokens += other.unknown_tokens;
    }
}

/// What a shard says about itself, in the metadata of the safetensors file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardHeader {
    pub format: u32,
    pub split: Split,
    pub vocabulary_sha256: String,
    pub vocabulary_size: usize,
    pub counts: Counts,
    /// Name and sha256 of each input file of the whole preparation.
    pub sources: BTreeMap<String, String>,
}

/// Documents gathered in memory until they are written as one shard.
#[derive(Debug)]
pub struct ShardBuilder {
    /// Two bytes an id if the vocabulary has at most 65,536 entries, else four; little-endian.
    tokens: Vec<u8>,
    wide: bool,
    unknown_id: u32,
    sentence_starts: Vec<u32>,
    document_starts: Vec<u32>,
    token_counts: Vec<u64>,
}

impl ShardBuilder {
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

    /// Tokens gathered so far.
    pub fn tokens(&self) -> usize {
        self.tokens.len() / if self.wide { 4 } else { 2 }
    }

    /// Adds a sentence to the document at hand. An empty one is passed over.
    pub fn push_sentence(&mut self, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        for &id in ids {
            self.token_counts[id as usize] += 1;
            if self.wide {
                self.tokens.extend_from_slice(&id.to_le_bytes());
            } else {
                self.tokens.extend_from_slice(&(id as u16).to_le_bytes());
            }
        }
        self.sentence_starts.push(self.tokens() as u32);
    }

    /// Tokens of the document at hand.
    pub fn document_tokens(&self) -> usize {
        let first_sentence = self.document_starts[self.document_starts.len() - 1] as usize;
        self.tokens() - self.sentence_starts[first_sentence] as usize
    }

    /// Ends the document at hand. One without sentences does not exist.
    pub fn end_document(&mut self) {
        if self.document_tokens() > 0 {
            self.document_starts.push(self.sentence_starts.len() as u32 - 1);
        }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            documents: self.document_starts.len() as u64 - 1,
            sentences: self.sentence_starts.len() as u64 - 1,
            tokens: self.tokens() as u64,
            unknown_tokens: self.token_counts[self.unknown_id as usize],
        }
    }

    /// Bytes of the tensors, which the shard's file holds after its header.
    pub fn bytes(&self) -> usize {
        8 * self.token_counts.len() + 4 * (self.document_starts.len() + self.sentence_starts.len()) + self.tokens.len()
    }

    /// Writes the shard as a new file and returns its size and sha256.
    pub fn write(&self, path: &Path, header: &ShardHeader) -> io::Result<(u64, String)> {
        // Descending alignment, as safetensors wants it: every tensor then starts at a multiple of its element's size.
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

        let mut file = BufWriter::new(File::create_new(path)?);
        let mut hash = Sha256::new();
        let length = (text.len() as u64).to_le_bytes();
        for bytes in [&length[..], text.as_bytes()].into_iter().chain(parts.map(|part| part.3)) {
            hash.update(bytes);
            file.write_all(bytes)?;
        }
        file.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok(((8 + text.len() + end) as u64, hexadecimal(&hash.finalize())))
    }
}

/// A shard opened for reading.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    file: File,
    header: ShardHeader,
    /// Offset of token 0 in the file, and bytes of one token.
    tokens_at: u64,
    token_size: u64,
    token_counts_at: u64,
    /// `tokens` index at which sentence `i` starts; one more entry than sentences, the last is the number of tokens.
    sentence_starts: Vec<u32>,
    /// `sentence_starts` index at which document `i` starts; one more entry than documents.
    document_starts: Vec<u32>,
}

impl Shard {
    /// Opens a shard and checks everything that can be checked without reading its tokens: header, sizes against the
    /// file's length, starts ascending, counts, vocabulary.
    ///
    /// # Errors
    /// If the file is missing, truncated, of another format, or made with another vocabulary.
    pub fn open(path: &Path, split: Split, vocabulary: &Vocabulary) -> Result<Self> {
        let damaged = |required: &str, found: String| DataError::file(path, required, found, DAMAGED);
        let mut file = match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged("a shard", "no such file".into())),
            file => file.map_err(DataError::io("open", path))?,
        };
        let length = file.metadata().map_err(DataError::io("read the size of", path))?.len();

        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(|_| damaged("a safetensors header", format!("{length} bytes")))?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > length - 8 {
            return Err(damaged(
                "a safetensors header",
                format!("a header of {header_length} bytes in a file of {length}"),
            ));
        }
        let mut text = vec![0; header_length as usize];
        file.read_exact(&mut text).map_err(DataError::io("read", path))?;
        let metadata: Metadata = serde_json::from_slice(&text)
            .map_err(|e| damaged("a safetensors header", format!("one that reads: {e}")))?;
        let about = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY));
        let about = about.ok_or_else(|| damaged("a shard of prepared data", "another safetensors file".into()))?;
        let header: ShardHeader =
            serde_json::from_str(about).map_err(|e| damaged("a shard of prepared data", format!("metadata: {e}")))?;

        if header.format != SHARD_FORMAT {
            return Err(DataError::file(
                path,
                format!("format {SHARD_FORMAT}"),
                format!("format {}", header.format),
                "run `lambert prepare` of this version again with --force",
            ));
        }
        if header.vocabulary_sha256 != vocabulary.sha256() {
            return Err(DataError::file(
                path,
                format!("the vocabulary with sha256 {} ({} tokens)", vocabulary.sha256(), vocabulary.len()),
                format!("one with sha256 {} ({} tokens)", header.vocabulary_sha256, header.vocabulary_size),
                "the shard was made with another vocabulary: run `lambert prepare` again with --force",
            ));
        }
        if header.split != split {
            return Err(damaged(&format!("the split {split}"), format!("{}", header.split)));
        }

        let data_at = 8 + header_length;
        let Counts { documents, sentences, tokens, .. } = header.counts;
        let token_dtype = if vocabulary.len() > 1 << 16 { Dtype::U32 } else { Dtype::U16 };
        let mut data_length = 0;
        let mut locate = |name: &str, dtype: Dtype, elements: u64| -> Result<u64> {
            let info = metadata.info(name).ok_or_else(|| damaged(&format!("a tensor {name}"), "none".into()))?;
            let size = (dtype.bitsize() / 8) as u64;
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            if info.dtype != dtype || info.shape != [elements as usize] || end.wrapping_sub(start) != elements * size {
                return Err(damaged(
                    &format!("{name} {dtype:?}[{elements}]"),
                    format!("{:?}{:?} at {start}..{end}", info.dtype, info.shape),
                ));
            }
            data_length = data_length.max(end);
            Ok(data_at + start)
        };
        let token_counts_at = locate(TOKEN_COUNTS, Dtype::U64, vocabulary.len() as u64)?;
        let documents_at = locate(DOCUMENT_STARTS, Dtype::U32, documents.saturating_add(1))?;
        let sentences_at = locate(SENTENCE_STARTS, Dtype::U32, sentences.saturating_add(1))?;
        let tokens_at = locate(TOKENS, token_dtype, tokens)?;
        if data_at + data_length != length {
            return Err(damaged(&format!("{} bytes", data_at + data_length), format!("{length}")));
        }

        let starts = |at: u64, elements: u64, last: u64, name: &str| -> Result<Vec<u32>> {
            let mut values = vec![0u32; elements as usize];
            file.read_exact_at(bytemuck::cast_slice_mut(&mut values), at).map_err(DataError::io("read", path))?;
            let ascending = values.is_sorted_by(|a, b| a < b);
            if !ascending || values.first() != Some(&0) || values.last().map(|&x| x as u64) != Some(last) {
                return Err(damaged(&format!("{name} that ascend from 0 to {last}"), "others".into()));
            }
            Ok(values)
        };
        let sentence_starts = starts(sentences_at, sentences + 1, tokens, SENTENCE_STARTS)?;
        let document_starts = starts(documents_at, documents + 1, sentences, DOCUMENT_STARTS)?;
        let token_size = (token_dtype.bitsize() / 8) as u64;
        let path = path.to_owned();
        Ok(Shard { path, file, header, tokens_at, token_size, token_counts_at, sentence_starts, document_starts })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &ShardHeader {
        &self.header
    }

    pub fn counts(&self) -> Counts {
        self.header.counts
    }

    /// Sentences of a document, as indices of this shard's sentences.
    pub fn sentences_of(&self, document: usize) -> Range<usize> {
        self.document_starts[document] as usize..self.document_starts[document + 1] as usize
    }

    /// Document that a sentence belongs to.
    pub fn document_of(&self, sentence: usize) -> usize {
        self.document_starts.partition_point(|&start| start as usize <= sentence) - 1
    }

    /// Where the sentences of a document start among this shard's tokens, and where the last one ends.
    pub fn starts_of(&self, document: usize) -> &[u32] {
        let sentences = self.sentences_of(document);
        &self.sentence_starts[sentences.start..=sentences.end]
    }

    /// Reads token ids from the file.
    ///
    /// # Errors
    /// If the file cannot be read any more, or an id lies outside the vocabulary.
    pub fn read_tokens(&self, range: Range<u32>) -> Result<Vec<u32>> {
        let count = range.len();
        let at = self.tokens_at + range.start as u64 * self.token_size;
        let fail = DataError::io("read tokens of", &self.path);
        let ids = if self.token_size == 2 {
            let mut ids = vec![0u16; count];
            self.file.read_exact_at(bytemuck::cast_slice_mut(&mut ids), at).map_err(fail)?;
            ids.into_iter().map(u32::from).collect()
        } else {
            let mut ids = vec![0u32; count];
            self.file.read_exact_at(bytemuck::cast_slice_mut(&mut ids), at).map_err(fail)?;
            ids
        };
        match ids.iter().find(|&&id| id as usize >= self.header.vocabulary_size) {
            Some(id) => Err(DataError::file(
                &self.path,
                format!("token ids below {}", self.header.vocabulary_size),
                format!("{id} among the tokens {range:?}"),
                DAMAGED,
            )),
            None => Ok(ids),
        }
    }

    /// How often each token of the vocabulary stands in this shard.
    pub fn token_counts(&self) -> Result<Vec<u64>> {
        let mut counts = vec![0u64; self.header.vocabulary_size];
        self.file
            .read_exact_at(bytemuck::cast_slice_mut(&mut counts), self.token_counts_at)
            .map_err(DataError::io("read", &self.path))?;
        Ok(counts)
    }
}

/// sha256 of a file, in hexadecimal, read in pieces; `progress` hears of every piece's bytes.
pub fn sha256_of_file(path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<String> {
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    let mut buffer = vec![0; 1 << 20];
    let mut hash = Sha256::new();
    loop {
        let read = file.read(&mut buffer).map_err(DataError::io("read", path))?;
        if read == 0 {
            return Ok(hexadecimal(&hash.finalize()));
        }
        hash.update(&buffer[..read]);
        progress(read as u64);
    }
}
