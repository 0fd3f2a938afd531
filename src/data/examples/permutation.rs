//! The order of an epoch: a keyed bijection of `0..n`, computed for one index at a time.
//!
//! Unlike a shuffle buffer it has no state, and unlike a shuffled list it needs no memory. Index `i` of the epoch is
//! example `permutation.at(i)`, on any host and after any restart.
//!
//! The bijection is a Feistel network over pairs `(left, right)` of `0..side`, with `side = ceil(sqrt(n))`. A round
//! maps `(l, r)` to `(r, l + f(r) mod side)`, which is invertible for any `f`. A result of `n` or more is mapped again
//! until it is below `n` (cycle walking), which is rare because `side² < n + 2 sqrt(n) + 1`.

use crate::rng::Key;

/// With six rounds, each round function reaches every output digit several times. Four rounds already are a
/// pseudo-random permutation in the sense of Luby and Rackoff.
const ROUNDS: u64 = 6;

/// A permutation of `0..len`, chosen by a key.
#[derive(Clone, Debug)]
pub struct Permutation {
    len: u64,
    side: u64,
    key: Key,
}

impl Permutation {
    /// Returns the permutation of `0..len` for `key`. `len` is at most 2^62.
    pub fn new(len: u64, key: Key) -> Self {
        let mut side = len.isqrt();
        if side * side < len {
            side += 1;
        }
        Permutation { len, side, key }
    }

    /// Returns the number of indices.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns `true` for a permutation of no indices.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the image of index `i`.
    ///
    /// # Panics
    /// If `i` is not below `len`.
    pub fn at(&self, i: u64) -> u64 {
        assert!(i < self.len, "index {i} of a permutation of {}", self.len);
        let mut x = i;
        loop {
            x = self.permute(x);
            if x < self.len {
                return x;
            }
        }
    }

    /// Applies the network once, over `0..side²`.
    fn permute(&self, x: u64) -> u64 {
        let (mut left, mut right) = (x / self.side, x % self.side);
        for round in 0..ROUNDS {
            // `right` is below 2^31, so (round, right) is one counter. The product maps 64 random bits to 0..side.
            let draw = ((self.key.bits((round << 32) | right) as u128 * self.side as u128) >> 64) as u64;
            (left, right) = (right, (left + draw) % self.side);
        }
        left * self.side + right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_bijection_for_all_small_and_some_large_sizes() {
        for len in (1..300).chain([1023, 1024, 1025, 65_535, 65_536, 99_991]) {
            let order = Permutation::new(len, Key::new(len).fold_in(3));
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let x = order.at(i) as usize;
                assert!(!std::mem::replace(&mut seen[x], true), "{x} occurs twice in a permutation of {len}");
            }
        }
    }

    #[test]
    fn keys_give_different_permutations_and_neighbours_are_separated() {
        let len = 10_000;
        let (one, two) = (Permutation::new(len, Key::new(1)), Permutation::new(len, Key::new(2)));
        let equal = (0..len).filter(|&i| one.at(i) == two.at(i)).count();
        assert!(equal < 10, "{equal} fixed points between two keys; about 1 is expected");
        // The mean distance of two uniform draws is len / 3, with a standard deviation of len / sqrt(18) a draw.
        let mean = (1..len).map(|i| one.at(i).abs_diff(one.at(i - 1)) as f64).sum::<f64>() / (len - 1) as f64;
        assert!((mean - len as f64 / 3.0).abs() < 6.0 * len as f64 / 18f64.sqrt() / 100.0, "mean distance {mean}");
    }

    #[test]
    fn the_first_image_is_uniform_over_keys() {
        let mut counts = [0u32; 7];
        for seed in 0..7000 {
            counts[Permutation::new(7, Key::new(seed)).at(0) as usize] += 1;
        }
        // Five standard deviations of a binomial(7000, 1/7) are 146.
        assert!(counts.iter().all(|c| c.abs_diff(1000) < 147), "{counts:?}");
    }
}
