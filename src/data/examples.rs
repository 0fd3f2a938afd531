//! Examples by number: `batch(first, rows)` is a pure function, so that any host makes its own rows, any restart
//! continues where the last one stopped, and no example is stored.
//!
//! Numbers run through the epochs one after the other. An epoch is every pair that its documents are cut into, once, in
//! the epoch's own order; each epoch is cut, ordered and masked anew. What is random is drawn from keys:
//!
//! ```text
//! seed ── phase ── epoch ─┬─ ORDER                      order of the epoch's examples
//!                         └─ CUT ── document ─┬─ draws  short target or not
//!                                             └─ first sentence ── draws  a | b, random next, truncation, masks
//! ```
//!
//! Held-out examples are those of epoch 0 for ever: the same masks at every evaluation.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use crate::rng::Key;

use super::batch::{Batch, Row};
use super::error::{DataError, Result};
use super::mask::{MaskConfig, Targets, mask};
use super::order::Order;
use super::pairs::{Cut, Pair, Segment};
use super::prepared::{Prepared, Split};

/// Children of an epoch's key.
const ORDER: u64 = 0;
const CUT: u64 = 1;

/// `[CLS] a [SEP] b [SEP]`.
const SPECIAL_TOKENS_OF_A_PAIR: usize = 3;

/// Tables kept in memory: the epoch at hand, the one that a batch may reach into, and the one that a prefetched
/// evaluation of another position may ask for.
const TABLES_KEPT: usize = 3;

/// What decides the examples, besides the text.
#[derive(Clone, Debug, PartialEq)]
pub struct ExampleConfig {
    pub sequence_length: usize,
    /// Predictions of one sequence, at most: 20 at length 128 and 80 at 512 in BERT's own runs.
    pub max_predictions: usize,
    /// 0.15 for BERT.
    pub masked_lm_prob: f64,
    /// Share of documents that are cut for a shorter length: 0.1 for BERT.
    pub short_seq_prob: f64,
    /// Mask the pieces of a word together.
    pub whole_word_mask: bool,
    pub seed: u64,
    /// Index of the training phase; another phase draws other examples.
    pub phase: u32,
}

impl ExampleConfig {
    /// BERT's own rates at this length: 15 % of the tokens predicted, and 10 % of the documents cut short.
    pub fn bert(sequence_length: usize, max_predictions: usize) -> Self {
        ExampleConfig {
            sequence_length,
            max_predictions,
            masked_lm_prob: 0.15,
            short_seq_prob: 0.1,
            whole_word_mask: false,
            seed: 0,
            phase: 0,
        }
    }

    fn check(&self) -> Result<()> {
        let most = 1 << 20;
        if self.sequence_length < SPECIAL_TOKENS_OF_A_PAIR + 2 || self.sequence_length > most {
            let required = format!("5 ([CLS] a [SEP] b [SEP]) to {most} tokens");
            return Err(DataError::setting("sequence_length", required, self.sequence_length));
        }
        if self.max_predictions == 0 || self.max_predictions > self.sequence_length - SPECIAL_TOKENS_OF_A_PAIR {
            let required = format!(
                "1 to {} predictions at a sequence length of {}",
                self.sequence_length - SPECIAL_TOKENS_OF_A_PAIR,
                self.sequence_length
            );
            return Err(DataError::setting("max_predictions", required, self.max_predictions));
        }
        if !(self.masked_lm_prob > 0.0 && self.masked_lm_prob < 1.0) {
            return Err(DataError::setting("masked_lm_prob", "a number between 0 and 1", self.masked_lm_prob));
        }
        if !(0.0..=1.0).contains(&self.short_seq_prob) {
            return Err(DataError::setting("short_seq_prob", "a number from 0 to 1", self.short_seq_prob));
        }
        Ok(())
    }
}

/// One epoch: where its chunks start, and in which order they come.
#[derive(Debug)]
struct Epoch {
    number: u64,
    key: Key,
    /// First sentence (index in the split) of every chunk, in text order.
    chunks: Vec<u32>,
    order: Order,
}

/// What is known of the epochs so far.
#[derive(Debug, Default)]
struct Epochs {
    /// `ends[e]` is the number of the first example after epoch `e`.
    ends: Vec<u64>,
    /// The tables last used, the most recent at the back.
    tables: Vec<Arc<Epoch>>,
}

/// One example as text: what [`Batch`] holds in a row, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub epoch: u64,
    pub pair: Pair,
    /// `[CLS] a [SEP] b [SEP]`, masked.
    pub tokens: Vec<u32>,
    pub targets: Targets,
}

impl Example {
    /// Tokens of `[CLS] a [SEP]`, which are of type 0.
    pub fn first_segment(&self) -> usize {
        self.pair.a.tokens.len() + 2
    }
}

/// The examples of one split of prepared data under one configuration.
#[derive(Debug)]
pub struct Examples {
    prepared: Arc<Prepared>,
    split: Split,
    config: ExampleConfig,
    key: Key,
    epochs: Mutex<Epochs>,
}

impl Examples {
    /// Cuts the first epoch, so that what is wrong is said now.
    ///
    /// # Errors
    /// If a setting is impossible, or the split has fewer than the two documents that a random next sentence needs.
    pub fn new(prepared: Arc<Prepared>, split: Split, config: ExampleConfig) -> Result<Self> {
        config.check()?;
        let documents = prepared.documents(split).len();
        if documents < 2 {
            let next = match split {
                Split::Train => "prepare more text, or mark where documents end with empty lines",
                Split::HeldOut => "prepare with a larger --held-out",
            };
            return Err(DataError::Corpus {
                subject: format!("the {split} split of {}", prepared.directory().display()),
                required: "at least 2 documents, for a random next sentence comes from another one".into(),
                found: documents.to_string(),
                next: next.into(),
            });
        }
        let key = Key::new(config.seed).fold_in(config.phase as u64);
        let examples = Examples { prepared, split, config, key, epochs: Mutex::default() };
        examples.epoch(0);
        Ok(examples)
    }

    pub fn prepared(&self) -> &Arc<Prepared> {
        &self.prepared
    }

    pub fn split(&self) -> Split {
        self.split
    }

    pub fn config(&self) -> &ExampleConfig {
        &self.config
    }

    /// Number of examples of epoch `epoch`. Epochs differ a little, because each is cut anew.
    pub fn epoch_len(&self, epoch: u64) -> u64 {
        self.epoch(epoch).order.len()
    }

    /// How many epochs the first `examples` examples are, as `3.25` for a quarter of the fourth.
    pub fn epochs_covered(&self, examples: u64) -> f64 {
        let (epoch, index) = self.position(examples);
        epoch as f64 + index as f64 / self.epoch_len(epoch) as f64
    }

    /// Examples `first..first + rows`, made in parallel. The rows of one host are a range of the global batch's, so
    /// the same rows come out however a batch is divided.
    ///
    /// # Errors
    /// If a shard cannot be read any more, or holds a token outside the vocabulary.
    pub fn batch(&self, first: u64, rows: usize) -> Result<Batch> {
        // The epochs that the rows lie in, each with the first row that is its own.
        let mut parts: Vec<(Range<u64>, Arc<Epoch>, u64)> = Vec::new();
        let mut row = 0;
        while row < rows as u64 {
            let (number, index) = self.position(first + row);
            let epoch = self.epoch(number);
            let end = (row + epoch.order.len() - index).min(rows as u64);
            parts.push((row..end, epoch, index));
            row = end;
        }
        let pad = self.prepared.vocabulary().special().pad;
        let mut batch = Batch::blank(rows, self.config.sequence_length, self.config.max_predictions, pad);
        batch.rows_mut().enumerate().try_for_each(|(row, slots)| {
            let row = row as u64;
            let (range, epoch, index) = &parts[parts.partition_point(|(range, ..)| range.end <= row)];
            let example = self.make(epoch, index + (row - range.start))?;
            fill(slots, &example);
            Ok(())
        })?;
        Ok(batch)
    }

    /// Example `number`, as a row of a batch would hold it.
    ///
    /// # Errors
    /// As [`Examples::batch`].
    pub fn example(&self, number: u64) -> Result<Example> {
        let (epoch, index) = self.position(number);
        self.make(&self.epoch(epoch), index)
    }

    /// Epoch of an example, and its index in the epoch's order.
    fn position(&self, number: u64) -> (u64, u64) {
        if self.split == Split::HeldOut {
            return (0, number % self.epoch_len(0));
        }
        let mut known = 0;
        loop {
            {
                let epochs = self.lock();
                if epochs.ends.last().is_some_and(|&end| number < end) {
                    let epoch = epochs.ends.partition_point(|&end| end <= number);
                    let start = epoch.checked_sub(1).map_or(0, |before| epochs.ends[before]);
                    return (epoch as u64, number - start);
                }
                known = known.max(epochs.ends.len() as u64);
            }
            self.epoch(known);
        }
    }

    /// The table of an epoch, made if it is not at hand.
    ///
    /// Tables are made without holding the lock: making one is parallel, and a thread that waits for its share may be
    /// given another batch, which asks for the lock in turn. Two threads may so make the same table; the second is kept
    /// no more than once.
    fn epoch(&self, number: u64) -> Arc<Epoch> {
        loop {
            let known = {
                let mut epochs = self.lock();
                if let Some(epoch) = epochs.recall(number) {
                    return epoch;
                }
                epochs.ends.len() as u64
            };
            // Lengths of all epochs before are needed to count; a far epoch after a restart visits them one by one.
            let next = Arc::new(self.cut(number.min(known)));
            self.lock().keep(next);
        }
    }

    /// Cuts every document: the only pass over the whole split, on lengths alone.
    fn cut(&self, number: u64) -> Epoch {
        let key = self.key.fold_in(number);
        let documents = self.prepared.documents(self.split);
        let chunks: Vec<u32> = (0..documents.len())
            .into_par_iter()
            .flat_map_iter(|index| {
                let document = documents.get(index);
                let first = document.first_sentence;
                self.cut_of(key, index).chunk_starts(document.starts).map(move |start| (first + start) as u32)
            })
            .collect();
        let order = Order::new(chunks.len() as u64, key.fold_in(ORDER));
        Epoch { number, key, chunks, order }
    }

    fn cut_of(&self, epoch_key: Key, document: usize) -> Cut {
        let max_tokens = (self.config.sequence_length - SPECIAL_TOKENS_OF_A_PAIR) as u32;
        Cut::new(epoch_key.fold_in(CUT).fold_in(document as u64), max_tokens, self.config.short_seq_prob)
    }

    /// Example `index` of an epoch.
    fn make(&self, epoch: &Epoch, index: u64) -> Result<Example> {
        let documents = self.prepared.documents(self.split);
        let sentence = epoch.chunks[epoch.order.at(index) as usize] as usize;
        let document = documents.of_sentence(sentence);
        let cut = self.cut_of(epoch.key, document.index);
        let (pair, mut stream) = cut.pair(documents, &document, sentence - document.first_sentence);

        let vocabulary = self.prepared.vocabulary();
        let special = vocabulary.special();
        let read = |segment: &Segment| documents.get(segment.document).shard.read_tokens(segment.tokens.clone());
        let mut tokens = Vec::with_capacity(self.config.sequence_length);
        tokens.push(special.cls);
        tokens.extend(read(&pair.a)?);
        tokens.push(special.sep);
        tokens.extend(read(&pair.b)?);
        tokens.push(special.sep);

        let config = MaskConfig {
            max_predictions: self.config.max_predictions,
            masked_lm_prob: self.config.masked_lm_prob,
            whole_word_mask: self.config.whole_word_mask,
        };
        let targets = mask(&mut tokens, vocabulary, &config, &mut stream);
        Ok(Example { epoch: epoch.number, pair, tokens, targets })
    }

    /// A panic while the lock was held leaves no half-made table: each is complete before it is kept.
    fn lock(&self) -> std::sync::MutexGuard<'_, Epochs> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Epochs {
    /// The table of an epoch if it is here, now the most recent.
    fn recall(&mut self, number: u64) -> Option<Arc<Epoch>> {
        let at = self.tables.iter().position(|epoch| epoch.number == number)?;
        let epoch = self.tables.remove(at);
        self.tables.push(epoch.clone());
        Some(epoch)
    }

    fn keep(&mut self, epoch: Arc<Epoch>) {
        if epoch.number == self.ends.len() as u64 {
            let start = self.ends.last().copied().unwrap_or(0);
            self.ends.push(start + epoch.order.len());
        }
        if self.recall(epoch.number).is_some() {
            return;
        }
        if self.tables.len() == TABLES_KEPT {
            self.tables.remove(0);
        }
        self.tables.push(epoch);
    }
}

/// Writes an example into a row of padding.
fn fill(row: Row<'_>, example: &Example) {
    let length = example.tokens.len();
    for (slot, &token) in row.input_ids.iter_mut().zip(&example.tokens) {
        *slot = token as i32;
    }
    row.token_type_ids[example.first_segment()..length].fill(1);
    row.attention_mask[..length].fill(1);
    for (i, (&position, &id)) in example.targets.positions.iter().zip(&example.targets.ids).enumerate() {
        row.masked_lm_positions[i] = position as i32;
        row.masked_lm_ids[i] = id as i32;
        row.masked_lm_weights[i] = 1.0;
    }
    *row.next_sentence_label = example.pair.is_random_next as i32;
}
