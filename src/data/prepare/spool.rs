//! Stores token blocks on disk, in the order in which threads finish them, until shards read them in the order of the
//! text. Each split has its own files, so that a file can be removed as soon as a few shards are written.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::blocks::BlockId;
use super::token_block::{Head, TokenBlock, TokenForm};
use super::work_files::{CHECK_THE_DISK, SPOOL};
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

impl Spooled {
    /// Returns `true` if the files of a split in `directory` are long enough for this place.
    pub fn is_in(&self, directory: &Path, split: Split) -> bool {
        let metadata = fs::metadata(directory.join(file_name(split, self.file)));
        metadata.is_ok_and(|metadata| metadata.len() >= self.offset + self.bytes)
    }
}

fn file_name(split: Split, file: u32) -> String {
    format!("{split}-{file:05}.{SPOOL}")
}

/// The token blocks of both splits.
#[derive(Debug)]
pub(super) struct Spools {
    pub train: Spool,
    pub held_out: Spool,
}

impl Spools {
    /// Creates spools without a directory.
    pub fn new(form: TokenForm) -> Spools {
        Spools { train: Spool::new(Split::Train, form), held_out: Spool::new(Split::HeldOut, form) }
    }

    pub fn of(&self, split: Split) -> &Spool {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }

    /// Adds a directory to both, as [`Spool::push_directory`].
    pub fn push_directory(&mut self, directory: &Path, files: u32) -> u32 {
        self.train.push_directory(directory, files);
        self.held_out.push_directory(directory, files)
    }

    /// Syncs the files of these blocks to disk.
    pub fn to_disk(&self, blocks: &[(BlockId, Split, Spooled)]) -> Result<()> {
        let files: BTreeSet<(Split, u32)> = blocks.iter().map(|(_, split, place)| (*split, place.file)).collect();
        files.into_iter().try_for_each(|(split, file)| self.of(split).file_to_disk(file))
    }
}

/// The token blocks of one split.
#[derive(Debug)]
pub(super) struct Spool {
    split: Split,
    form: TokenForm,
    /// The number of the first file of each directory. Files are numbered through all directories; within one, they are named from 0.
    directories: Vec<(u32, PathBuf)>,
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
    /// Creates a spool without a directory.
    pub fn new(split: Split, form: TokenForm) -> Self {
        let end = Mutex::new(End { file: None, next_file: 0, offset: 0 });
        Spool { split, form, directories: Vec::new(), end }
    }

    /// Adds a directory, in which `files` files may exist already, and returns the number of its first file. Blocks are appended to new
    /// files in the last directory.
    pub fn push_directory(&mut self, directory: &Path, files: u32) -> u32 {
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        let first = end.next_file;
        self.directories.push((first, directory.to_owned()));
        *end = End { file: None, next_file: first + files, offset: 0 };
        first
    }

    pub fn token_size(&self) -> usize {
        self.form.token_size
    }

    pub fn path(&self, file: u32) -> PathBuf {
        let (first, directory) = self
            .directories
            .iter()
            .rfind(|(first, _)| *first <= file)
            .expect("a file has a number of one of the directories");
        directory.join(file_name(self.split, file - first))
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

    /// Syncs a file to disk.
    fn file_to_disk(&self, file: u32) -> Result<()> {
        let path = self.path(file);
        File::open(&path).and_then(|file| file.sync_all()).map_err(DataError::io("write", &path))
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
                CHECK_THE_DISK,
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
