//! What the model reads: the tensors of a batch, of plain rows with one sequence each or of packed rows with several.

use crate::graph::Tensor;
use crate::shape::{DType, Shape};

/// The form of a batch: B rows of S positions with P slots for predictions, each row with up to K sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchForm {
    pub rows: usize,
    pub sequence_length: usize,
    pub predictions: usize,
    /// 1 for plain rows; more for packed ones, which have tensors of their own (see [`Packed`]).
    pub sequences_per_row: usize,
}

/// What only packed rows have, K sequences a row.
#[derive(Clone, Copy)]
pub struct Packed<'g> {
    /// s32[B,S]: each position's place in its sequence.
    pub position_ids: Tensor<'g>,
    /// s32[B,K]: where in the row each sequence begins.
    pub cls_positions: Tensor<'g>,
    /// s32[B,K]: each sequence's number in the global batch, which decides what dropout drops of it.
    pub example_ids: Tensor<'g>,
}

/// One micro-batch in a graph: the tensors of a batch of B rows.
#[derive(Clone, Copy)]
pub struct Examples<'g> {
    /// s32[B,S]
    pub input_ids: Tensor<'g>,
    /// s32[B,S]: 1 = token, 0 = padding; in packed rows the number of the row's sequence, from 1.
    pub attention_mask: Tensor<'g>,
    /// s32[B,S]
    pub token_type_ids: Tensor<'g>,
    /// s32[B,P]
    pub masked_lm_positions: Tensor<'g>,
    /// s32[B,P]
    pub masked_lm_ids: Tensor<'g>,
    /// f32[B,P]: 0 = unused slot.
    pub masked_lm_weights: Tensor<'g>,
    /// s32[B], in packed rows s32[B,K]: 1 = random; below 0 = no label.
    pub next_sentence_labels: Tensor<'g>,
    pub packed: Option<Packed<'g>>,
}

impl<'g> Examples<'g> {
    /// The names that batches have outside, in the order of [`Examples::new`]. Plain rows have the first seven.
    pub const NAMES: [&'static str; 10] = [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "masked_lm_positions",
        "masked_lm_ids",
        "masked_lm_weights",
        "next_sentence_labels",
        "position_ids",
        "cls_positions",
        "example_ids",
    ];

    /// Shapes of a batch, in the order of [`Examples::NAMES`].
    pub fn shapes(form: BatchForm) -> Vec<Shape> {
        let BatchForm { rows, sequence_length, predictions, sequences_per_row } = form;
        let tokens = Shape::new(DType::S32, [rows, sequence_length]);
        let slots = Shape::new(DType::S32, [rows, predictions]);
        let weights = slots.with_dtype(DType::F32);
        let mut shapes = vec![tokens.clone(), tokens.clone(), tokens.clone(), slots.clone(), slots, weights];
        if sequences_per_row == 1 {
            shapes.push(Shape::new(DType::S32, [rows]));
        } else {
            let sequences = Shape::new(DType::S32, [rows, sequences_per_row]);
            shapes.extend([sequences.clone(), tokens, sequences.clone(), sequences]);
        }
        shapes
    }

    /// # Panics
    /// If `tensors` are not those of [`Examples::shapes`].
    pub fn new(tensors: &[Tensor<'g>]) -> Self {
        let (
            &[
                input_ids,
                attention_mask,
                token_type_ids,
                masked_lm_positions,
                masked_lm_ids,
                masked_lm_weights,
                next_sentence_labels,
            ],
            rest,
        ) = tensors.split_first_chunk().expect("a batch has seven tensors");
        let packed = match *rest {
            [] => None,
            [position_ids, cls_positions, example_ids] => Some(Packed { position_ids, cls_positions, example_ids }),
            _ => panic!("a packed batch has ten tensors, this one {}", tensors.len()),
        };
        Examples {
            input_ids,
            attention_mask,
            token_type_ids,
            masked_lm_positions,
            masked_lm_ids,
            masked_lm_weights,
            next_sentence_labels,
            packed,
        }
    }

    /// What each sequence counts in the loss of the next sentence, of type `dtype`: `[B]`, in packed rows `[B, K]`. 1; but 0
    /// where a row has no sequence (rows of padding fill up a last batch), and 0 for one without a label (Hugging Face's
    /// −100).
    pub fn sequence_weights(&self, dtype: DType) -> Tensor<'g> {
        let sequences = self.attention_mask.reduce_max(&[1]);
        let present = match self.packed {
            None => sequences.gt(sequences.filled(0.0)),
            Some(packed) => {
                let place = sequences.graph().iota(packed.cls_positions.shape(), 1);
                place.lt(sequences.broadcast_like(place, &[0]))
            }
        };
        let (present, labels) = (present.convert(dtype), self.next_sentence_labels);
        labels.ge(labels.filled(0.0)).select(present, present.filled(0.0))
    }
}
