//! Positions s32`[B, N]` within the B rows of a micro-batch.

use crate::graph::Tensor;

/// Appends the numbers of `positions` s32`[B, N]` of rows of `length` among the positions of all rows: s32`[B·N]`.
pub(super) fn in_flat_rows(positions: Tensor<'_>, length: usize) -> Tensor<'_> {
    let row_starts = positions.graph().iota(positions.shape(), 0) * length as f64;
    (positions + row_starts).reshape(&[positions.shape().elements()])
}

/// Appends the activations at `positions` s32`[B, N]` of their rows: x `[B, S, H]` → `[B·N, H]`.
pub(super) fn at_positions<'g>(x: Tensor<'g>, positions: Tensor<'g>) -> Tensor<'g> {
    let (rows, length, hidden) = (x.dims()[0], x.dims()[1], x.dims()[2]);
    x.reshape(&[rows * length, hidden]).take_rows(in_flat_rows(positions, length))
}
