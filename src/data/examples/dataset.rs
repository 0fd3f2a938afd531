//! Examples by number: `batch(first, rows)` is a pure function, so that any host makes its own rows, any restart
//! continues where the last one stopped, and no example is stored.
//!
//! Numbers run through the epochs one after the other; [`Epochs`] says what text a number stands for, here it is read and
//! masked. A [`Window`] holds what is needed of the epochs that some consecutive numbers lie in: an example's length is known
//! from it without reading, and an example is written into any place of a row.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::batch::{Batch, PackedRow, PackedRows, Row};
use super::config::ExampleConfig;
use super::epochs::{Epoch, Epochs};
use super::layout::ExampleLayout;
use super::mask::{Masker, Targets};
use super::packing::{PackedExample, Packing, max_predictions_per_row};
use crate::data::error::{DataError, Result};
use crate::data::store::prepared::PreparedData;
use crate::data::store::shard::Split;

/// One example as text: what [`Batch`] holds in a row, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub epoch: u64,
    pub text: ExampleLayout,
    /// `[CLS]` and the segments, each with a `[SEP]` behind it, masked.
    pub tokens: Vec<u32>,
    pub targets: Targets,
}

/// The examples of one split of prepared data under one configuration.
#[derive(Debug)]
pub struct Dataset {
    epochs: Epochs,
}

/// Consecutive examples, ready to be written.
#[derive(Debug)]
pub struct Window<'a> {
    examples: &'a Dataset,
    /// The epochs that they lie in: which of the examples, the epoch, and the first one's index there.
    parts: Vec<(Range<usize>, Epoch, u64)>,
}

/// What one example after the other is made in, by each thread for itself.
#[derive(Default)]
struct Workspace {
    text: ExampleLayout,
    masker: Masker,
}

/// Examples that are laid into rows to see how many rows examples take, at most.
const SURVEYED: usize = 4096;

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Dataset {
    /// Cuts the first epoch, so that what is wrong is said now.
    ///
    /// # Errors
    /// If a setting is impossible, or the split has fewer than the two documents that a random next sentence needs.
    pub fn new(prepared: Arc<PreparedData>, split: Split, config: ExampleConfig) -> Result<Self> {
        config.check()?;
        let documents = prepared.documents(split).len();
        let (least, why) = match config.mode.is_pair() {
            true => (2, "at least 2 documents, for a random next sentence comes from another one"),
            false => (1, "at least 1 document"),
        };
        if documents < least {
            let next = match split {
                Split::Train => "prepare more text, or mark where documents end with empty lines",
                Split::HeldOut => "prepare with a larger --held-out",
            };
            return Err(DataError::Corpus {
                subject: format!("the {split} split of {}", prepared.directory().display()),
                required: why.into(),
                found: documents.to_string(),
                next: next.into(),
            });
        }
        let examples = Dataset { epochs: Epochs::new(prepared, split, config) };
        examples.epochs.epoch(0);
        Ok(examples)
    }

    pub fn prepared(&self) -> &Arc<PreparedData> {
        self.epochs.prepared()
    }

    pub fn split(&self) -> Split {
        self.epochs.split()
    }

    pub fn config(&self) -> &ExampleConfig {
        self.epochs.config()
    }

    /// Number of examples of epoch `epoch`. Epochs differ a little, because they are cut differently.
    pub fn epoch_len(&self, epoch: u64) -> u64 {
        self.epochs.len(epoch)
    }

    /// How many epochs the first `examples` examples are, as `3.25` for a quarter of the fourth.
    pub fn epochs_covered(&self, examples: u64) -> f64 {
        let (epoch, index) = self.epochs.position(examples);
        epoch as f64 + index as f64 / self.epoch_len(epoch) as f64
    }

    /// Examples `first..first + count`.
    pub fn window(&self, first: u64, count: usize) -> Window<'_> {
        let mut parts = Vec::new();
        let mut begin = 0;
        while begin < count {
            let (number, index) = self.epochs.position(first + begin as u64);
            let epoch = self.epochs.epoch(number);
            let end = (begin as u64 + epoch.len() - index).min(count as u64) as usize;
            parts.push((begin..end, epoch, index));
            begin = end;
        }
        Window { examples: self, parts }
    }

    /// Examples `first..first + rows`, made in parallel. The rows of one host are a range of the global batch's, so
    /// the same rows come out however a batch is divided. Allocates the tensors of the batch: once threads have made some
    /// examples, none takes an allocation more.
    ///
    /// # Errors
    /// If a shard holds a token outside the vocabulary.
    pub fn batch(&self, first: u64, rows: usize) -> Result<Batch> {
        let window = self.window(first, rows);
        let pad = self.prepared().vocabulary().special().pad;
        let mut batch = Batch::blank(rows, self.config().sequence_length, self.config().max_predictions_per_seq, pad);
        batch.rows_mut().enumerate().try_for_each(|(row, slots)| window.write(row, slots, 0))?;
        Ok(batch)
    }

    /// Examples `first..first + count`, packed into rows of up to `sequences_per_row`: the rows of the replicas `replicas`
    /// out of `of`, each replica's in a block with room for `count / of` rows, what is not needed being padding. The layout
    /// is that of all `count`, whoever asks; its rows are dealt to the replicas in turn. Allocates as [`Dataset::batch`], and
    /// the lists of the layout.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    ///
    /// # Panics
    /// If `count` is no multiple of `of`.
    pub fn packed_batch(
        &self,
        first: u64,
        count: usize,
        sequences_per_row: usize,
        replicas: Range<usize>,
        of: usize,
    ) -> Result<Batch> {
        assert!(count.is_multiple_of(of), "{count} examples for {of} replicas");
        let window = self.window(first, count);
        let packing = window.packing(sequences_per_row);
        let (length, room) = (self.config().sequence_length, count / of);
        let (rows, pad) = (replicas.len() * room, self.prepared().vocabulary().special().pad);
        let mut batch = Batch::blank(rows, length, max_predictions_per_row(self.config(), sequences_per_row), pad);
        let mut packed = PackedRows::blank(rows, length, sequences_per_row);
        batch.next_sentence_labels = vec![0; rows * sequences_per_row];
        batch.rows_mut().zip(packed.rows_mut(length)).enumerate().try_for_each(|(at, (slots, packed))| {
            let row = (at % room) * of + replicas.start + at / room;
            window.write_row(packing.row(row), slots, packed)
        })?;
        batch.packed = Some(packed);
        Ok(batch)
    }

    /// Rows that an example takes in batches of `batch` that are packed into rows of up to `sequences_per_row`, by the first
    /// of them. Reads no text.
    pub fn rows_per_sequence(&self, batch: usize, sequences_per_row: usize) -> f64 {
        if sequences_per_row == 1 {
            return 1.0;
        }
        self.window(0, batch.min(SURVEYED)).packing(sequences_per_row).rows_per_sequence()
    }

    /// Example `number`, as a row of a batch would hold it.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub fn example(&self, number: u64) -> Result<Example> {
        let row = self.batch(number, 1)?;
        let window = self.window(number, 1);
        let text = window.text(0);
        let predicted = row.masked_lm_weights.iter().filter(|&&weight| weight > 0.0).count();
        let targets = Targets {
            positions: row.masked_lm_positions[..predicted].iter().map(|&position| position as usize).collect(),
            ids: row.masked_lm_ids[..predicted].iter().map(|&id| id as u32).collect(),
        };
        let tokens = row.input_ids[..text.length()].iter().map(|&id| id as u32).collect();
        Ok(Example { epoch: window.parts[0].1.number, text, tokens, targets })
    }

    /// Reads `[CLS]` and the segments of `text`, each with a `[SEP]` behind it, into `tokens`, as many as the text has.
    fn read(&self, text: &ExampleLayout, tokens: &mut [i32]) -> Result<()> {
        let (documents, special) = (self.epochs.documents(), self.prepared().vocabulary().special());
        tokens[0] = special.cls as i32;
        let mut at = 1;
        for segment in &text.segments {
            let end = at + segment.tokens.len();
            documents.get(segment.document).shard.copy_tokens(segment.tokens.clone(), &mut tokens[at..end])?;
            tokens[end] = special.sep as i32;
            at = end + 1;
        }
        Ok(())
    }
}

impl Window<'_> {
    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.parts.last().map_or(0, |(range, ..)| range.end)
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Which tokens example `i` of the window holds. Reads none.
    pub fn text(&self, i: usize) -> ExampleLayout {
        let mut text = ExampleLayout::default();
        let (epoch, index) = self.place(i);
        self.examples.epochs.text(epoch, index, &mut text);
        text
    }

    /// Tokens of example `i` of the window, `[CLS]` and `[SEP]` counted. Reads none.
    pub fn length(&self, i: usize) -> usize {
        let (epoch, index) = self.place(i);
        WORKSPACE.with_borrow_mut(|Workspace { text, .. }| {
            self.examples.epochs.text(epoch, index, text);
            text.length()
        })
    }

    /// Writes example `i` of the window to the front of `slots`, which hold padding. `offset` is where these begin in their
    /// row: targets are given by positions in the row.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub(super) fn write(&self, i: usize, slots: Row<'_>, offset: usize) -> Result<()> {
        let (epoch, index) = self.place(i);
        WORKSPACE.with_borrow_mut(|Workspace { text, masker }| {
            let mut stream = self.examples.epochs.text(epoch, index, text);
            let length = text.length();
            let tokens = &mut slots.input_ids[..length];
            self.examples.read(text, tokens)?;
            let (vocabulary, config) = (self.examples.prepared().vocabulary(), self.examples.config().mask());
            let targets = masker.mask(tokens, vocabulary, &config, &mut stream);

            slots.token_type_ids[text.first_segment()..length].fill(1);
            slots.attention_mask[..length].fill(1);
            for (i, (&position, &id)) in targets.positions.iter().zip(&targets.ids).enumerate() {
                slots.masked_lm_positions[i] = (offset + position) as i32;
                slots.masked_lm_ids[i] = id as i32;
                slots.masked_lm_weights[i] = 1.0;
            }
            slots.next_sentence_labels[0] = text.label;
            Ok(())
        })
    }

    /// How all examples of the window are laid into rows of up to `sequences_per_row`.
    pub fn packing(&self, sequences_per_row: usize) -> Packing {
        let lengths: Vec<usize> = (0..self.len()).into_par_iter().map(|i| self.length(i)).collect();
        Packing::new(&lengths, self.examples.config().sequence_length, sequences_per_row)
    }

    /// Writes the examples of a packed row into `slots` and `packed`, which hold padding.
    fn write_row(&self, row: &[PackedExample], slots: Row<'_>, packed: PackedRow<'_>) -> Result<()> {
        let mut predicted = 0;
        for (k, &PackedExample { example, start, length }) in row.iter().enumerate() {
            let positions = start..start + length;
            let of_example = Row {
                input_ids: &mut slots.input_ids[positions.clone()],
                token_type_ids: &mut slots.token_type_ids[positions.clone()],
                attention_mask: &mut slots.attention_mask[positions.clone()],
                masked_lm_positions: &mut slots.masked_lm_positions[predicted..],
                masked_lm_ids: &mut slots.masked_lm_ids[predicted..],
                masked_lm_weights: &mut slots.masked_lm_weights[predicted..],
                next_sentence_labels: &mut slots.next_sentence_labels[k..=k],
            };
            self.write(example, of_example, start)?;
            slots.attention_mask[positions.clone()].fill(k as i32 + 1);
            packed.position_ids[positions].iter_mut().zip(0..).for_each(|(id, place)| *id = place);
            packed.cls_positions[k] = start as i32;
            packed.example_ids[k] = example as i32;
            predicted += slots.masked_lm_weights[predicted..].iter().take_while(|&&weight| weight > 0.0).count();
        }
        Ok(())
    }

    /// Epoch of example `i` of the window, and its index there.
    fn place(&self, i: usize) -> (&Epoch, u64) {
        let (range, epoch, index) = &self.parts[self.parts.partition_point(|(range, ..)| range.end <= i)];
        (epoch, index + (i - range.start) as u64)
    }
}
