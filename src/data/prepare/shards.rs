//! Writes token blocks as shards of nearly equal size, several at once.
//!
//! Once all tokens are counted, the boundaries of all shards are planned and saved to a file. A preparation that is
//! interrupted later resumes with that plan, although part of the spool is already removed.
//!
//! Documents that are used several times are read in passes over the text: first all documents, then those that are
//! used a second time, and so on. So the copies of a document are as far apart as the text is long, and no shard gets
//! them next to each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rng::Key;

use super::blocks::BlockId;
use super::journal::{BlockRecord, Done, Journal, JournalRecord};
use super::selection::{SelectableBlock, Selection, select};
use super::sorted::SortedSignatures;
use super::spool::{Spool, Spooled, Spools};
use super::staging::write_to_disk;
use super::work_files::{JOURNAL, is_work};
use super::{Preparation, PrepareProgress, PrepareStage};
use crate::data::error::{DataError, Result};
use crate::data::store::manifest::{Deduplication, Manifest, Removed, ShardEntry};
use crate::data::store::shard::{SHARD_FORMAT, ShardBuilder, ShardHeader, Split};
use crate::files;

const PLAN: &str = "plan.json";
/// Bytes of shards collected in memory at a time, unless one shard alone is larger.
const MEMORY: usize = 512 << 20;

/// A document in one pass over the text: its block in the split, and its index in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Cursor {
    pass: usize,
    block: usize,
    document: usize,
}

/// The documents of a shard: a half-open range.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlannedShard {
    split: Split,
    file: String,
    from: Cursor,
    to: Cursor,
}

/// The shards to write.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Plan {
    shards: Vec<PlannedShard>,
    tokens: u64,
    removed: BTreeMap<String, Removed>,
    /// Copies of each document of each block of both splits; one each if absent.
    copies: Option<Copies>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Copies {
    train: Vec<Vec<u8>>,
    held_out: Vec<Vec<u8>>,
}

/// The blocks of one split, in the order of the text, with the number of copies of their documents.
struct Blocks<'a> {
    split: Split,
    places: Vec<Spooled>,
    spool: &'a Spool,
    copies: Option<&'a [Vec<u8>]>,
    /// Number of passes that use each block.
    passes: Vec<usize>,
}

/// Returns `true` if all text is tokenized and only shards remain to be written.
pub(super) fn are_planned(staging: &Path) -> bool {
    staging.join(PLAN).exists()
}

/// Fails if there is a plan of another version.
pub(super) fn check_plan(staging: &Path) -> Result<()> {
    if are_planned(staging) { Plan::read(&staging.join(PLAN)).map(drop) } else { Ok(()) }
}

/// Removes the files that a complete preparation no longer needs. The journal is removed first: without it, the
/// directory is known to be complete.
pub(super) fn clear(staging: &Path) -> Result<()> {
    let entries = fs::read_dir(staging).map_err(DataError::io("list", staging))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let paths = paths.map_err(DataError::io("list", staging))?;
    let is_used_up = |path: &&PathBuf| is_work(path) || path.ends_with(PLAN);
    let (journal, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
        paths.iter().filter(is_used_up).partition(|path| path.ends_with(JOURNAL));
    for path in journal.into_iter().chain(others) {
        fs::remove_file(path).map_err(DataError::io("remove", path))?;
    }
    Ok(())
}

/// Writes the shards that the journal does not list, and completes the manifest. The signatures of the documents are sorted now, unless
/// those of all parts of the preparation are given, whose files are kept.
pub(super) fn write(
    preparation: &Preparation,
    staging: &Path,
    journal: &Journal,
    spools: &Spools,
    sorted: Option<&[SortedSignatures]>,
    manifest: &mut Manifest,
    progress: PrepareProgress,
) -> Result<()> {
    let places = |of: fn(&BlockRecord) -> Option<Spooled>| -> Vec<Spooled> {
        journal.read(|done| done.blocks.values().filter_map(of).collect())
    };
    let (train, held_out) = (places(|record| record.train), places(|record| record.held_out));
    let path = staging.join(PLAN);
    let plan = if are_planned(staging) {
        Plan::read(&path)?
    } else {
        let places = journal.read(Done::places);
        let own = sorted.is_none().then(|| preparation.sort_signatures(&places, spools, staging)).transpose()?;
        let all = sorted.unwrap_or(own.as_slice());
        let plan = Plan::new(preparation, journal, spools, all, &train, &held_out)?;
        let json = serde_json::to_string(&plan).map_err(|e| DataError::io("write", &path)(e.into()))?;
        let partial = path.with_extension("partial");
        // Once shards are written, only journal, spool and plan can complete the rest; so they must be on disk before
        // the first shard.
        journal.to_disk()?;
        spools.to_disk(&places)?;
        write_to_disk(&partial, json.as_bytes())?;
        fs::rename(&partial, &path).map_err(DataError::io("put in place", &path))?;
        own.map_or(Ok(()), SortedSignatures::remove)?;
        plan
    };
    let copies = |split| plan.copies.as_ref().map(|copies| copies.of(split));
    count_taken(preparation, journal, copies(Split::Train), manifest);
    let blocks = [(Split::Train, train), (Split::HeldOut, held_out)]
        .map(|(split, places)| Blocks::new(split, places, spools.of(split), copies(split)));
    let of = |shard: &PlannedShard| blocks.iter().find(|blocks| blocks.split == shard.split).unwrap_or(&blocks[0]);

    let is_written = |shard: &&PlannedShard| journal.read(|done| done.shards.contains_key(&shard.file));
    let (written, missing): (Vec<&PlannedShard>, Vec<&PlannedShard>) = plan.shards.iter().partition(is_written);
    let token_size = blocks[0].spool.token_size();
    let report = |tokens| {
        let token_size = token_size as u64;
        progress(PrepareStage::Writing { bytes: token_size * plan.tokens }, token_size * tokens);
    };
    report(written.iter().filter_map(|s| journal.read(|done| done.shards.get(&s.file).map(|e| e.counts.tokens))).sum());
    let uses = Uses::new(missing.iter().flat_map(|shard| of(shard).files_of(shard)));
    let shard_bytes = 5 * preparation.options.shard_tokens * token_size / 4;
    let at_once = (MEMORY / shard_bytes).clamp(1, rayon::current_num_threads());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(at_once).build();
    let pool = pool.map_err(|error| DataError::io("start threads for", staging)(std::io::Error::other(error)))?;
    pool.install(|| {
        // Taken in order, so that the spool is read in order.
        missing.iter().par_bridge().try_for_each(|shard| {
            let blocks = of(shard);
            let entry = blocks.gather(preparation, shard, staging, manifest, &report)?;
            journal.record(JournalRecord::Written(entry))?;
            if sorted.is_none() { uses.release(blocks, shard) } else { Ok(()) }
        })
    })?;
    manifest.removed.extend(plan.removed);
    let entry = |shard: &PlannedShard| journal.read(|done| done.shards.get(&shard.file).cloned());
    manifest.shards = plan.shards.iter().filter_map(entry).collect();
    for entry in &manifest.shards {
        match entry.split {
            Split::Train => manifest.train += entry.counts,
            Split::HeldOut => manifest.held_out += entry.counts,
        }
    }
    Ok(())
}

/// Writes the number of training documents of each input into the manifest.
fn count_taken(preparation: &Preparation, journal: &Journal, copies: Option<&[Vec<u8>]>, manifest: &mut Manifest) {
    let parts = preparation.places();
    journal.read(|done| {
        let blocks = done.blocks.iter().filter_map(|(id, record)| Some((id.part, record.train?)));
        for (block, (part, place)) in blocks.enumerate() {
            let taken = match copies {
                Some(copies) => copies[block].iter().map(|&copies| copies as u64).sum(),
                None => place.documents as u64,
            };
            manifest.inputs[parts[part as usize].input].train_documents += taken;
        }
    });
}

impl Copies {
    fn of(&self, split: Split) -> &[Vec<u8>] {
        match split {
            Split::Train => &self.train,
            Split::HeldOut => &self.held_out,
        }
    }
}

impl Plan {
    fn read(path: &Path) -> Result<Self> {
        let text = files::read(path).map_err(DataError::io("read", path))?;
        serde_json::from_slice(&text).map_err(|error| {
            DataError::file(
                path,
                "a plan of this version",
                format!("another: {error}"),
                "set force to discard it and start again",
            )
        })
    }

    fn new(
        preparation: &Preparation,
        journal: &Journal,
        spools: &Spools,
        sorted: &[SortedSignatures],
        train: &[Spooled],
        held_out: &[Spooled],
    ) -> Result<Self> {
        let mut plan = Plan::default();
        let parts = preparation.places();
        let weight = |part: u32| preparation.inputs[parts[part as usize].input].source.weight;
        let is_weighted = preparation.inputs.iter().any(|input| input.source.weight != 1.0);
        if is_weighted || preparation.options.duplicates != Deduplication::Keep {
            let places = journal.read(Done::places);
            let block = |&(id, split, place): &(BlockId, Split, Spooled)| SelectableBlock {
                place,
                spool: spools.of(split),
                // Held-out documents are used exactly once.
                weight: if split == Split::Train { weight(id.part) } else { 1.0 },
                key: Key::new(preparation.options.seed).fold_in(id.part as u64).fold_in(id.index as u64),
            };
            let blocks: Vec<SelectableBlock> = places.iter().map(block).collect();
            let Selection { copies, removed } = select(&blocks, preparation.options.duplicates, sorted)?;
            let mut parted = Copies::default();
            for ((_, split, _), copies) in places.iter().zip(copies) {
                match split {
                    Split::Train => parted.train.push(copies),
                    Split::HeldOut => parted.held_out.push(copies),
                }
            }
            (plan.copies, plan.removed) = (Some(parted), removed);
        }
        for (split, places) in [(Split::Train, train), (Split::HeldOut, held_out)] {
            let copies = plan.copies.as_ref().map(|copies| copies.of(split));
            let blocks = Blocks::new(split, places.to_vec(), spools.of(split), copies);
            let (shards, tokens) = blocks.cut(preparation.options.shard_tokens as u64)?;
            plan.shards.extend(shards);
            plan.tokens += tokens;
        }
        Ok(plan)
    }
}

impl<'a> Blocks<'a> {
    fn new(split: Split, places: Vec<Spooled>, spool: &'a Spool, copies: Option<&'a [Vec<u8>]>) -> Self {
        let most = |copies: &Vec<u8>| copies.iter().max().copied().unwrap_or(0) as usize;
        let passes = copies.map_or_else(|| vec![1; places.len()], |copies| copies.iter().map(most).collect());
        Blocks { split, places, spool, copies, passes }
    }

    /// Returns `true` if the pass uses the document.
    fn uses(&self, Cursor { pass, block, document }: Cursor) -> bool {
        self.copies.is_none_or(|copies| pass < copies[block][document] as usize)
    }

    /// Returns the tokens of each document of a block that a pass uses, 0 for the others.
    fn tokens_of_documents(&self, pass: usize, block: usize) -> Result<Vec<u64>> {
        let (_, heads) = self.spool.read_heads(&self.places[block])?;
        let tokens = heads.iter().enumerate();
        let tokens = tokens.map(|(document, head)| match self.uses(Cursor { pass, block, document }) {
            true => head[1] as u64,
            false => 0,
        });
        Ok(tokens.collect())
    }

    /// Returns the tokens of a block that each pass uses.
    fn tokens_of_passes(&self, block: usize) -> Result<Vec<u64>> {
        let passes = 0..self.passes[block];
        match self.copies.is_none_or(|copies| copies[block].iter().all(|&copies| copies as usize == passes.end)) {
            true => Ok(passes.map(|_| self.places[block].tokens).collect()),
            false => passes.map(|pass| Ok(self.tokens_of_documents(pass, block)?.iter().sum())).collect(),
        }
    }

    /// Iterates over the blocks with documents in a half-open range, as (pass, block).
    fn between(&self, from: Cursor, to: Cursor) -> impl Iterator<Item = (usize, usize)> {
        let blocks = move |pass| {
            let first = if pass == from.pass { from.block } else { 0 };
            let end = if pass == to.pass { to.block + (to.document > 0) as usize } else { self.places.len() };
            (first..end).filter(move |&block| pass < self.passes[block]).map(move |block| (pass, block))
        };
        (from.pass..=to.pass).flat_map(blocks)
    }

    /// Splits the documents into the smallest number of equally sized shards of at most `most` tokens. A shard holds
    /// the documents that begin in its share of the tokens, so its size differs from the share by less than a document.
    /// Returns the shards and the total number of tokens.
    fn cut(&self, most: u64) -> Result<(Vec<PlannedShard>, u64)> {
        let tokens = (0..self.places.len()).into_par_iter().map(|block| self.tokens_of_passes(block));
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        let start = Cursor { pass: 0, block: 0, document: 0 };
        let end = Cursor { pass: self.passes.iter().max().copied().unwrap_or(0), ..start };
        let total: u64 = tokens.iter().flatten().sum();
        let shards = total.div_ceil(most);
        let share = |number: u64| (number as u128 * total as u128 / shards as u128) as u64;
        // The first document of each shard, and the number of tokens before it.
        let mut cuts = vec![(start, 0)];
        let mut before = 0;
        for (pass, block) in self.between(start, end) {
            let tokens = tokens[block][pass];
            while (cuts.len() as u64) < shards && share(cuts.len() as u64) < before + tokens {
                let target = share(cuts.len() as u64);
                let mut at = before;
                let mut document = 0;
                for tokens in self.tokens_of_documents(pass, block)? {
                    if at >= target {
                        break;
                    }
                    at += tokens;
                    document += 1;
                }
                cuts.push((Cursor { pass, block, document }, at));
            }
            before += tokens;
        }
        cuts.push((end, total));
        let ranges = cuts.windows(2).filter(|pair| pair[0].1 < pair[1].1).enumerate();
        let shard = |(number, pair): (usize, &[(Cursor, u64)])| PlannedShard {
            split: self.split,
            file: format!("{}-{number:05}.safetensors", self.split),
            from: pair[0].0,
            to: pair[1].0,
        };
        Ok((ranges.map(shard).collect(), total))
    }

    fn files_of(&self, shard: &PlannedShard) -> Vec<(Split, u32)> {
        let mut files: Vec<_> =
            self.between(shard.from, shard.to).map(|(_, block)| (self.split, self.places[block].file)).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    /// Collects the documents of a shard and writes it.
    fn gather(
        &self,
        preparation: &Preparation,
        shard: &PlannedShard,
        staging: &Path,
        manifest: &Manifest,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<ShardEntry> {
        let mut builder = ShardBuilder::new(preparation.tokenizer.vocabulary());
        for (pass, block) in self.between(shard.from, shard.to) {
            let before = builder.tokens();
            self.spool.read(&self.places[block])?.for_each(|document, sentences| {
                let at = Cursor { pass, block, document };
                if (shard.from..shard.to).contains(&at) && self.uses(at) {
                    sentences.iter().for_each(|ids| builder.push_sentence(ids));
                    builder.end_document();
                }
            });
            report((builder.tokens() - before) as u64);
        }
        let counts = builder.counts();
        let sources = manifest.inputs.iter().map(|entry| (entry.name.clone(), entry.sha256.clone()));
        let header = ShardHeader {
            format: SHARD_FORMAT,
            split: self.split,
            vocabulary_sha256: manifest.vocabulary_sha256.clone(),
            vocabulary_size: manifest.vocabulary_size,
            counts,
            sources: sources.collect(),
        };
        let path = staging.join(&shard.file);
        // A partial file of a run that was killed.
        if path.exists() {
            fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
        }
        let (bytes, sha256) = builder.write(&path, &header).map_err(DataError::write(&path, builder.bytes()))?;
        Ok(ShardEntry { file: shard.file.clone(), split: self.split, bytes, sha256, counts })
    }
}

/// Number of pending shards that need each spool file.
struct Uses(Mutex<BTreeMap<(Split, u32), usize>>);

impl Uses {
    fn new(files: impl Iterator<Item = (Split, u32)>) -> Self {
        let mut uses = BTreeMap::new();
        files.for_each(|file| *uses.entry(file).or_default() += 1);
        Uses(Mutex::new(uses))
    }

    /// Removes the files that no other shard needs.
    fn release(&self, blocks: &Blocks, shard: &PlannedShard) -> Result<()> {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for file in blocks.files_of(shard) {
            let left = uses.entry(file).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                let path = blocks.spool.path(file.1);
                fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}
