//! Random contents of batches for benchmarks.

use crate::rng::Stream;

/// Builds `n` random tokens of a vocabulary. Special tokens are left out, if the vocabulary has others.
pub(super) fn tokens(stream: &mut Stream, vocab_size: usize, n: usize) -> Vec<i32> {
    let first = 5.min(vocab_size - 1);
    (0..n).map(|_| (first as u64 + stream.below((vocab_size - first) as u64)) as i32).collect()
}
