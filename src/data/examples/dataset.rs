//! Examples by number. `batch(first, rows)` is a pure function: each host builds its own rows, a restart continues
//! where the last run stopped, and no example is stored.
//!
//! Numbers run through the epochs consecutively. [`Epochs`] maps a number to token ranges; this module reads and masks
//! the tokens. A [`Window`] holds the epochs of some consecutive numbers, so that the length of an example is known
//! without reading it, and an example can be written to any place in a row.

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
use crate::data::tokenizer::vocabulary::Vocabulary;
use crate::data::tokenizer::word_mark::WordMark;

/// One example: the content of a row of a [`Batch`], without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Epoch of the example.
    pub epoch: u64,
    /// The token ranges and the label.
    pub layout: ExampleLayout,
    /// `[CLS]` and the segments, each followed by `[SEP]`, masked.
    pub tokens: Vec<u32>,
    /// The masked positions with their original tokens.
    pub targets: Targets,
}

/// The examples of one split of prepared data under one configuration.
#[derive(Debug)]
pub struct Dataset {
    epochs: Epochs,
}

/// A range of consecutive examples.
#[derive(Debug)]
pub struct Window<'a> {
    examples: &'a Dataset,
    /// The number of the first example.
    first: u64,
    /// Per epoch: the range of examples in the window, the epoch, and the first example's index in it.
    parts: Vec<(Range<usize>, Epoch, u64)>,
}

/// Buffers for building examples, one per thread.
#[derive(Default)]
struct Workspace {
    layout: ExampleLayout,
    masker: Masker,
}

/// Largest number of examples that are packed to estimate the rows per example.
const PACKING_SAMPLE: usize = 4096;

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

impl Dataset {
    /// Opens the examples of a split. Chunks the first epoch, so that errors appear early.
    ///
    /// # Errors
    /// If a setting is invalid, or the split has fewer documents than needed: two for pairs, because a random next
    /// sentence comes from another document; otherwise one.
    pub fn new(prepared: Arc<PreparedData>, split: Split, config: ExampleConfig) -> Result<Self> {
        config.check()?;
        let documents = prepared.documents(split).len();
        let (least, why) = match config.mode.is_pair() {
            true => (2, "at least 2 documents, because a random next sentence comes from another document"),
            false => (1, "at least 1 document"),
        };
        if documents < least {
            let next = match split {
                Split::Train => "prepare more text, or separate the documents by empty lines",
                Split::HeldOut => "prepare with a larger held_out",
            };
            return Err(DataError::Corpus {
                subject: format!("the {split} split of {}", prepared.directory().display()),
                required: why.into(),
                found: documents.to_string(),
                next: next.into(),
            });
        }
        check_tokenizer(prepared.vocabulary(), &config)?;
        let examples = Dataset { epochs: Epochs::new(prepared, split, config) };
        examples.epochs.epoch(0);
        Ok(examples)
    }

    /// Returns the prepared data.
    pub fn prepared(&self) -> &Arc<PreparedData> {
        self.epochs.prepared()
    }

    /// Returns the split.
    pub fn split(&self) -> Split {
        self.epochs.split()
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ExampleConfig {
        self.epochs.config()
    }

    /// Returns the number of examples of epoch `epoch`. Epochs differ slightly, because their chunks differ.
    pub fn epoch_len(&self, epoch: u64) -> u64 {
        self.epochs.len(epoch)
    }

    /// Returns the number of epochs in the first `examples` examples, such as `3.25`.
    pub fn epochs_covered(&self, examples: u64) -> f64 {
        let (epoch, index) = self.epochs.position(examples);
        epoch as f64 + index as f64 / self.epoch_len(epoch) as f64
    }

    /// Returns the examples `first..first + count`.
    pub fn window(&self, first: u64, count: usize) -> Window<'_> {
        let mut parts = Vec::new();
        let mut begin = 0;
        while begin < count {
            let (number, index) = self.epochs.position(first + begin as u64);
            let epoch = self.epochs.epoch(number);
            let end = (begin as u64 + epoch.examples() - index).min(count as u64) as usize;
            parts.push((begin..end, epoch, index));
            begin = end;
        }
        Window { examples: self, first, parts }
    }

    /// Builds the examples `first..first + rows` in parallel. The rows of a host are a range of the global batch, so
    /// the rows do not depend on how a batch is divided. Allocates the tensors of the batch; once each thread has built
    /// some examples, building allocates nothing else.
    ///
    /// # Errors
    /// If a shard holds a token outside the vocabulary, or was truncated since it was opened.
    pub fn batch(&self, first: u64, rows: usize) -> Result<Batch> {
        self.prepared().documents(self.split()).unchanged(|| {
            let window = self.window(first, rows);
            let pad = self.prepared().vocabulary().special().pad;
            let mut batch =
                Batch::blank(rows, self.config().sequence_length, self.config().max_predictions_per_seq, pad);
            batch.rows_mut().enumerate().try_for_each(|(i, row)| window.write(i, row, 0))?;
            Ok(batch)
        })
    }

    /// Packs the examples `first..first + count` into rows of up to `sequences_per_row` examples and builds the rows of
    /// the replicas `replicas` out of `of`. Each replica has a block of `count / of` rows, the unused ones being
    /// padding. The packing is that of all `count` examples on every host; its rows are dealt to the replicas in turn.
    /// Allocates as [`Dataset::batch`], and the lists of the packing.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    ///
    /// # Panics
    /// If `count` is not a multiple of `of`.
    pub fn packed_batch(
        &self,
        first: u64,
        count: usize,
        sequences_per_row: usize,
        replicas: Range<usize>,
        of: usize,
    ) -> Result<Batch> {
        assert!(count.is_multiple_of(of), "{count} examples for {of} replicas");
        let packed = || self.pack(first, count, sequences_per_row, replicas, of);
        self.prepared().documents(self.split()).unchanged(packed)
    }

    /// Builds a packed batch without checking that the shards are unchanged.
    fn pack(
        &self,
        first: u64,
        count: usize,
        sequences_per_row: usize,
        replicas: Range<usize>,
        of: usize,
    ) -> Result<Batch> {
        let window = self.window(first, count);
        let packing = window.packing(sequences_per_row);
        let (length, room) = (self.config().sequence_length, count / of);
        let (rows, pad) = (replicas.len() * room, self.prepared().vocabulary().special().pad);
        let mut batch = Batch::blank(rows, length, max_predictions_per_row(self.config(), sequences_per_row), pad);
        let mut packed = PackedRows::blank(rows, length, sequences_per_row);
        batch.next_sentence_labels = vec![0; rows * sequences_per_row];
        batch.rows_mut().zip(packed.rows_mut(length)).enumerate().try_for_each(|(at, (row, packed_row))| {
            let number = (at % room) * of + replicas.start + at / room;
            window.write_row(packing.row(number), row, packed_row)
        })?;
        batch.packed = Some(packed);
        Ok(batch)
    }

    /// Returns the average number of rows per example in packed batches of `batch`, measured on the first of them.
    /// Reads no tokens.
    pub fn rows_per_sequence(&self, batch: usize, sequences_per_row: usize) -> f64 {
        if sequences_per_row == 1 {
            return 1.0;
        }
        self.window(0, batch.min(PACKING_SAMPLE)).packing(sequences_per_row).rows_per_sequence()
    }

    /// Builds example `number`, as in a row of a batch.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub fn example(&self, number: u64) -> Result<Example> {
        let row = self.batch(number, 1)?;
        let window = self.window(number, 1);
        let layout = window.layout(0);
        let predicted = row.masked_lm_weights.iter().filter(|&&weight| weight > 0.0).count();
        let targets = Targets {
            positions: row.masked_lm_positions[..predicted].iter().map(|&position| position as usize).collect(),
            ids: row.masked_lm_ids[..predicted].iter().map(|&id| id as u32).collect(),
        };
        let tokens = row.input_ids[..layout.length()].iter().map(|&id| id as u32).collect();
        Ok(Example { epoch: window.parts[0].1.number, layout, tokens, targets })
    }

    /// Reads `[CLS]` and the segments of `layout`, each followed by `[SEP]`, into `tokens`, which has the length of the
    /// layout.
    fn read(&self, layout: &ExampleLayout, tokens: &mut [i32]) -> Result<()> {
        let (documents, special) = (self.epochs.documents(), self.prepared().vocabulary().special());
        tokens[0] = special.cls as i32;
        let mut at = 1;
        for (i, segment) in layout.segments.iter().enumerate() {
            let end = at + segment.tokens.len();
            documents.get(segment.document).shard.copy_tokens(segment.tokens.clone(), &mut tokens[at..end])?;
            at = end + layout.separators_behind(i);
            tokens[end..at].fill(special.sep as i32);
        }
        Ok(())
    }
}

/// Checks that examples with these settings can be made of the tokens of `vocabulary`.
fn check_tokenizer(vocabulary: &Vocabulary, config: &ExampleConfig) -> Result<()> {
    let by_words = [("whole_word_mask", config.whole_word_mask), ("span_mask", config.span_mask.is_some())];
    if let Some((setting, _)) = by_words.into_iter().find(|(_, is_set)| *is_set)
        && vocabulary.word_mark() == WordMark::None
    {
        let required = "a tokenizer whose tokens mark the beginnings of words (##, Ġ or ▁)";
        return Err(DataError::setting(setting, required, "one whose tokens do not"));
    }
    let least = if config.mode.is_pair() { vocabulary.pair_form().special_tokens() + 2 } else { 3 };
    if config.sequence_length < least {
        return Err(DataError::setting("sequence_length", format!("at least {least} tokens"), config.sequence_length));
    }
    Ok(())
}

impl Window<'_> {
    /// Returns the number of examples.
    pub fn len(&self) -> usize {
        self.parts.last().map_or(0, |(range, ..)| range.end)
    }

    /// Returns `true` for a window of no examples.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Returns the layout of example `i` of the window. Reads no tokens.
    pub fn layout(&self, i: usize) -> ExampleLayout {
        let mut layout = ExampleLayout::default();
        let (epoch, index) = self.place(i);
        self.examples.epochs.layout(epoch, index, &mut layout);
        layout
    }

    /// Returns the number of tokens of example `i` of the window, including `[CLS]` and `[SEP]`. Reads no tokens.
    pub fn length(&self, i: usize) -> usize {
        let (epoch, index) = self.place(i);
        WORKSPACE.with_borrow_mut(|Workspace { layout, .. }| {
            self.examples.epochs.layout(epoch, index, layout);
            layout.length()
        })
    }

    /// Writes example `i` of the window to the start of `row`, which holds padding. `offset` is the position of `row`
    /// in the packed row, to which masked positions refer.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub(super) fn write(&self, i: usize, row: Row<'_>, offset: usize) -> Result<()> {
        let (epoch, index) = self.place(i);
        WORKSPACE.with_borrow_mut(|Workspace { layout, masker }| {
            let mut stream = self.examples.epochs.layout(epoch, index, layout);
            let length = layout.length();
            let tokens = &mut row.input_ids[..length];
            self.examples.read(layout, tokens)?;
            let (vocabulary, config) =
                (self.examples.prepared().vocabulary(), self.examples.config().mask(self.first + i as u64));
            let targets = masker.mask(tokens, vocabulary, &config, &mut stream);

            row.token_type_ids[layout.first_segment()..length].fill(vocabulary.pair_form().second_type);
            row.attention_mask[..length].fill(1);
            for (i, (&position, &id)) in targets.positions.iter().zip(&targets.ids).enumerate() {
                row.masked_lm_positions[i] = (offset + position) as i32;
                row.masked_lm_ids[i] = id as i32;
                row.masked_lm_weights[i] = 1.0;
            }
            row.next_sentence_labels[0] = layout.label;
            Ok(())
        })
    }

    /// Packs all examples of the window into rows of up to `sequences_per_row`.
    pub fn packing(&self, sequences_per_row: usize) -> Packing {
        let lengths: Vec<usize> = (0..self.len()).into_par_iter().map(|i| self.length(i)).collect();
        Packing::new(&lengths, self.examples.config().sequence_length, sequences_per_row)
    }

    /// Writes the examples of a packed row into `row` and `packed_row`, which hold padding.
    fn write_row(&self, examples: &[PackedExample], row: Row<'_>, packed_row: PackedRow<'_>) -> Result<()> {
        let mut predicted = 0;
        for (k, &PackedExample { example, start, length }) in examples.iter().enumerate() {
            let positions = start..start + length;
            let of_example = Row {
                input_ids: &mut row.input_ids[positions.clone()],
                token_type_ids: &mut row.token_type_ids[positions.clone()],
                attention_mask: &mut row.attention_mask[positions.clone()],
                masked_lm_positions: &mut row.masked_lm_positions[predicted..],
                masked_lm_ids: &mut row.masked_lm_ids[predicted..],
                masked_lm_weights: &mut row.masked_lm_weights[predicted..],
                next_sentence_labels: &mut row.next_sentence_labels[k..=k],
            };
            self.write(example, of_example, start)?;
            row.attention_mask[positions.clone()].fill(k as i32 + 1);
            packed_row.position_ids[positions].iter_mut().zip(0..).for_each(|(id, place)| *id = place);
            packed_row.cls_positions[k] = start as i32;
            packed_row.example_ids[k] = example as i32;
            predicted += row.masked_lm_weights[predicted..].iter().take_while(|&&weight| weight > 0.0).count();
        }
        Ok(())
    }

    /// Returns the epoch of example `i` of the window, and its index there.
    fn place(&self, i: usize) -> (&Epoch, u64) {
        let (range, epoch, index) = &self.parts[self.parts.partition_point(|(range, ..)| range.end <= i)];
        (epoch, index + (i - range.start) as u64)
    }
}
