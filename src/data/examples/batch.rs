//! A batch of examples in host memory, and its conversion to the tensors that programs take.

use std::sync::Arc;

use rayon::prelude::*;

use crate::batch::HostBatch;
use crate::batch::pretraining::{PackedTensors, PretrainingTensors, RowForm};
use crate::shape::HostTensor;

/// `rows` rows in row-major order. B = rows, S = sequence length, P = masked positions per row. A plain row holds one
/// example, a packed row up to K consecutive ones.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// B: number of rows.
    pub rows: usize,
    /// S: positions per row.
    pub sequence_length: usize,
    /// P: maximum number of masked positions per row.
    pub max_predictions: usize,
    /// `s32[B,S]`: `[CLS] a [SEP] b [SEP]` with masks, then `[PAD]`.
    pub input_ids: Vec<i32>,
    /// `s32[B,S]`: 0 for `[CLS] a [SEP]` and for padding, 1 for `b [SEP]`.
    pub token_type_ids: Vec<i32>,
    /// `s32[B,S]`: 1 for tokens, 0 for padding; in packed rows the number of the token's example in the row, from 1.
    pub attention_mask: Vec<i32>,
    /// `s32[B,P]`: ascending positions; 0 where unused.
    pub masked_lm_positions: Vec<i32>,
    /// `s32[B,P]`: the original tokens; 0 where unused.
    pub masked_lm_ids: Vec<i32>,
    /// `f32[B,P]`: 1 for a masked position, 0 where unused.
    pub masked_lm_weights: Vec<f32>,
    /// `s32[B]`, or `s32[B,K]` in packed rows: 1 if `b` is random (or swapped with `a`), −100 if there is no `b`.
    pub next_sentence_labels: Vec<i32>,
    /// Present in packed rows only.
    pub packed: Option<PackedRows>,
}

/// The additional tensors of packed rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedRows {
    /// K: maximum number of examples per row.
    pub sequences_per_row: usize,
    /// `s32[B,S]`: each token's position in its example; 0 for padding.
    pub position_ids: Vec<i32>,
    /// `s32[B,K]`: start of each example in the row; 0 where unused.
    pub cls_positions: Vec<i32>,
    /// `s32[B,K]`: each example's number in the global batch; 0 where unused.
    pub example_ids: Vec<i32>,
}

/// One row of [`PackedRows`], to be written.
pub(super) struct PackedRow<'a> {
    pub position_ids: &'a mut [i32],
    pub cls_positions: &'a mut [i32],
    pub example_ids: &'a mut [i32],
}

/// One row of a [`Batch`], to be written.
pub(super) struct Row<'a> {
    pub input_ids: &'a mut [i32],
    pub token_type_ids: &'a mut [i32],
    pub attention_mask: &'a mut [i32],
    pub masked_lm_positions: &'a mut [i32],
    pub masked_lm_ids: &'a mut [i32],
    pub masked_lm_weights: &'a mut [f32],
    pub next_sentence_labels: &'a mut [i32],
}

impl Batch {
    /// Creates rows of padding.
    pub(super) fn blank(rows: usize, sequence_length: usize, max_predictions: usize, pad: u32) -> Self {
        Batch {
            rows,
            sequence_length,
            max_predictions,
            input_ids: vec![pad as i32; rows * sequence_length],
            token_type_ids: vec![0; rows * sequence_length],
            attention_mask: vec![0; rows * sequence_length],
            masked_lm_positions: vec![0; rows * max_predictions],
            masked_lm_ids: vec![0; rows * max_predictions],
            masked_lm_weights: vec![0.0; rows * max_predictions],
            next_sentence_labels: vec![0; rows],
            packed: None,
        }
    }

    /// Iterates over the rows, which threads write in parallel.
    pub(super) fn rows_mut(&mut self) -> impl IndexedParallelIterator<Item = Row<'_>> {
        let (s, p) = (self.sequence_length, self.max_predictions);
        let k = self.next_sentence_labels.len() / self.rows;
        let sequences = self
            .input_ids
            .par_chunks_exact_mut(s)
            .zip(self.token_type_ids.par_chunks_exact_mut(s))
            .zip(self.attention_mask.par_chunks_exact_mut(s));
        let predictions = self
            .masked_lm_positions
            .par_chunks_exact_mut(p)
            .zip(self.masked_lm_ids.par_chunks_exact_mut(p))
            .zip(self.masked_lm_weights.par_chunks_exact_mut(p));
        sequences.zip(predictions).zip(self.next_sentence_labels.par_chunks_exact_mut(k)).map(
            |((((input_ids, token_type_ids), attention_mask), predictions), next_sentence_labels)| {
                let ((masked_lm_positions, masked_lm_ids), masked_lm_weights) = predictions;
                Row {
                    input_ids,
                    token_type_ids,
                    attention_mask,
                    masked_lm_positions,
                    masked_lm_ids,
                    masked_lm_weights,
                    next_sentence_labels,
                }
            },
        )
    }

    /// Converts the rows of `replicas` replicas, which divide them in order, into the tensors that programs take.
    pub fn into_host(self, replicas: usize) -> HostBatch {
        let sequence = [self.rows, self.sequence_length];
        let predictions = [self.rows, self.max_predictions];
        let sequences_per_row = self.packed.as_ref().map_or(1, |packed| packed.sequences_per_row);
        let sequences = [self.rows, sequences_per_row];
        let tensors = PretrainingTensors {
            input_ids: HostTensor::new(sequence, &self.input_ids),
            attention_mask: HostTensor::new(sequence, &self.attention_mask),
            token_type_ids: HostTensor::new(sequence, &self.token_type_ids),
            masked_lm_positions: HostTensor::new(predictions, &self.masked_lm_positions),
            masked_lm_ids: HostTensor::new(predictions, &self.masked_lm_ids),
            masked_lm_weights: HostTensor::new(predictions, &self.masked_lm_weights),
            next_sentence_labels: match &self.packed {
                None => HostTensor::new([self.rows], &self.next_sentence_labels),
                Some(_) => HostTensor::new(sequences, &self.next_sentence_labels),
            },
            packed: self.packed.as_ref().map(|packed| PackedTensors {
                position_ids: HostTensor::new(sequence, &packed.position_ids),
                cls_positions: HostTensor::new(sequences, &packed.cls_positions),
                example_ids: HostTensor::new(sequences, &packed.example_ids),
            }),
        };
        let (sequence_length, max_predictions) = (self.sequence_length, self.max_predictions);
        let spec = RowForm { sequence_length, max_predictions, sequences_per_row }.spec();
        let names = spec.tensors.iter().map(|tensor| tensor.name);
        HostBatch {
            rows: self.rows,
            tensors: names.zip(tensors.into_vec().into_iter().map(Arc::new)).collect(),
            row_length: self.sequence_length,
            tokens: self.real_tokens(),
            occupied_rows: self.occupied_rows(replicas),
            spare_rows: 0,
        }
    }

    /// Returns the rows of a replica: all of plain ones; of packed ones, those up to the last that holds a token on any of
    /// `replicas`.
    fn occupied_rows(&self, replicas: usize) -> usize {
        let rows = self.rows / replicas;
        if self.packed.is_none() {
            return rows;
        }
        let holds_token = |row: &[i32]| row[0] > 0;
        let occupied =
            |block: &[i32]| block.chunks(self.sequence_length).rposition(holds_token).map_or(0, |last| last + 1);
        let blocks = self.attention_mask.chunks(rows * self.sequence_length);
        blocks.map(occupied).max().unwrap_or(0)
    }

    /// Returns the number of tokens that are not padding.
    pub fn real_tokens(&self) -> usize {
        self.attention_mask.iter().filter(|&&x| x > 0).count()
    }
}

impl PackedRows {
    /// Creates rows without examples.
    pub(super) fn blank(rows: usize, sequence_length: usize, sequences_per_row: usize) -> Self {
        PackedRows {
            sequences_per_row,
            position_ids: vec![0; rows * sequence_length],
            cls_positions: vec![0; rows * sequences_per_row],
            example_ids: vec![0; rows * sequences_per_row],
        }
    }

    /// Iterates over the rows, which threads write in parallel.
    pub(super) fn rows_mut(&mut self, sequence_length: usize) -> impl IndexedParallelIterator<Item = PackedRow<'_>> {
        let k = self.sequences_per_row;
        let sequences = self.cls_positions.par_chunks_exact_mut(k).zip(self.example_ids.par_chunks_exact_mut(k));
        self.position_ids
            .par_chunks_exact_mut(sequence_length)
            .zip(sequences)
            .map(|(position_ids, (cls_positions, example_ids))| PackedRow { position_ids, cls_positions, example_ids })
    }
}
