//! The tensors of a batch for predictions: the inputs of the encoder, and the masked positions if there are any.
//!
//! B rows, S positions a row, P masked positions a row. A row holds one text or a pair, then padding.

use super::{BatchSpec, TensorSpec};
use crate::shape::DType;

/// The form of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PredictionForm {
    /// S
    pub sequence_length: usize,
    /// P, the number of masked positions of a row; none for models that do not predict tokens.
    pub masked_positions: Option<usize>,
}

/// One value of type `T` for each tensor of a batch: a specification, host memory, or a handle in a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictionTensors<T> {
    /// s32\[B,S\]: `[CLS] a [SEP] b [SEP]`, then padding.
    pub input_ids: T,
    /// s32\[B,S\]: 1 for tokens, 0 for padding.
    pub attention_mask: T,
    /// s32\[B,S\]: 0 for `[CLS] a [SEP]` and for padding, 1 for `b [SEP]`.
    pub token_type_ids: T,
    /// s32\[B,P\]: the positions of the masks, then zeros.
    pub masked_lm_positions: Option<T>,
}

impl PredictionForm {
    /// Builds the specifications of the tensors of such rows.
    pub fn tensors(self) -> PredictionTensors<TensorSpec> {
        let positions = |name| TensorSpec::new(name, DType::S32, [self.sequence_length]);
        let masked = |count| TensorSpec::new("masked_lm_positions", DType::S32, [count]);
        PredictionTensors {
            input_ids: positions("input_ids"),
            attention_mask: positions("attention_mask"),
            token_type_ids: positions("token_type_ids"),
            masked_lm_positions: self.masked_positions.map(masked),
        }
    }

    /// Builds the specification of a batch of such rows.
    pub fn spec(self) -> BatchSpec {
        BatchSpec { tensors: self.tensors().into_vec() }
    }
}

impl<T> PredictionTensors<T> {
    /// Returns the values in the order in which programs take them.
    pub fn into_vec(self) -> Vec<T> {
        let mut list = vec![self.input_ids, self.attention_mask, self.token_type_ids];
        list.extend(self.masked_lm_positions);
        list
    }

    /// Names the values of a list in the order of [`PredictionTensors::into_vec`].
    ///
    /// # Panics
    /// If there are neither three nor four values.
    pub fn from_vec(list: Vec<T>) -> Self {
        let count = list.len();
        assert!(count == 3 || count == 4, "a prediction batch has 3 tensors, or 4 with masked positions; got {count}");
        let mut values = list.into_iter();
        let mut next = || values.next().expect("the length was checked above");
        PredictionTensors {
            input_ids: next(),
            attention_mask: next(),
            token_type_ids: next(),
            masked_lm_positions: (count == 4).then(next),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_list_survives_naming_its_values() {
        for (masked_positions, count) in [(None, 3), (Some(2), 4)] {
            let form = PredictionForm { sequence_length: 8, masked_positions };
            assert_eq!(PredictionTensors::from_vec(form.tensors().into_vec()), form.tensors());
            assert_eq!(form.spec().tensors.len(), count);
        }
    }
}
