//! Token blocks to shards of nearly equal size, several at once.
//!
//! Once all tokens are counted, where each shard begins and ends is planned and noted in a file: a preparation that is
//! interrupted from then on goes on with that plan, though a part of the spool is used up and gone.
//!
//! Documents that are taken several times are met in passes over the text: all of them first, then those that come a second
//! time, and so on. So the copies of a document lie as far apart as the text is long, and no shard gets them as one piece.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rng::Key;

use super::blocks::BlockId;
use super::journal::{BlockRecord, JOURNAL, Journal, Step};
use super::selection::{SelectableBlock, Selection, select};
use super::spool::{Spool, Spooled};
use super::staging::write_to_disk;
use super::{Preparation, PrepareProgress, PrepareStage, Spools};
use crate::data::error::{DataError, Result};
use crate::data::store::manifest::{Deduplication, Manifest, Removed, ShardEntry};
use crate::data::store::shard::{SHARD_FORMAT, ShardBuilder, ShardHeader, Split};

const PLAN: &str = "plan.json";
/// Bytes of the shards that are gathered in memory at a time, unless one alone is larger.
const MEMORY: usize = 512 << 20;

/// A document as one pass over the text meets it: which block of its split, and which of the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Cursor {
    pass: usize,
    block: usize,
    document: usize,
}

/// The documents of a shard: from one to before another.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PlannedShard {
    split: Split,
    file: String,
    from: Cursor,
    to: Cursor,
}

/// What is to be written.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Plan {
    shards: Vec<PlannedShard>,
    tokens: u64,
    removed: BTreeMap<String, Removed>,
    /// Copies of every document of every block of each split; one of each if it is absent.
    copies: Option<Copies>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Copies {
    train: Vec<Vec<u8>>,
    held_out: Vec<Vec<u8>>,
}

/// The blocks of one split, in the order of the text, and how often each of their documents is taken.
struct Blocks<'a> {
    split: Split,
    places: Vec<Spooled>,
    spool: &'a Spool,
    copies: Option<&'a [Vec<u8>]>,
    /// Passes that take something of each block.
    passes: Vec<usize>,
}

/// True if all text is tokenized and only shards are to be written.
pub(super) fn are_planned(staging: &Path) -> bool {
    staging.join(PLAN).exists()
}

/// An error if there is a plan that this version cannot read.
pub(super) fn check_plan(staging: &Path) -> Result<()> {
    if are_planned(staging) { Plan::read(&staging.join(PLAN)).map(drop) } else { Ok(()) }
}

/// Removes what a whole preparation needs no more. The journal goes first: without it, the rest is known to be whole.
pub(super) fn clear(staging: &Path) -> Result<()> {
    let entries = fs::read_dir(staging).map_err(DataError::io("list", staging))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let paths = paths.map_err(DataError::io("list", staging))?;
    let used_up = |path: &&PathBuf| path.ends_with(PLAN) || path.extension().is_some_and(|e| e == "spool");
    for path in paths.iter().filter(|path| path.ends_with(JOURNAL)).chain(paths.iter().filter(used_up)) {
        fs::remove_file(path).map_err(DataError::io("remove", path))?;
    }
    Ok(())
}

/// Writes the shards that the journal does not tell of, and completes the manifest.
pub(super) fn write(
    asked: &Preparation,
    staging: &Path,
    journal: &Journal,
    spools: &Spools,
    manifest: &mut Manifest,
    progress: PrepareProgress,
) -> Result<()> {
    let places = |of: fn(&BlockRecord) -> Option<Spooled>| -> Vec<Spooled> {
        journal.ask(|done| done.blocks.values().filter_map(of).collect())
    };
    let (train, held_out) = (places(|record| record.train), places(|record| record.held_out));
    let path = staging.join(PLAN);
    let plan = if are_planned(staging) {
        Plan::read(&path)?
    } else {
        let plan = Plan::new(asked, journal, spools, &train, &held_out)?;
        let json = serde_json::to_string(&plan).map_err(|e| DataError::io("write", &path)(e.into()))?;
        let partial = path.with_extension("partial");
        // Once shards are written, journal, spool and plan are all that tells how: they must be on the disk before the first.
        journal.to_disk()?;
        for (split, places) in [(Split::Train, &train), (Split::HeldOut, &held_out)] {
            spools.of(split).to_disk(places)?;
        }
        write_to_disk(&partial, json.as_bytes())?;
        fs::rename(&partial, &path).map_err(DataError::io("put in place", &path))?;
        plan
    };
    let copies = |split| plan.copies.as_ref().map(|copies| copies.of(split));
    count_taken(asked, journal, copies(Split::Train), manifest);
    let blocks = [(Split::Train, train), (Split::HeldOut, held_out)]
        .map(|(split, places)| Blocks::new(split, places, spools.of(split), copies(split)));
    let of = |shard: &PlannedShard| blocks.iter().find(|blocks| blocks.split == shard.split).unwrap_or(&blocks[0]);

    let is_written = |shard: &&PlannedShard| journal.ask(|done| done.shards.contains_key(&shard.file));
    let (written, missing): (Vec<&PlannedShard>, Vec<&PlannedShard>) = plan.shards.iter().partition(is_written);
    let token_size = blocks[0].spool.token_size();
    let report = |tokens| {
        let token_size = token_size as u64;
        progress(PrepareStage::Writing { bytes: token_size * plan.tokens }, token_size * tokens);
    };
    report(written.iter().filter_map(|s| journal.ask(|done| done.shards.get(&s.file).map(|e| e.counts.tokens))).sum());
    let uses = Uses::new(missing.iter().flat_map(|shard| of(shard).files_of(shard)));
    let shard_bytes = 5 * asked.options.shard_tokens * token_size / 4;
    let at_once = (MEMORY / shard_bytes).clamp(1, rayon::current_num_threads());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(at_once).build();
    let pool = pool.map_err(|error| DataError::io("start threads for", staging)(std::io::Error::other(error)))?;
    pool.install(|| {
        // Taken one after the other, so that the spool is used up in its order.
        missing.iter().par_bridge().try_for_each(|shard| {
            let blocks = of(shard);
            let entry = blocks.gather(asked, shard, staging, manifest, &report)?;
            journal.note(Step::Written(entry))?;
            uses.release(blocks, shard)
        })
    })?;
    manifest.removed.extend(plan.removed);
    let entry = |shard: &PlannedShard| journal.ask(|done| done.shards.get(&shard.file).cloned());
    manifest.shards = plan.shards.iter().filter_map(entry).collect();
    for entry in &manifest.shards {
        match entry.split {
            Split::Train => manifest.train += entry.counts,
            Split::HeldOut => manifest.held_out += entry.counts,
        }
    }
    Ok(())
}

/// Writes into the manifest how many documents to train on each input gives.
fn count_taken(asked: &Preparation, journal: &Journal, copies: Option<&[Vec<u8>]>, manifest: &mut Manifest) {
    let parts = asked.parts();
    journal.ask(|done| {
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
        let text = fs::read(path).map_err(DataError::io("read", path))?;
        serde_json::from_slice(&text).map_err(|error| {
            DataError::file(path, "a plan of this version", format!("another: {error}"), "begin anew with --force")
        })
    }

    fn new(
        asked: &Preparation,
        journal: &Journal,
        spools: &Spools,
        train: &[Spooled],
        held_out: &[Spooled],
    ) -> Result<Self> {
        let mut plan = Plan::default();
        let parts = asked.parts();
        let weight = |part: u32| asked.inputs[parts[part as usize].input].source.weight;
        let is_weighted = asked.inputs.iter().any(|input| input.source.weight != 1.0);
        if is_weighted || asked.options.duplicates != Deduplication::Keep {
            // The splits interleaved, as they are in the text.
            let places = journal.ask(|done| {
                let both = |(&id, record): (&BlockId, &BlockRecord)| {
                    [(id, Split::Train, record.train), (id, Split::HeldOut, record.held_out)]
                };
                let places = done.blocks.iter().flat_map(both);
                places.filter_map(|(id, split, place)| Some((id, split, place?))).collect::<Vec<_>>()
            });
            let block = |&(id, split, place): &(BlockId, Split, Spooled)| SelectableBlock {
                place,
                spool: spools.of(split),
                // What is measured on is measured on once.
                weight: if split == Split::Train { weight(id.part) } else { 1.0 },
                key: Key::new(asked.options.seed).fold_in(id.part as u64).fold_in(id.index as u64),
            };
            let blocks: Vec<SelectableBlock> = places.iter().map(block).collect();
            let Selection { copies, removed } = select(&blocks, asked.options.duplicates)?;
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
            let (shards, tokens) = blocks.cut(asked.options.shard_tokens as u64)?;
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

    /// True if the document is one that its pass takes.
    fn takes(&self, Cursor { pass, block, document }: Cursor) -> bool {
        self.copies.is_none_or(|copies| pass < copies[block][document] as usize)
    }

    /// Tokens of each document of a block that a pass takes, 0 of the others.
    fn tokens_of_documents(&self, pass: usize, block: usize) -> Result<Vec<u64>> {
        let (_, heads) = self.spool.read_heads(&self.places[block])?;
        let tokens = heads.iter().enumerate();
        let tokens = tokens.map(|(document, head)| match self.takes(Cursor { pass, block, document }) {
            true => head[1] as u64,
            false => 0,
        });
        Ok(tokens.collect())
    }

    /// Tokens that each pass takes of a block.
    fn tokens_of_passes(&self, block: usize) -> Result<Vec<u64>> {
        let passes = 0..self.passes[block];
        match self.copies.is_none_or(|copies| copies[block].iter().all(|&copies| copies as usize == passes.end)) {
            true => Ok(passes.map(|_| self.places[block].tokens).collect()),
            false => passes.map(|pass| Ok(self.tokens_of_documents(pass, block)?.iter().sum())).collect(),
        }
    }

    /// The blocks that have documents from one place to before another, as (pass, block).
    fn between(&self, from: Cursor, to: Cursor) -> impl Iterator<Item = (usize, usize)> {
        let blocks = move |pass| {
            let first = if pass == from.pass { from.block } else { 0 };
            let end = if pass == to.pass { to.block + (to.document > 0) as usize } else { self.places.len() };
            (first..end).filter(move |&block| pass < self.passes[block]).map(move |block| (pass, block))
        };
        (from.pass..=to.pass).flat_map(blocks)
    }

    /// Cuts the split into as few shards of at most `most` tokens as can be, all of one size: a shard has the documents that
    /// begin in its share of the tokens, so it differs from the share by less than a document. Gives them with the sum of
    /// tokens.
    fn cut(&self, most: u64) -> Result<(Vec<PlannedShard>, u64)> {
        let tokens = (0..self.places.len()).into_par_iter().map(|block| self.tokens_of_passes(block));
        let tokens = tokens.collect::<Result<Vec<_>>>()?;
        let start = Cursor { pass: 0, block: 0, document: 0 };
        let end = Cursor { pass: self.passes.iter().max().copied().unwrap_or(0), ..start };
        let total: u64 = tokens.iter().flatten().sum();
        let shards = total.div_ceil(most);
        let share = |number: u64| (number as u128 * total as u128 / shards as u128) as u64;
        // The first document of each shard, and the tokens before it.
        let mut cuts = vec![(start, 0)];
        let mut before = 0;
        for (pass, block) in self.between(start, end) {
            let tokens = tokens[block][pass];
            while (cuts.len() as u64) < shards && share(cuts.len() as u64) < before + tokens {
                let wanted = share(cuts.len() as u64);
                let mut at = before;
                let mut document = 0;
                for tokens in self.tokens_of_documents(pass, block)? {
                    if at >= wanted {
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

    /// Gathers a shard and writes it.
    fn gather(
        &self,
        asked: &Preparation,
        shard: &PlannedShard,
        staging: &Path,
        manifest: &Manifest,
        report: &(dyn Fn(u64) + Sync),
    ) -> Result<ShardEntry> {
        let mut builder = ShardBuilder::new(asked.tokenizer.vocabulary());
        for (pass, block) in self.between(shard.from, shard.to) {
            let before = builder.tokens();
            self.spool.read(&self.places[block])?.for_each(|document, sentences| {
                let at = Cursor { pass, block, document };
                if (shard.from..shard.to).contains(&at) && self.takes(at) {
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
        // What a run that was killed had written of it.
        if path.exists() {
            fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
        }
        let (bytes, sha256) = builder.write(&path, &header).map_err(DataError::write(&path, builder.bytes()))?;
        Ok(ShardEntry { file: shard.file.clone(), split: self.split, bytes, sha256, counts })
    }
}

/// How many shards still need each file of the spool.
struct Uses(Mutex<BTreeMap<(Split, u32), usize>>);

impl Uses {
    fn new(files: impl Iterator<Item = (Split, u32)>) -> Self {
        let mut uses = BTreeMap::new();
        files.for_each(|file| *uses.entry(file).or_default() += 1);
        Uses(Mutex::new(uses))
    }

    /// Removes the files that a shard was the last to need.
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
