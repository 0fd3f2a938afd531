//! Reads a shard through a memory map: opening copies nothing, a batch reads only the pages it needs, and all processes
//! of a machine share them through the page cache.
//!
//! A read is a bounds check and a copy, without system call, lock or allocation. The map is read-only. `mapped_file.rs` says what
//! happens if another program truncates the file.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytemuck::{AnyBitPattern, NoUninit};
use safetensors::tensor::{Dtype, Metadata};

use super::mapped_file::MappedFile;
use super::shard::{
    Counts, DOCUMENT_STARTS, METADATA_KEY, SENTENCE_STARTS, SHARD_FORMAT, ShardHeader, Split, TOKEN_COUNTS, TOKENS,
};
use crate::data::error::{DataError, Result};
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::files;

const DAMAGED: &str =
    "the file is damaged or not a shard: run `lambert prepare` again (set force to overwrite the data)";

/// A shard opened for reading.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: MappedFile,
    header: ShardHeader,
    tokens: Tokens,
    token_counts: Tensor,
    /// Start of each sentence in `tokens`, and the number of tokens as the last element.
    sentence_starts: Tensor,
    /// Start of each document in `sentence_starts`, and the number of sentences as the last element.
    document_starts: Tensor,
}

/// Byte range of a tensor in the file: whole, aligned elements.
#[derive(Clone, Copy, Debug)]
struct Tensor {
    start: usize,
    end: usize,
}

/// Token ids: two bytes each if the vocabulary size is at most 65,536, else four.
#[derive(Clone, Copy, Debug)]
enum Tokens {
    Narrow(Tensor),
    Wide(Tensor),
}

impl Shard {
    /// Opens a shard and checks everything except its tokens: header, sizes against the file's length, ascending
    /// starts, counts, vocabulary.
    ///
    /// # Errors
    /// If the file is missing, truncated, of another format, or made with another vocabulary.
    pub fn open(path: &Path, split: Split, vocabulary: &Vocabulary) -> Result<Self> {
        let damaged = |required: &str, found: String| DataError::file(path, required, found, DAMAGED);
        let file = match files::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(damaged("a shard", "no such file".into())),
            file => file.map_err(DataError::io("open", path))?,
        };
        let length = file.metadata().map_err(DataError::io("read the size of", path))?.len();
        // An empty file cannot be mapped.
        if length < 8 {
            return Err(damaged("a safetensors header", format!("{length} bytes")));
        }
        let map = MappedFile::new(file, path).map_err(DataError::io("map", path))?;
        let length = map.len();

        let prefix = map.bytes(0, 8).and_then(|prefix| prefix.try_into().ok());
        let prefix = prefix.ok_or_else(|| damaged("a safetensors header", format!("{length} bytes")))?;
        let header_length = u64::from_le_bytes(prefix);
        let text = map.bytes(8, header_length).ok_or_else(|| {
            damaged("a safetensors header", format!("a header of {header_length} bytes in a file of {length}"))
        })?;
        let metadata: Metadata = serde_json::from_slice(text)
            .map_err(|e| damaged("a safetensors header", format!("an invalid one: {e}")))?;
        let about = metadata.metadata().as_ref().and_then(|m| m.get(METADATA_KEY));
        let about = about.ok_or_else(|| damaged("a shard of prepared data", "another safetensors file".into()))?;
        let header: ShardHeader =
            serde_json::from_str(about).map_err(|e| damaged("a shard of prepared data", format!("metadata: {e}")))?;

        if header.format != SHARD_FORMAT {
            return Err(DataError::file(
                path,
                format!("format {SHARD_FORMAT}"),
                format!("format {}", header.format),
                "run `lambert prepare` again with this version (set force to overwrite the data)",
            ));
        }
        if header.vocabulary_sha256 != vocabulary.sha256() {
            return Err(DataError::file(
                path,
                format!("the vocabulary with sha256 {} ({} tokens)", vocabulary.sha256(), vocabulary.len()),
                format!("one with sha256 {} ({} tokens)", header.vocabulary_sha256, header.vocabulary_size),
                "the shard was made with another vocabulary: run `lambert prepare` again (set force to overwrite the data)",
            ));
        }
        if header.split != split {
            return Err(damaged(&format!("the split {split}"), format!("{}", header.split)));
        }

        let data_at = 8 + header_length;
        let Counts { documents, sentences, tokens, .. } = header.counts;
        let mut data_length = 0;
        let mut locate = |name: &str, dtype: Dtype, elements: u64| -> Result<Tensor> {
            let info = metadata.info(name).ok_or_else(|| damaged(&format!("a tensor {name}"), "none".into()))?;
            let size = (dtype.bitsize() / 8) as u64;
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let fits = info.shape == [elements as usize] && end.checked_sub(start) == elements.checked_mul(size);
            // A map starts at a page, so an aligned offset is an aligned address.
            if info.dtype != dtype || !fits || !(data_at + start).is_multiple_of(size) {
                return Err(damaged(
                    &format!("{name} {dtype}[{elements}] at a multiple of {size}"),
                    format!("{}{:?} at {start}..{end}", info.dtype, info.shape),
                ));
            }
            data_length = data_length.max(end);
            Ok(Tensor { start: (data_at + start) as usize, end: (data_at + end) as usize })
        };
        let token_counts = locate(TOKEN_COUNTS, Dtype::U64, vocabulary.len() as u64)?;
        let document_starts = locate(DOCUMENT_STARTS, Dtype::U32, documents.saturating_add(1))?;
        let sentence_starts = locate(SENTENCE_STARTS, Dtype::U32, sentences.saturating_add(1))?;
        let tokens_at = match vocabulary.len() > 1 << 16 {
            true => Tokens::Wide(locate(TOKENS, Dtype::U32, tokens)?),
            false => Tokens::Narrow(locate(TOKENS, Dtype::U16, tokens)?),
        };
        if data_at + data_length != length {
            return Err(damaged(&format!("{} bytes", data_at + data_length), format!("{length}")));
        }

        let path = path.to_owned();
        let shard = Shard { path, map, header, tokens: tokens_at, token_counts, sentence_starts, document_starts };
        for (starts, last, name) in
            [(shard.sentence_starts(), tokens, SENTENCE_STARTS), (shard.document_starts(), sentences, DOCUMENT_STARTS)]
        {
            let ascending = starts.is_sorted_by(|a, b| a < b);
            if !ascending || starts.first() != Some(&0) || starts.last().map(|&x| x as u64) != Some(last) {
                let required = format!("{name} to ascend from 0 to {last}");
                return Err(DataError::file(&shard.path, required, "others", DAMAGED));
            }
        }
        Ok(shard)
    }

    /// Checks that the file is as long as when it was opened, with one system call.
    ///
    /// # Errors
    /// If another program has truncated or extended it.
    pub fn check_length(&self) -> Result<()> {
        self.map.check_length()
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the metadata of the file.
    pub fn header(&self) -> &ShardHeader {
        &self.header
    }

    /// Returns the counts of the shard.
    pub fn counts(&self) -> Counts {
        self.header.counts
    }

    /// Returns the sentences of a document, as indices of this shard's sentences.
    pub fn sentences_of(&self, document: usize) -> Range<usize> {
        let starts = self.document_starts();
        starts[document] as usize..starts[document + 1] as usize
    }

    /// Returns the number of documents that have one sentence only.
    pub(super) fn documents_of_one_sentence(&self) -> usize {
        self.document_starts().windows(2).filter(|starts| starts[1] - starts[0] == 1).count()
    }

    /// Returns the document that a sentence belongs to.
    pub fn document_of(&self, sentence: usize) -> usize {
        self.document_starts().partition_point(|&start| start as usize <= sentence) - 1
    }

    /// Returns the start of each sentence of a document among this shard's tokens, and the end of the last one.
    pub fn starts_of(&self, document: usize) -> &[u32] {
        let sentences = self.sentences_of(document);
        &self.sentence_starts()[sentences.start..=sentences.end]
    }

    /// Returns token ids of the shard.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn read_tokens(&self, range: Range<u32>) -> Result<Vec<u32>> {
        let mut ids = vec![0i32; range.len()];
        self.copy_tokens(range, &mut ids)?;
        Ok(bytemuck::cast_vec(ids))
    }

    /// Copies the token ids of `range` into `output`, which has the same length.
    ///
    /// # Errors
    /// If an id is outside the vocabulary. The content of `output` is then unspecified.
    ///
    /// # Panics
    /// If the range ends behind the shard's tokens, or `output` has another length.
    pub fn copy_tokens(&self, range: Range<u32>, output: &mut [i32]) -> Result<()> {
        let within = range.start as usize..range.end as usize;
        // Two branch-free loops each, which the compiler vectorises.
        let largest = match self.tokens {
            Tokens::Narrow(tensor) => {
                let ids = &self.tensor::<u16>(tensor)[within];
                assert_eq!(ids.len(), output.len(), "the output must have the length of the range");
                output.iter_mut().zip(ids).for_each(|(output, &id)| *output = id as i32);
                ids.iter().fold(0, |largest, &id| largest.max(id)) as u32
            }
            Tokens::Wide(tensor) => {
                let ids = &self.tensor::<u32>(tensor)[within];
                assert_eq!(ids.len(), output.len(), "the output must have the length of the range");
                output.iter_mut().zip(ids).for_each(|(output, &id)| *output = id as i32);
                ids.iter().fold(0, |largest, &id| largest.max(id))
            }
        };
        if largest as usize >= self.header.vocabulary_size {
            return Err(DataError::file(
                &self.path,
                format!("token ids below {}", self.header.vocabulary_size),
                format!("{largest} among the tokens {range:?}"),
                DAMAGED,
            ));
        }
        Ok(())
    }

    /// Returns how often each token of the vocabulary occurs in this shard.
    pub fn token_counts(&self) -> &[u64] {
        self.tensor(self.token_counts)
    }

    fn sentence_starts(&self) -> &[u32] {
        self.tensor(self.sentence_starts)
    }

    fn document_starts(&self) -> &[u32] {
        self.tensor(self.document_starts)
    }

    fn tensor<T: AnyBitPattern + NoUninit>(&self, tensor: Tensor) -> &[T] {
        let bytes = self.map.bytes(tensor.start as u64, (tensor.end - tensor.start) as u64);
        bytemuck::cast_slice(bytes.expect("the place was checked against the map's length when the shard was opened"))
    }
}
