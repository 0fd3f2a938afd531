//! The journal of a preparation: one line of JSON for each finished piece of work, in order of completion. The state is
//! the fold over the lines, both while the work runs and after an interruption.
//!
//! A line is written after the work it records, without fsync. A crash of the machine can lose blocks whose lines
//! remain; so blocks carry checksums, and a damaged block is tokenized again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::blocks::BlockId;
use super::sorted::SortedRun;
use super::spool::Spooled;
use super::work_files::JOURNAL;
use crate::data::corpus::ReadCounts;
use crate::data::error::{DataError, Result};
use crate::data::store::manifest::{Manifest, Removed, ShardEntry};
use crate::data::store::shard::Split;
use crate::files;

/// A finished piece of work.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum JournalRecord {
    /// The start: the request as a manifest without results.
    Begun(Box<Manifest>),
    /// An input is hashed.
    Hashed { input: usize, sha256: String },
    /// A block is tokenized.
    Tokenized(BlockId, BlockRecord),
    /// A part was read to its end and has this many blocks.
    Read { part: u32, blocks: u32 },
    /// A part of the preparation is tokenized, and the signatures of its documents are in these files.
    Sorted(Vec<SortedRun>),
    /// The tokens are those of this many parts of the preparation.
    Joined { parts: u32 },
    /// A shard is written.
    Written(ShardEntry),
}

/// The result of tokenizing a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockRecord {
    /// Places of the tokens; `None` if there are none.
    pub train: Option<Spooled>,
    pub held_out: Option<Spooled>,
    pub counts: ReadCounts,
    #[serde(rename = "cut_documents")]
    pub overlong_documents: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, Removed>,
}

/// All finished work.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub begun: Option<Box<Manifest>>,
    /// sha256 of inputs.
    pub hashed: BTreeMap<usize, String>,
    pub blocks: BTreeMap<BlockId, BlockRecord>,
    /// Number of blocks of the parts that were read to their end.
    pub parts: BTreeMap<u32, u32>,
    /// Files of signatures, if this is a complete part of a preparation.
    pub sorted: Option<Vec<SortedRun>>,
    /// Number of parts, if the tokens are in those.
    pub joined: Option<u32>,
    /// Shards by file name.
    pub shards: BTreeMap<String, ShardEntry>,
}

impl Done {
    fn add(&mut self, record: JournalRecord) {
        match record {
            JournalRecord::Begun(manifest) => self.begun = Some(manifest),
            JournalRecord::Hashed { input, sha256 } => drop(self.hashed.insert(input, sha256)),
            JournalRecord::Tokenized(id, record) => drop(self.blocks.insert(id, record)),
            JournalRecord::Read { part, blocks } => drop(self.parts.insert(part, blocks)),
            JournalRecord::Sorted(runs) => self.sorted = Some(runs),
            JournalRecord::Joined { parts } => self.joined = Some(parts),
            JournalRecord::Written(entry) => drop(self.shards.insert(entry.file.clone(), entry)),
        }
    }

    /// Returns the manifest of the start, with the sha256 of the inputs hashed so far.
    pub fn begun_from(&self) -> Option<Manifest> {
        let mut manifest = self.begun.as_deref().cloned()?;
        for (input, sha256) in &self.hashed {
            if let Some(entry) = manifest.inputs.get_mut(*input) {
                entry.sha256.clone_from(sha256);
            }
        }
        Some(manifest)
    }

    /// Returns the token blocks of both splits, in the order of the text; of each block of text, the training documents come first.
    pub fn places(&self) -> Vec<(BlockId, Split, Spooled)> {
        let splits = |(&id, record): (&BlockId, &BlockRecord)| {
            [(id, Split::Train, record.train), (id, Split::HeldOut, record.held_out)]
        };
        self.blocks.iter().flat_map(splits).filter_map(|(id, split, place)| Some((id, split, place?))).collect()
    }

    /// Returns the number behind the last spool file.
    pub fn next_file(&self) -> u32 {
        self.places().iter().map(|(_, _, place)| place.file + 1).max().unwrap_or(0)
    }

    /// Adds the text of a part of the preparation, whose spool files have the numbers from `first_file`.
    pub fn absorb(&mut self, part: Done, first_file: u32) {
        self.hashed.extend(part.hashed);
        self.parts.extend(part.parts);
        for (id, mut record) in part.blocks {
            for place in [&mut record.train, &mut record.held_out].into_iter().flatten() {
                place.file += first_file;
            }
            self.blocks.insert(id, record);
        }
    }

    /// Returns `true` if a part was read to its end and all its blocks are tokenized.
    pub fn has_part(&self, part: u32) -> bool {
        let Some(&blocks) = self.parts.get(&part) else { return false };
        self.blocks.range(BlockId { part, index: 0 }..BlockId { part: part + 1, index: 0 }).count() == blocks as usize
    }
}

/// The open journal of a preparation.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    state: Mutex<(File, u64, Done)>,
}

impl Journal {
    /// Opens or creates the journal in `directory`. An incomplete last line is dropped.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not a record of this version.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(JOURNAL);
        let file = files::append(&path).map_err(DataError::io("open", &path))?;
        let text = files::read(&path).map_err(DataError::io("read", &path))?;
        let complete = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(complete as u64).map_err(DataError::io("shorten", &path))?;
        let mut done = Done::default();
        for (number, line) in
            text[..complete].split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
        {
            done.add(serde_json::from_slice(line).map_err(|error| {
                let found = format!("another record on line {}: {error}", number + 1);
                DataError::file(&path, "a journal of this version", found, "set force to discard it and start again")
            })?);
        }
        Ok(Journal { path, state: Mutex::new((file, complete as u64, done)) })
    }

    fn state(&self) -> MutexGuard<'_, (File, u64, Done)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a finished piece of work.
    pub fn record(&self, record: JournalRecord) -> Result<()> {
        let line = serde_json::to_string(&record).map_err(|e| DataError::io("write", &self.path)(e.into()))? + "\n";
        let (file, length, done) = &mut *self.state();
        if let Err(error) = file.write_all(line.as_bytes()) {
            // Remove the partial line, or another thread's line would follow it. Truncating needs no disk space; if it
            // fails, the next open reports the damaged line.
            let _ = file.set_len(*length);
            return Err(DataError::write(&self.path, line.len())(error));
        }
        *length += line.len() as u64;
        done.add(record);
        Ok(())
    }

    /// Syncs all records to disk.
    pub fn to_disk(&self) -> Result<()> {
        self.state().0.sync_all().map_err(DataError::io("write", &self.path))
    }

    /// Reads the finished work.
    pub fn read<T>(&self, question: impl FnOnce(&Done) -> T) -> T {
        question(&self.state().2)
    }

    /// Returns the finished work.
    pub fn into_done(self) -> Done {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).2
    }

    /// Adds the text of all parts of a preparation, for this run.
    pub fn absorb(&self, parts: Done) {
        self.state().2.absorb(parts, 0);
    }

    /// Discards lost blocks, for this run.
    pub fn forget(&self, lost: &[BlockId]) {
        let done = &mut self.state().2;
        lost.iter().for_each(|id| drop(done.blocks.remove(id)));
    }
}
