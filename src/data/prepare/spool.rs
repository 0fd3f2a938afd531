//! Stores token blocks on disk, in the order in which threads finish them, until shards read them in the order of the
//! text. Each split has its own files, so that a file can be removed as soon as a few shards are written.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::token_block::{Head, TokenBlock, TokenForm};
use crate::data::error::{DataError, Result};
use crate::data::store::shard::Split;
use crate::files;

/// Bytes after which a file is closed and a new one started.
const FILE: u64 = 256 << 20;

/// The place of a token block, and its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spooled {
    pub file: u32,
    offset: u64,
    bytes: u64,
    xxh3: u64,
    pub documents: u32,
    pub sentences: u32,
    pub tokens: u64,
}

/// The token blocks of one split.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    split: Split,
    form: TokenForm,
    /// The current file and the place of the next block.
    end: Mutex<End>,
}

#[derive(Debug)]
struct End {
    file: Option<Arc<File>>,
    next_file: u32,
    offset: u64,
}

impl Spool {
    /// Opens the spool in `directory`. New files are numbered from `next_file`.
    pub fn new(directory: &Path, split: Split, form: TokenForm, next_file: u32) -> Self {
        let end = Mutex::new(End { file: None, next_file, offset: 0 });
        Spool { directory: directory.to_owned(), split, form, end }
    }

    pub fn token_size(&self) -> usize {
        self.form.token_size
    }

    pub fn path(&self, file: u32) -> PathBuf {
        self.directory.join(format!("{}-{file:05}.spool", self.split))
    }

    /// Appends a block. Only the reservation of the place is serialised; threads write in parallel.
    pub fn append(&self, block: &TokenBlock) -> Result<Spooled> {
        let bytes = block.to_bytes();
        let length = bytes.len() as u64;
        let (file, number, offset) = {
            let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let file = match &end.file {
                Some(file) if end.offset + length <= FILE => file.clone(),
                _ => {
                    let path = self.path(end.next_file);
                    // Blocks that an earlier run wrote here without a journal record are unused.
                    let file = Arc::new(File::create(&path).map_err(DataError::write(&path, bytes.len()))?);
                    *end = End { file: Some(file.clone()), next_file: end.next_file + 1, offset: 0 };
                    file
                }
            };
            let offset = end.offset;
            end.offset += length;
            (file, end.next_file - 1, offset)
        };
        file.write_all_at(&bytes, offset).map_err(DataError::write(self.path(number), bytes.len()))?;
        Ok(Spooled {
            file: number,
            offset,
            bytes: length,
            xxh3: xxh3_64(&bytes),
            documents: block.heads.len() as u32,
            sentences: block.sentence_lengths.len() as u32,
            tokens: block.tokens() as u64,
        })
    }

    /// Syncs the files of these blocks to disk.
    pub fn to_disk(&self, places: &[Spooled]) -> Result<()> {
        let files: BTreeSet<u32> = places.iter().map(|place| place.file).collect();
        files.into_iter().map(|file| self.path(file)).try_for_each(|path| {
            File::open(&path).and_then(|file| file.sync_all()).map_err(DataError::io("write", &path))
        })
    }

    fn read_bytes(&self, place: &Spooled, length: u64) -> Result<Vec<u8>> {
        let path = self.path(place.file);
        let mut bytes = vec![0; length as usize];
        let file = files::open(&path).map_err(DataError::io("open", &path))?;
        file.read_exact_at(&mut bytes, place.offset).map_err(DataError::io("read", &path))?;
        Ok(bytes)
    }

    /// Returns `true` if the block can be read and has its checksum.
    pub fn is_complete(&self, place: &Spooled) -> bool {
        self.read_bytes(place, place.bytes).is_ok_and(|bytes| xxh3_64(&bytes) == place.xxh3)
    }

    pub fn read(&self, place: &Spooled) -> Result<TokenBlock> {
        let bytes = self.read_bytes(place, place.bytes)?;
        if xxh3_64(&bytes) != place.xxh3 {
            return Err(DataError::file(
                self.path(place.file),
                "the tokens that were written",
                format!("other tokens at byte {}", place.offset),
                "the disk is unreliable: check it, then set force to start again",
            ));
        }
        Ok(TokenBlock::parse(self.form, place.documents, place.sentences, &bytes))
    }

    /// Reads only the signatures and heads.
    pub fn read_heads(&self, place: &Spooled) -> Result<(Vec<u64>, Vec<Head>)> {
        let bytes = self.read_bytes(place, TokenBlock::bytes_of_heads(self.form, place.documents) as u64)?;
        Ok(TokenBlock::parse_heads(self.form, place.documents, &bytes))
    }
}
