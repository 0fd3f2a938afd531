//! The tensors of a fine-tuning batch: the one list that labelled data, graphs and predictions share. Names are those of
//! transformers.
//!
//! B rows, S positions a row. A row holds one example: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`, then padding.

use super::{BatchSpec, TensorSpec};
use crate::shape::DType;

/// The labels of an example. A class, a class of a token or a position that is missing is [`super::IGNORED_LABEL`], a missing
/// number NaN: it has no weight in losses and metrics. Neither has a row without tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelKind {
    /// One class.
    Class,
    /// One number.
    Value,
    /// One class at each position.
    TokenClass,
    /// The first and the last position of an answer.
    Span,
}

/// The form of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelledForm {
    /// S
    pub sequence_length: usize,
    /// The labels.
    pub labels: LabelKind,
}

/// One value of type `T` for each tensor of a batch: a specification, host memory, or a handle in a graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelledTensors<T> {
    /// s32\[B,S\]: `[CLS] a [SEP] b [SEP]`, then padding.
    pub input_ids: T,
    /// s32\[B,S\]: 1 for tokens, 0 for padding.
    pub attention_mask: T,
    /// s32\[B,S\]: 0 for `[CLS] a [SEP]` and for padding, 1 for `b [SEP]`.
    pub token_type_ids: T,
    /// The labels.
    pub labels: Labels<T>,
}

/// The labels of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Labels<T> {
    /// s32\[B\] for classes, f32\[B\] for values, s32\[B,S\] for the classes of tokens.
    One(T),
    /// Positions, s32\[B\] each.
    Span {
        /// The position of the first token of the answer; 0, the position of `[CLS]`, if there is no answer.
        start_positions: T,
        /// The position of its last token.
        end_positions: T,
    },
}

impl LabelledForm {
    /// Builds the specifications of the tensors of such rows.
    pub fn tensors(self) -> LabelledTensors<TensorSpec> {
        let positions = |name| TensorSpec::new(name, DType::S32, [self.sequence_length]);
        let single = |name, dtype| TensorSpec::new(name, dtype, []);
        LabelledTensors {
            input_ids: positions("input_ids"),
            attention_mask: positions("attention_mask"),
            token_type_ids: positions("token_type_ids"),
            labels: match self.labels {
                LabelKind::Class => Labels::One(single("labels", DType::S32)),
                LabelKind::Value => Labels::One(single("labels", DType::F32)),
                LabelKind::TokenClass => Labels::One(positions("labels")),
                LabelKind::Span => Labels::Span {
                    start_positions: single("start_positions", DType::S32),
                    end_positions: single("end_positions", DType::S32),
                },
            },
        }
    }

    /// Builds the specification of a batch of such rows.
    pub fn spec(self) -> BatchSpec {
        BatchSpec { tensors: self.tensors().into_vec() }
    }
}

impl<T> Labels<T> {
    /// Returns the one or two values in the order in which programs take them.
    pub fn into_vec(self) -> Vec<T> {
        match self {
            Labels::One(labels) => vec![labels],
            Labels::Span { start_positions, end_positions } => vec![start_positions, end_positions],
        }
    }
}

impl<T> LabelledTensors<T> {
    /// Returns the values in the order in which programs take them.
    pub fn into_vec(self) -> Vec<T> {
        let mut list = vec![self.input_ids, self.attention_mask, self.token_type_ids];
        list.extend(self.labels.into_vec());
        list
    }

    /// Names the values of a list in the order of [`LabelledTensors::into_vec`].
    ///
    /// # Panics
    /// If there are neither four nor five values.
    pub fn from_vec(list: Vec<T>) -> Self {
        let count = list.len();
        assert!(count == 4 || count == 5, "a fine-tuning batch has 4 tensors, or 5 with spans; got {count}");
        let mut values = list.into_iter();
        let mut next = || values.next().expect("the length was checked above");
        LabelledTensors {
            input_ids: next(),
            attention_mask: next(),
            token_type_ids: next(),
            labels: match count {
                4 => Labels::One(next()),
                _ => Labels::Span { start_positions: next(), end_positions: next() },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_list_survives_naming_its_values() {
        for labels in [LabelKind::Class, LabelKind::Value, LabelKind::TokenClass, LabelKind::Span] {
            let form = LabelledForm { sequence_length: 8, labels };
            assert_eq!(LabelledTensors::from_vec(form.tensors().into_vec()), form.tensors());
        }
        let shapes = |labels| -> Vec<String> {
            LabelledForm { sequence_length: 8, labels }.spec().shapes(4).skip(3).map(|(_, s)| s.to_string()).collect()
        };
        assert_eq!(shapes(LabelKind::Value), ["f32[4]"]);
        assert_eq!(shapes(LabelKind::TokenClass), ["s32[4,8]"]);
        assert_eq!(shapes(LabelKind::Span), ["s32[4]", "s32[4]"]);
    }
}
