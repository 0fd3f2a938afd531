//! Epochs without end, in constant time: which epoch example `n` lies in, where there, and what is drawn for it.
//!
//! An epoch is every chunk that its documents are cut into, once, in the epoch's own order. How documents are cut depends on
//! draws, so two cuts have different numbers of chunks, and to know where the millionth epoch begins one would have to
//! cut a million times. Therefore there are [`CUTS`] cuts: epoch `e` takes cut `e mod CUTS`, and what else is random is
//! of the epoch itself:
//!
//! ```text
//! seed ── phase ─┬─ CUT ── e mod CUTS ── document ── first sentence    short target, a | b, whether b is random
//!                ├─ DRAW ── e ── first sentence                        the random b, swaps, truncation, masks
//!                └─ ORDER ── e                                         order of the epoch's examples
//! ```
//!
//! The lengths of at most `CUTS` cuts then answer for any `n` by one division. (create_pretraining_data cuts
//! `dupe_factor` = 10 times, and draws masks no more often.)

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

use crate::rng::{Key, Stream};

use super::config::{ExampleConfig, Masking, SPECIAL_TOKENS_OF_A_PAIR};
use super::full_sentences::{Place, documents_together, starts, take, window};
use super::layout::ExampleLayout;
use super::pairs::PairSampler;
use super::permutation::Permutation;
use crate::data::store::documents::Documents;
use crate::data::store::prepared::PreparedData;
use crate::data::store::shard::Split;

/// Ways in which documents are cut. More would take longer to start with at a far step, fewer would show the same pair with
/// the same label more often.
const CUTS: u64 = 16;

/// Children of a phase's key.
const ORDER: u64 = 0;
const CUT: u64 = 1;
const DRAW: u64 = 2;

/// Tables kept in memory, four bytes a chunk: the epoch at hand, the one after it, and the one that a prefetched
/// evaluation of another position may ask for.
const TABLES_KEPT: usize = 3;

/// First sentence (index in the split) of every chunk of one cut, in the order of the text.
#[derive(Debug)]
struct Table {
    cut: u64,
    starts: Vec<u32>,
}

/// One epoch: its chunks, and in which order they come.
#[derive(Clone, Debug)]
pub struct Epoch {
    pub number: u64,
    table: Arc<Table>,
    order: Permutation,
    draws: Key,
}

impl Epoch {
    /// Number of its examples.
    pub fn len(&self) -> u64 {
        self.order.len()
    }
}

/// The epochs of one split under one configuration.
#[derive(Debug)]
pub struct Epochs {
    cuts: Arc<Cuts>,
}

/// The cuts, and what is known of them so far.
#[derive(Debug)]
struct Cuts {
    prepared: Arc<PreparedData>,
    split: Split,
    config: ExampleConfig,
    key: Key,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Numbers of chunks of the first cuts.
    lengths: Vec<u64>,
    /// The tables last used, the most recent at the back.
    tables: Vec<Arc<Table>>,
    /// The cut whose table was last asked for ahead of its time.
    ahead: Option<u64>,
}

impl Epochs {
    pub fn new(prepared: Arc<PreparedData>, split: Split, config: ExampleConfig) -> Self {
        let key = Key::new(config.seed).fold_in(config.phase as u64);
        Epochs { cuts: Arc::new(Cuts { prepared, split, config, key, known: Mutex::default() }) }
    }

    pub fn prepared(&self) -> &Arc<PreparedData> {
        &self.cuts.prepared
    }

    pub fn split(&self) -> Split {
        self.cuts.split
    }

    pub fn config(&self) -> &ExampleConfig {
        &self.cuts.config
    }

    pub fn documents(&self) -> &Documents {
        self.cuts.prepared.documents(self.cuts.split)
    }

    /// Number of examples of epoch `number`.
    pub fn len(&self, number: u64) -> u64 {
        self.cuts.length(number % self.cuts.count())
    }

    /// Epoch of example `number`, and its index in the epoch's order.
    pub fn position(&self, number: u64) -> (u64, u64) {
        // Held-out examples are those of epoch 0 for ever: the same masks at every evaluation.
        if self.cuts.split == Split::HeldOut {
            return (0, number % self.len(0));
        }
        loop {
            let known = {
                let lengths = &self.cuts.lock().lengths;
                if let Some(position) = find(lengths, self.cuts.count(), number) {
                    return position;
                }
                lengths.len() as u64
            };
            self.cuts.length(known);
        }
    }

    /// Epoch `number`, ready to be read. The one after it is made ready meanwhile, so that none has to be waited for.
    pub fn epoch(&self, number: u64) -> Epoch {
        let cut = number % self.cuts.count();
        let table = self.cuts.table(cut);
        if self.cuts.split == Split::Train {
            self.cuts.make_ahead((cut + 1) % self.cuts.count());
        }
        let key = self.cuts.key;
        let order = Permutation::new(table.starts.len() as u64, key.fold_in(ORDER).fold_in(number));
        let draw = match self.cuts.config.masking {
            Masking::Dynamic => number,
            Masking::Static { .. } => cut,
        };
        Epoch { number, table, order, draws: key.fold_in(DRAW).fold_in(draw) }
    }

    /// Sets `text` to what example `index` of `epoch` holds, and returns the stream to mask it with. Reads no tokens.
    pub fn text(&self, epoch: &Epoch, index: u64, text: &mut ExampleLayout) -> Stream {
        let sentence = epoch.table.starts[epoch.order.at(index) as usize] as usize;
        let documents = self.documents();
        let document = documents.of_sentence(sentence);
        let first = sentence - document.first_sentence;
        let mut stream = epoch.draws.fold_in(sentence as u64).stream();
        let (mode, room) = (self.cuts.config.mode, self.cuts.room());
        if mode.is_pair() {
            let cut = self.cuts.cut_of(epoch.table.cut, document.index);
            cut.pair(documents, &document, first, &mut stream, text);
        } else {
            let together = documents_together(mode);
            let end = (document.index / together * together + together).min(documents.len());
            take(documents, Place { document: document.index, sentence: first }, end, room, text);
            window(text, room, &mut stream);
        }
        stream
    }
}

/// [`Epochs::position`], if the lengths of the first cuts tell; of all `cuts`, if the example lies behind them.
fn find(lengths: &[u64], cuts: u64, number: u64) -> Option<(u64, u64)> {
    let (mut epoch, mut index) = (0, number);
    if lengths.len() as u64 == cuts {
        let round: u64 = lengths.iter().sum();
        (epoch, index) = (number / round * cuts, number % round);
    }
    for &length in lengths {
        if index < length {
            return Some((epoch, index));
        }
        (epoch, index) = (epoch + 1, index - length);
    }
    None
}

impl Cuts {
    /// How many there are. Without draws, all would be the same.
    fn count(&self) -> u64 {
        match self.config.masking {
            Masking::Static { duplicates } => duplicates as u64,
            Masking::Dynamic if self.config.mode.is_pair() => CUTS,
            Masking::Dynamic => 1,
        }
    }

    /// Tokens of text that a row has room for.
    fn room(&self) -> u32 {
        let specials = if self.config.mode.is_pair() { SPECIAL_TOKENS_OF_A_PAIR } else { 2 };
        (self.config.sequence_length - specials) as u32
    }

    fn cut_of(&self, cut: u64, document: usize) -> PairSampler {
        let key = self.key.fold_in(CUT).fold_in(cut).fold_in(document as u64);
        PairSampler::new(key, self.config.mode, self.room(), self.config.short_seq_prob)
    }

    /// First sentences of a cut's chunks in the documents of group `group`, in the order of the text.
    fn each_start(&self, cut: u64, group: usize, mut found: impl FnMut(usize)) {
        let documents = self.prepared.documents(self.split);
        let together = documents_together(self.config.mode);
        if self.config.mode.is_pair() {
            let document = documents.get(group);
            self.cut_of(cut, group)
                .chunk_starts(document.starts)
                .for_each(|start| found(document.first_sentence + start));
        } else {
            let group = group * together..((group + 1) * together).min(documents.len());
            starts(documents, group, self.room())
                .for_each(|place| found(documents.get(place.document).first_sentence + place.sentence));
        }
    }

    /// Number of chunks of a cut in the documents of group `group`.
    fn chunks(&self, cut: u64, group: usize) -> u64 {
        let mut chunks = 0;
        self.each_start(cut, group, |_| chunks += 1);
        chunks
    }

    fn groups(&self) -> usize {
        self.prepared.documents(self.split).len().div_ceil(documents_together(self.config.mode))
    }

    /// Number of chunks of a cut: a pass over the lengths of all sentences, if it is not known.
    fn length(&self, cut: u64) -> u64 {
        if let Some(&length) = self.lock().lengths.get(cut as usize) {
            return length;
        }
        let count = |cut| {
            let table = self.lock().recall(cut);
            let groups = (0..self.groups()).into_par_iter();
            table.map_or_else(|| groups.map(|group| self.chunks(cut, group)).sum(), |table| table.starts.len() as u64)
        };
        // Lengths are known from the first on.
        loop {
            let next = self.lock().lengths.len() as u64;
            if next > cut {
                return self.lock().lengths[cut as usize];
            }
            let length = count(next);
            let mut known = self.lock();
            if known.lengths.len() as u64 == next {
                known.lengths.push(length);
            }
        }
    }

    /// The table of a cut, made if it is not at hand.
    ///
    /// Tables are made without holding the lock: making one is parallel, and a thread that waits for its share may be
    /// given another batch, which asks for the lock in turn. Two threads may so make the same table; it is kept once.
    fn table(&self, cut: u64) -> Arc<Table> {
        let recalled = self.lock().recall(cut);
        if let Some(table) = recalled {
            return table;
        }
        let groups = (0..self.groups()).into_par_iter();
        let parts: Vec<Vec<u32>> = groups
            .fold(Vec::new, |mut starts, group| {
                self.each_start(cut, group, |start| starts.push(start as u32));
                starts
            })
            .collect();
        let table = Arc::new(Table { cut, starts: parts.concat() });
        self.lock().keep(table.clone());
        table
    }

    /// Starts to make the table of a cut that will soon be asked for, by one thread of its own: the others are busy with
    /// batches, and an epoch is long against it.
    fn make_ahead(self: &Arc<Self>, cut: u64) {
        {
            let mut known = self.lock();
            if known.ahead == Some(cut) || known.tables.iter().any(|table| table.cut == cut) {
                return;
            }
            known.ahead = Some(cut);
        }
        let cuts = self.clone();
        // If there is no thread to be had, the table is made when it is asked for.
        if let Ok(thread) = rayon::ThreadPoolBuilder::new().num_threads(1).build() {
            thread.spawn(move || drop(cuts.table(cut)));
        }
    }

    /// A panic while the lock was held leaves no half-made table: each is complete before it is kept.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The table of a cut if it is here, now the most recent.
    fn recall(&mut self, cut: u64) -> Option<Arc<Table>> {
        let at = self.tables.iter().position(|table| table.cut == cut)?;
        let table = self.tables.remove(at);
        self.tables.push(table.clone());
        Some(table)
    }

    fn keep(&mut self, table: Arc<Table>) {
        if self.recall(table.cut).is_some() {
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
    fn a_position_is_one_division_however_far_it_is() {
        let lengths = [3, 1, 2];
        let expected = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (5, 0), (5, 1)];
        for (number, position) in (0..).zip(expected) {
            assert_eq!(find(&lengths, 3, number), Some(position));
        }
        assert_eq!(find(&lengths, 3, 6_000_000_000_000_004), Some((3_000_000_000_000_002, 0)));
        // Not all lengths are known yet: what lies behind the known ones is not found, but not wrong either.
        assert_eq!((find(&lengths, 4, 5), find(&lengths, 4, 6), find(&[], 4, 0)), (Some((2, 1)), None, None));
    }
}
