//! An endless sequence of epochs: finds the epoch of example `n`, its index there and its random draws in constant
//! time.
//!
//! An epoch contains every chunk of its documents once, in an order of its own. Chunk boundaries are random, so two
//! chunkings have different numbers of chunks; finding the start of the millionth epoch would need a million chunkings.
//! Therefore there are only `CHUNKINGS` = 16 of them: epoch `e` uses chunking `e mod CHUNKINGS`, and all other draws
//! depend on the epoch itself:
//!
//! ```text
//! seed ── phase ─┬─ CHUNKING ── e mod CHUNKINGS ── document ── first sentence   short target, a | b, whether b is random
//!                ├─ DRAW ── e ── first sentence                                 the random b, swaps, truncation, masks
//!                └─ ORDER ── e                                                  order of the epoch's examples
//! ```
//!
//! The lengths of at most `CHUNKINGS` chunkings then locate any `n` by one division. (create_pretraining_data uses
//! `dupe_factor` = 10 chunkings, with one set of masks each.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use crate::rng::{Key, Stream};

use super::config::{ExampleConfig, Masking};
use super::full_sentences::{SentenceIndex, group_size, next_example, starts, truncate_sentence};
use super::layout::ExampleLayout;
use super::pairs::PairSampler;
use super::permutation::Permutation;
use crate::data::store::documents::Documents;
use crate::data::store::prepared::PreparedData;
use crate::data::store::shard::Split;

/// Number of different chunkings. More would delay the start at a distant step; fewer would repeat the same pair with
/// the same label more often.
const CHUNKINGS: u64 = 16;

/// Sub-keys of the phase's key.
const ORDER: u64 = 0;
const CHUNKING: u64 = 1;
const DRAW: u64 = 2;

/// Tables kept in memory, four bytes per chunk: the current epoch, the next one, and one for an evaluation prefetched
/// at another position.
const TABLES_KEPT: usize = 3;

/// First sentence (index in the split) of every chunk of one chunking, in the order of the text.
#[derive(Debug)]
struct ChunkTable {
    chunking: u64,
    starts: Vec<u32>,
}

/// One epoch: its chunks and their order.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// Number of the epoch, from 0.
    pub number: u64,
    table: Arc<ChunkTable>,
    order: Permutation,
    draws: Key,
}

impl Epoch {
    /// Returns the number of examples.
    pub fn examples(&self) -> u64 {
        self.order.len()
    }
}

/// The epochs of one split under one configuration.
#[derive(Debug)]
pub struct Epochs {
    chunkings: Arc<Chunkings>,
}

/// The chunkings, with cached results.
#[derive(Debug)]
struct Chunkings {
    prepared: Arc<PreparedData>,
    split: Split,
    config: ExampleConfig,
    key: Key,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Numbers of chunks of the first chunkings.
    lengths: Vec<u64>,
    /// The most recently used tables, the latest last.
    tables: Vec<Arc<ChunkTable>>,
    /// The chunking whose table was last built ahead.
    ahead: Option<u64>,
}

impl Epochs {
    /// Creates the epochs of a split. `config` must be valid.
    pub fn new(prepared: Arc<PreparedData>, split: Split, config: ExampleConfig) -> Self {
        let key = Key::new(config.seed).fold_in(config.phase as u64);
        Epochs { chunkings: Arc::new(Chunkings { prepared, split, config, key, cache: Mutex::default() }) }
    }

    /// Returns the prepared data.
    pub fn prepared(&self) -> &Arc<PreparedData> {
        &self.chunkings.prepared
    }

    /// Returns the split.
    pub fn split(&self) -> Split {
        self.chunkings.split
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ExampleConfig {
        &self.chunkings.config
    }

    /// Returns the documents of the split.
    pub fn documents(&self) -> &Documents {
        self.chunkings.prepared.documents(self.chunkings.split)
    }

    /// Returns the number of examples of epoch `number`.
    pub fn len(&self, number: u64) -> u64 {
        self.chunkings.length(number % self.chunkings.count())
    }

    /// Returns the epoch of example `number`, and its index in the epoch's order.
    pub fn position(&self, number: u64) -> (u64, u64) {
        // Held-out examples always come from epoch 0: every evaluation has the same masks.
        if self.chunkings.split == Split::HeldOut {
            return (0, number % self.len(0));
        }
        loop {
            let known = {
                let lengths = &self.chunkings.lock().lengths;
                if let Some(position) = find(lengths, self.chunkings.count(), number) {
                    return position;
                }
                lengths.len() as u64
            };
            self.chunkings.length(known);
        }
    }

    /// Returns epoch `number`. Builds the table of the next epoch in the background.
    pub fn epoch(&self, number: u64) -> Epoch {
        let chunking = number % self.chunkings.count();
        let table = self.chunkings.table(chunking);
        if self.chunkings.split == Split::Train {
            self.chunkings.build_ahead((chunking + 1) % self.chunkings.count());
        }
        let key = self.chunkings.key;
        let order = Permutation::new(table.starts.len() as u64, key.fold_in(ORDER).fold_in(number));
        let draw = match self.chunkings.config.masking {
            Masking::Dynamic => number,
            Masking::Static { .. } => chunking,
        };
        Epoch { number, table, order, draws: key.fold_in(DRAW).fold_in(draw) }
    }

    /// Sets `layout` to that of example `index` of `epoch`, and returns the random stream for its masks. Reads no
    /// tokens.
    pub fn layout(&self, epoch: &Epoch, index: u64, layout: &mut ExampleLayout) -> Stream {
        let sentence = epoch.table.starts[epoch.order.at(index) as usize] as usize;
        let documents = self.documents();
        let document = documents.of_sentence(sentence);
        let first = sentence - document.first_sentence;
        let mut stream = epoch.draws.fold_in(sentence as u64).stream();
        let (mode, room) = (self.chunkings.config.mode, self.chunkings.room());
        if mode.is_pair() {
            let sampler = self.chunkings.sampler(epoch.table.chunking, document.index);
            layout.separators = self.chunkings.prepared.vocabulary().pair_form().separators;
            sampler.pair(documents, &document, first, &mut stream, layout);
        } else {
            let together = group_size(mode);
            let end = (document.index / together * together + together).min(documents.len());
            next_example(documents, SentenceIndex { document: document.index, sentence: first }, end, room, layout);
            truncate_sentence(layout, room, &mut stream);
        }
        stream
    }
}

/// Computes [`Epochs::position`] from the lengths of the first chunkings, out of `count`; `None` if the example lies
/// behind them.
fn find(lengths: &[u64], chunkings: u64, number: u64) -> Option<(u64, u64)> {
    let (mut epoch, mut index) = (0, number);
    if lengths.len() as u64 == chunkings {
        let round: u64 = lengths.iter().sum();
        (epoch, index) = (number / round * chunkings, number % round);
    }
    for &length in lengths {
        if index < length {
            return Some((epoch, index));
        }
        (epoch, index) = (epoch + 1, index - length);
    }
    None
}

impl Chunkings {
    /// Returns the number of chunkings. Without random chunks, one is enough.
    fn count(&self) -> u64 {
        match self.config.masking {
            Masking::Static { duplicates } => duplicates as u64,
            Masking::Dynamic if self.config.mode.is_pair() => CHUNKINGS,
            Masking::Dynamic => 1,
        }
    }

    /// Returns the number of text tokens that fit into a row.
    fn room(&self) -> u32 {
        let pair = self.prepared.vocabulary().pair_form();
        let specials = if self.config.mode.is_pair() { pair.special_tokens() } else { 2 };
        (self.config.sequence_length - specials) as u32
    }

    fn sampler(&self, chunking: u64, document: usize) -> PairSampler {
        let key = self.key.fold_in(CHUNKING).fold_in(chunking).fold_in(document as u64);
        PairSampler::new(key, self.config.mode, self.room(), self.config.short_seq_prob)
    }

    /// Calls `found` with the first sentence of each chunk in the documents of group `group`, in the order of the text.
    fn each_start(&self, chunking: u64, group: usize, mut found: impl FnMut(usize)) {
        let documents = self.prepared.documents(self.split);
        let together = group_size(self.config.mode);
        if self.config.mode.is_pair() {
            let document = documents.get(group);
            self.sampler(chunking, group)
                .chunk_starts(document.starts)
                .for_each(|start| found(document.first_sentence + start));
        } else {
            let group = group * together..((group + 1) * together).min(documents.len());
            starts(documents, group, self.room())
                .for_each(|place| found(documents.get(place.document).first_sentence + place.sentence));
        }
    }

    /// Counts the chunks in the documents of group `group`.
    fn chunks(&self, chunking: u64, group: usize) -> u64 {
        let mut chunks = 0;
        self.each_start(chunking, group, |_| chunks += 1);
        chunks
    }

    fn groups(&self) -> usize {
        self.prepared.documents(self.split).len().div_ceil(group_size(self.config.mode))
    }

    /// Returns the number of chunks of a chunking. Reads the lengths of all sentences if it is not cached.
    fn length(&self, chunking: u64) -> u64 {
        if let Some(&length) = self.lock().lengths.get(chunking as usize) {
            return length;
        }
        let count = |chunking| {
            let table = self.lock().recall(chunking);
            let groups = (0..self.groups()).into_par_iter();
            table.map_or_else(
                || groups.map(|group| self.chunks(chunking, group)).sum(),
                |table| table.starts.len() as u64,
            )
        };
        // Lengths are computed in order, from the first on.
        loop {
            let next = self.lock().lengths.len() as u64;
            if next > chunking {
                return self.lock().lengths[chunking as usize];
            }
            let length = count(next);
            let mut cache = self.lock();
            if cache.lengths.len() as u64 == next {
                cache.lengths.push(length);
            }
        }
    }

    /// Returns the table of a chunking, and builds it if it is not cached.
    ///
    /// Builds tables without holding the lock: building is parallel, and a thread that waits for its share may start on
    /// another batch, which needs the lock in turn. So two threads may build the same table; it is stored once.
    fn table(&self, chunking: u64) -> Arc<ChunkTable> {
        let recalled = self.lock().recall(chunking);
        if let Some(table) = recalled {
            return table;
        }
        let groups = (0..self.groups()).into_par_iter();
        let parts: Vec<Vec<u32>> = groups
            .fold(Vec::new, |mut starts, group| {
                self.each_start(chunking, group, |start| starts.push(start as u32));
                starts
            })
            .collect();
        let table = Arc::new(ChunkTable { chunking, starts: parts.concat() });
        self.lock().keep(table.clone());
        table
    }

    /// Starts to build the table of the next chunking in one extra thread. The other threads build batches, and an
    /// epoch takes much longer.
    fn build_ahead(self: &Arc<Self>, chunking: u64) {
        {
            let mut cache = self.lock();
            if cache.ahead == Some(chunking) || cache.tables.iter().any(|table| table.chunking == chunking) {
                return;
            }
            cache.ahead = Some(chunking);
        }
        let chunkings = self.clone();
        // Without a thread, the table is built when it is needed.
        if let Ok(thread) = rayon::ThreadPoolBuilder::new().num_threads(1).build() {
            thread.spawn(move || drop(chunkings.table(chunking)));
        }
    }

    /// A panic while the lock is held leaves no partial table: only complete tables are stored.
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    /// Returns the table of a chunking if it is cached, and marks it as most recent.
    fn recall(&mut self, chunking: u64) -> Option<Arc<ChunkTable>> {
        let at = self.tables.iter().position(|table| table.chunking == chunking)?;
        let table = self.tables.remove(at);
        self.tables.push(table.clone());
        Some(table)
    }

    fn keep(&mut self, table: Arc<ChunkTable>) {
        if self.recall(table.chunking).is_some() {
            return;
        }
        if self.tables.len() == TABLES_KEPT {
            self.tables.remove(0);
        }
        self.tables.push(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distant_positions_are_found_by_one_division() {
        let lengths = [3, 1, 2];
        let expected = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (5, 0), (5, 1)];
        for (number, position) in (0..).zip(expected) {
            assert_eq!(find(&lengths, 3, number), Some(position));
        }
        assert_eq!(find(&lengths, 3, 6_000_000_000_000_004), Some((3_000_000_000_000_002, 0)));
        // Not all lengths are known yet: examples behind the known ones give `None`.
        assert_eq!((find(&lengths, 4, 5), find(&lengths, 4, 6), find(&[], 4, 0)), (Some((2, 1)), None, None));
    }
}
