//! The token sequence of one example: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

use crate::data::tokenizer::vocabulary::SpecialIds;

/// The tokens of an example, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    pub ids: Box<[u32]>,
    /// Number of leading tokens of type 0: `[CLS] a [SEP]`.
    pub first: usize,
}

impl Sequence {
    /// Joins one or two texts with the special tokens.
    pub fn new(special: SpecialIds, a: &[u32], b: Option<&[u32]>) -> Sequence {
        let first = a.len() + 2;
        let ids = match b {
            None => [&[special.cls], a, &[special.sep]].concat(),
            Some(b) => [&[special.cls], a, &[special.sep], b, &[special.sep]].concat(),
        };
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
        let special = SpecialIds { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };
        let pair = Sequence::new(special, &[7], Some(&[8, 9]));
        assert_eq!((&*pair.ids, pair.first), (&[2, 7, 3, 8, 9, 3][..], 3));
        let single = Sequence::new(special, &[7], None);
        assert_eq!((&*single.ids, single.first), (&[2, 7, 3][..], 3));
    }
}
