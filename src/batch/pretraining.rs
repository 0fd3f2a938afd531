//! The tensors of a BERT pretraining batch: the one list that data, graphs and files share.
//!
//! B rows, S positions a row, P masked positions a row. A plain row holds one sequence; a packed row holds up to K
//! sequences one after the other and has three more tensors.

use super::{BatchSpec, TensorSpec};
use crate::shape::DType;

/// The form of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowForm {
    /// S
    pub sequence_length: usize,
    /// P: the maximum number of masked positions of a row.
    pub max_predictions: usize,
    /// K: 1 for plain rows, more for packed ones.
    pub sequences_per_row: usize,
}

/// One value of type `T` for each tensor of a batch: a specification, host memory, or a handle in a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretrainingTensors<T> {
    /// s32\[B,S\]: `[CLS] a [SEP] b [SEP]`, masked, then padding.
    pub input_ids: T,
    /// s32\[B,S\]: 1 for tokens, 0 for padding; in packed rows the number of the token's sequence in its row, from 1.
    pub attention_mask: T,
    /// s32\[B,S\]: 0 for `[CLS] a [SEP]` and for padding, 1 for `b [SEP]`.
    pub token_type_ids: T,
    /// s32\[B,P\]: masked positions in ascending order, then zeros.
    pub masked_lm_positions: T,
    /// s32\[B,P\]: the original tokens at the masked positions, then zeros.
    pub masked_lm_ids: T,
    /// f32\[B,P\]: 1 for a masked position, 0 for none.
    pub masked_lm_weights: T,
    /// s32\[B\], in packed rows s32\[B,K\]: 1 if `b` is random (or swapped with `a`); negative (−100) for no label.
    pub next_sentence_labels: T,
    /// The tensors that only packed rows have.
    pub packed: Option<PackedTensors<T>>,
}

/// The tensors that only packed rows have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedTensors<T> {
    /// s32\[B,S\]: the place of each token in its sequence; 0 for padding.
    pub position_ids: T,
    /// s32\[B,K\]: where each sequence begins in its row; 0 where there is none.
    pub cls_positions: T,
    /// s32\[B,K\]: the number of each sequence in the global batch, which keys its dropout; 0 where there is none.
    pub example_ids: T,
}

impl RowForm {
    /// Builds the specifications of the tensors of such rows.
    pub fn tensors(self) -> PretrainingTensors<TensorSpec> {
        let RowForm { sequence_length, max_predictions, sequences_per_row } = self;
        let positions = |name| TensorSpec::new(name, DType::S32, [sequence_length]);
        let masked = |name, dtype| TensorSpec::new(name, dtype, [max_predictions]);
        let sequences = |name| TensorSpec::new(name, DType::S32, [sequences_per_row]);
        let is_packed = sequences_per_row > 1;
        PretrainingTensors {
            input_ids: positions("input_ids"),
            attention_mask: positions("attention_mask"),
            token_type_ids: positions("token_type_ids"),
            masked_lm_positions: masked("masked_lm_positions", DType::S32),
            masked_lm_ids: masked("masked_lm_ids", DType::S32),
            masked_lm_weights: masked("masked_lm_weights", DType::F32),
            next_sentence_labels: match is_packed {
                true => sequences("next_sentence_labels"),
                false => TensorSpec::new("next_sentence_labels", DType::S32, []),
            },
            packed: is_packed.then(|| PackedTensors {
                position_ids: positions("position_ids"),
                cls_positions: sequences("cls_positions"),
                example_ids: sequences("example_ids"),
            }),
        }
    }

    /// Builds the specification of a batch of such rows.
    pub fn spec(self) -> BatchSpec {
        BatchSpec { tensors: self.tensors().into_vec() }
    }
}

impl<T> PretrainingTensors<T> {
    /// Returns the values in the order in which programs take them.
    pub fn into_vec(self) -> Vec<T> {
        let mut list = vec![
            self.input_ids,
            self.attention_mask,
            self.token_type_ids,
            self.masked_lm_positions,
            self.masked_lm_ids,
            self.masked_lm_weights,
            self.next_sentence_labels,
        ];
        if let Some(PackedTensors { position_ids, cls_positions, example_ids }) = self.packed {
            list.extend([position_ids, cls_positions, example_ids]);
        }
        list
    }

    /// Names the values of a list in the order of [`PretrainingTensors::into_vec`].
    ///
    /// # Panics
    /// If there are neither seven nor ten values.
    pub fn from_vec(list: Vec<T>) -> Self {
        let count = list.len();
        assert!(count == 7 || count == 10, "a pretraining batch has 7 tensors, or 10 if packed; got {count}");
        let mut values = list.into_iter();
        let mut next = || values.next().expect("the length was checked above");
        PretrainingTensors {
            input_ids: next(),
            attention_mask: next(),
            token_type_ids: next(),
            masked_lm_positions: next(),
            masked_lm_ids: next(),
            masked_lm_weights: next(),
            next_sentence_labels: next(),
            packed: (count == 10).then(|| PackedTensors {
                position_ids: next(),
                cls_positions: next(),
                example_ids: next(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_list_survives_naming_its_values() {
        for (sequences_per_row, count) in [(1, 7), (3, 10)] {
            let form = RowForm { sequence_length: 8, max_predictions: 2, sequences_per_row };
            let specs = form.tensors();
            assert_eq!(PretrainingTensors::from_vec(specs.clone().into_vec()), specs);
            assert_eq!(form.spec().tensors.len(), count);
        }
        let packed = RowForm { sequence_length: 8, max_predictions: 2, sequences_per_row: 3 }.tensors();
        assert_eq!(packed.next_sentence_labels.shape(4).to_string(), "s32[4,3]");
        assert_eq!(packed.masked_lm_weights.shape(4).to_string(), "f32[4,2]");
    }
}
