//! The token sequence of one example: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

use crate::data::tokenizer::vocabulary::Vocabulary;

/// The tokens of an example, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub ids: Box<[u32]>,
    /// Number of leading tokens of type 0: `[CLS] a [SEP]`, or all of them.
    pub first: usize,
}

impl Sequence {
    /// Joins one or two texts with the special tokens.
    pub fn new(vocabulary: &Vocabulary, a: &[u32], b: Option<&[u32]>) -> Sequence {
        let (special, pair) = (vocabulary.special(), vocabulary.pair_form());
        let (cls, sep) = (&[special.cls][..], &[special.sep][..]);
        let ids = match b {
            None => [cls, a, sep].concat(),
            Some(b) => [cls, a, &sep.repeat(pair.separators), b, sep].concat(),
        };
        let is_second_of_type_0 = b.is_none() || pair.second_type == 0;
        let first = if is_second_of_type_0 { ids.len() } else { pair.second_position(a.len()) };
        Sequence { ids: ids.into(), first }
    }
}

/// Truncates a pair to at most `length` tokens: removes the last token of the longer text, of `b` if both are equal, until
/// the pair fits (google-research/bert `run_classifier.py`, `_truncate_seq_pair`).
pub(super) fn truncate_longest_first(a: &mut Vec<u32>, b: &mut Vec<u32>, length: usize) {
    let (shorter, longer) = (a.len().min(b.len()), a.len().max(b.len()));
    if shorter + longer <= length {
        return;
    }
    // The longer one shrinks to the length of the other; then both shrink in turn, `b` first.
    if length >= 2 * shorter {
        let kept = length - shorter;
        a.truncate(kept);
        b.truncate(kept);
    } else {
        a.truncate(length.div_ceil(2));
        b.truncate(length / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::special_tokens::{PairForm, SPECIAL_TOKENS};
    use crate::data::tokenizer::word_mark::WordMark;

    #[test]
    fn pairs_are_truncated_as_by_removing_single_tokens() {
        for (m, n) in (0..9).flat_map(|m| (0..9).map(move |n| (m, n))) {
            for length in 0..20 {
                let (mut i, mut j) = (m, n);
                while i + j > length {
                    if i > j { i -= 1 } else { j -= 1 }
                }
                let (mut a, mut b) = (vec![1; m], vec![2; n]);
                truncate_longest_first(&mut a, &mut b, length);
                assert_eq!((a.len(), b.len()), (i, j), "{m} and {n} tokens to {length}");
            }
        }
    }

    #[test]
    fn sequences_have_special_tokens_around_their_texts() {
        let tokens = || SPECIAL_TOKENS.map(str::to_owned).to_vec();
        let bert = Vocabulary::new(tokens()).unwrap();
        let pair = Sequence::new(&bert, &[7], Some(&[8, 9]));
        assert_eq!((&*pair.ids, pair.first), (&[2, 7, 3, 8, 9, 3][..], 3));
        let single = Sequence::new(&bert, &[7], None);
        assert_eq!((&*single.ids, single.first), (&[2, 7, 3][..], 3));
        let form = PairForm { separators: 2, second_type: 0 };
        let roberta = Vocabulary::with_forms(tokens(), SPECIAL_TOKENS, form, WordMark::ByteLevelSpace).unwrap();
        let pair = Sequence::new(&roberta, &[7], Some(&[8, 9]));
        assert_eq!((&*pair.ids, pair.first), (&[2, 7, 3, 3, 8, 9, 3][..], 7));
    }
}
