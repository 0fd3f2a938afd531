//! Dropout in kernels: the masks of [`Dropout`](crate::bert::Dropout), on tiles.

use crate::bert::dropout::{FIRST_FACTOR, SECOND_FACTOR, threshold};
use crate::triton::Tile;

/// Appends where elements are kept. `first` is the first random word of each element with its number added, `second` its second word;
/// [`Dropout::kept`](crate::bert::Dropout::kept) has the formula.
pub(super) fn kept<'p>(first: Tile<'p>, second: Tile<'p>, probability: f64) -> Tile<'p> {
    let h = first.xor(first.shift_right(16)) * FIRST_FACTOR;
    let h = h.xor(h.shift_right(15).xor(second)) * SECOND_FACTOR;
    h.at_least(threshold(probability))
}

/// Returns the factor of the elements that are kept.
pub(super) fn scale(probability: f64) -> f32 {
    (1.0 / (1.0 - probability)) as f32
}
