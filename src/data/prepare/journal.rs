//! What of a preparation is done, a line of JSON for every step of it, in the order in which the steps ended. The state is
//! the fold of the lines: it is the same while the work goes on and after any interruption.
//!
//! A line is written after the thing that it tells of. Nothing is forced to the disk: a crash of the machine can lose
//! blocks whose lines remain, so blocks carry checksums, and one that does not match is made again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::blocks::BlockId;
use super::spool::Spooled;
use crate::data::corpus::ReadCounts;
use crate::data::error::{DataError, Result};
use crate::data::store::manifest::{Manifest, Removed, ShardEntry};

/// File name of the journal.
pub(super) const JOURNAL: &str = "journal.jsonl";

/// One step that is done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Step {
    /// What is asked for, as a manifest without results.
    Begun(Box<Manifest>),
    /// The sha256 of an input.
    Hashed { input: usize, sha256: String },
    /// A block is tokenized.
    Tokenized(BlockId, BlockRecord),
    /// A part was read to its end and has so many blocks.
    Read { part: u32, blocks: u32 },
    /// A shard is written.
    Written(ShardEntry),
}

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockRecord {
    /// Where the tokens lie; nowhere if there are none.
    pub train: Option<Spooled>,
    pub held_out: Option<Spooled>,
    pub counts: ReadCounts,
    pub cut_documents: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub removed: BTreeMap<String, Removed>,
}

/// All that is done.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub begun: Option<Box<Manifest>>,
    /// sha256 of inputs.
    pub hashed: BTreeMap<usize, String>,
    pub blocks: BTreeMap<BlockId, BlockRecord>,
    /// Number of blocks of the parts that were read to the end.
    pub parts: BTreeMap<u32, u32>,
    /// Shards by file name.
    pub shards: BTreeMap<String, ShardEntry>,
}

impl Done {
    fn add(&mut self, step: Step) {
        match step {
            Step::Begun(manifest) => self.begun = Some(manifest),
            Step::Hashed { input, sha256 } => drop(self.hashed.insert(input, sha256)),
            Step::Tokenized(id, record) => drop(self.blocks.insert(id, record)),
            Step::Read { part, blocks } => drop(self.parts.insert(part, blocks)),
            Step::Written(entry) => drop(self.shards.insert(entry.file.clone(), entry)),
        }
    }

    /// The manifest that the work began with, with what is known of the inputs by now.
    pub fn begun_from(&self) -> Option<Manifest> {
        let mut manifest = self.begun.as_deref().cloned()?;
        for (input, sha256) in &self.hashed {
            if let Some(entry) = manifest.inputs.get_mut(*input) {
                entry.sha256.clone_from(sha256);
            }
        }
        Some(manifest)
    }

    /// True if a part was read to its end and all its blocks are there.
    pub fn has_part(&self, part: u32) -> bool {
        let Some(&blocks) = self.parts.get(&part) else { return false };
        self.blocks.range(BlockId { part, index: 0 }..BlockId { part: part + 1, index: 0 }).count() == blocks as usize
    }
}

/// The journal of a preparation, open for more.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    state: Mutex<(File, u64, Done)>,
}

impl Journal {
    /// Opens the journal in `directory`, or begins one. The last line may have been cut short; it is dropped.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not one of ours.
    pub fn open(directory: &Path) -> Result<Self> {
        let path = directory.join(JOURNAL);
        let file = File::options().create(true).truncate(false).read(true).append(true).open(&path);
        let file = file.map_err(DataError::io("open", &path))?;
        let text = std::fs::read(&path).map_err(DataError::io("read", &path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(DataError::io("shorten", &path))?;
        let mut done = Done::default();
        for (number, line) in
            text[..whole].split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty())
        {
            done.add(serde_json::from_slice(line).map_err(|error| {
                let found = format!("another on line {}: {error}", number + 1);
                DataError::file(&path, "a journal of this version", found, "begin anew with --force")
            })?);
        }
        Ok(Journal { path, state: Mutex::new((file, whole as u64, done)) })
    }

    fn state(&self) -> MutexGuard<'_, (File, u64, Done)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a step is done.
    pub fn note(&self, step: Step) -> Result<()> {
        let line = serde_json::to_string(&step).map_err(|e| DataError::io("write", &self.path)(e.into()))? + "\n";
        let (file, length, done) = &mut *self.state();
        if let Err(error) = file.write_all(line.as_bytes()) {
            // What was written of the line must not stand before another thread's; cutting needs no room on the disk, and
            // if it fails, the next line fails to be read, which is said.
            let _ = file.set_len(*length);
            return Err(DataError::write(&self.path, line.len())(error));
        }
        *length += line.len() as u64;
        done.add(step);
        Ok(())
    }

    /// Returns when all that was noted is on the disk.
    pub fn to_disk(&self) -> Result<()> {
        self.state().0.sync_all().map_err(DataError::io("write", &self.path))
    }

    /// Asks what is done.
    pub fn ask<T>(&self, question: impl FnOnce(&Done) -> T) -> T {
        question(&self.state().2)
    }

    /// Forgets blocks that turned out to be lost, for this run.
    pub fn forget(&self, lost: &[BlockId]) {
        let done = &mut self.state().2;
        lost.iter().for_each(|id| drop(done.blocks.remove(id)));
    }
}
