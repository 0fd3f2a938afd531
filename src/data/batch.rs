//! A batch in host memory, in the names and types that the training step takes.

use rayon::prelude::*;

use crate::shape::HostTensor;

/// `rows` examples, row-major. B = rows, S = sequence length, P = predictions.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub rows: usize,
    pub sequence_length: usize,
    pub max_predictions: usize,
    /// s32[B,S]: `[CLS] a [SEP] b [SEP]`, masked, then zeros (BERT's `[PAD]`; another `[PAD]` id is used as it is).
    pub input_ids: Vec<i32>,
    /// s32[B,S]: 0 for `[CLS] a [SEP]` and for padding, 1 for `b [SEP]`.
    pub token_type_ids: Vec<i32>,
    /// s32[B,S]: 1 for tokens, 0 for padding.
    pub attention_mask: Vec<i32>,
    /// s32[B,P]: ascending positions; 0 where there is no prediction.
    pub masked_lm_positions: Vec<i32>,
    /// s32[B,P]: the tokens that stood there; 0 where there is no prediction.
    pub masked_lm_ids: Vec<i32>,
    /// f32[B,P]: 1 for a prediction, 0 for none.
    pub masked_lm_weights: Vec<f32>,
    /// s32[B]: 1 if `b` is random (or swapped with `a`), −100 if there is no `b`.
    pub next_sentence_labels: Vec<i32>,
}

/// One row of a [`Batch`], to be filled.
pub(super) struct Row<'a> {
    pub input_ids: &'a mut [i32],
    pub token_type_ids: &'a mut [i32],
    pub attention_mask: &'a mut [i32],
    pub masked_lm_positions: &'a mut [i32],
    pub masked_lm_ids: &'a mut [i32],
    pub masked_lm_weights: &'a mut [f32],
    pub next_sentence_label: &'a mut i32,
}

impl Batch {
    /// Rows of padding only.
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
        }
    }

    /// The rows, each with its index, for threads to fill side by side.
    pub(super) fn rows_mut(&mut self) -> impl IndexedParallelIterator<Item = Row<'_>> {
        let (s, p) = (self.sequence_length, self.max_predictions);
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
        sequences.zip(predictions).zip(self.next_sentence_labels.par_iter_mut()).map(
            |((((input_ids, token_type_ids), attention_mask), predictions), next_sentence_label)| {
                let ((masked_lm_positions, masked_lm_ids), masked_lm_weights) = predictions;
                Row {
                    input_ids,
                    token_type_ids,
                    attention_mask,
                    masked_lm_positions,
                    masked_lm_ids,
                    masked_lm_weights,
                    next_sentence_label,
                }
            },
        )
    }

    /// The seven tensors by name, in the order in which the training step takes them.
    pub fn tensors(&self) -> [(&'static str, HostTensor); 7] {
        let sequence = [self.rows, self.sequence_length];
        let predictions = [self.rows, self.max_predictions];
        [
            ("input_ids", HostTensor::new(sequence, &self.input_ids)),
            ("token_type_ids", HostTensor::new(sequence, &self.token_type_ids)),
            ("attention_mask", HostTensor::new(sequence, &self.attention_mask)),
            ("masked_lm_positions", HostTensor::new(predictions, &self.masked_lm_positions)),
            ("masked_lm_ids", HostTensor::new(predictions, &self.masked_lm_ids)),
            ("masked_lm_weights", HostTensor::new(predictions, &self.masked_lm_weights)),
            ("next_sentence_labels", HostTensor::new([self.rows], &self.next_sentence_labels)),
        ]
    }

    /// Tokens that are not padding.
    pub fn real_tokens(&self) -> usize {
        self.attention_mask.iter().filter(|&&x| x == 1).count()
    }
}
