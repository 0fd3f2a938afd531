//! Counter-based random numbers: a draw is a pure function of a key and a counter, so any host can make any draw in any
//! order, and make it again after a restart.
//!
//! The generator is Threefry-2x32 with 20 rounds (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11),
//! the default of JAX. A [`Key`] is never consumed: derive one for each purpose with [`Key::fold_in`].

/// The key of one stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub u32, pub u32);

impl Key {
    /// Creates a key from a seed.
    pub const fn new(seed: u64) -> Self {
        Key((seed >> 32) as u32, seed as u32)
    }

    /// Derives the `n`-th child key, independent of its siblings and of this key's own draws.
    pub fn fold_in(self, n: u64) -> Self {
        // The constant separates child n from draw n of the same key.
        let (a, b) = threefry2x32((self.0 ^ 0x5eed_0001, self.1), ((n >> 32) as u32, n as u32));
        Key(a, b)
    }

    /// Returns the `counter`-th 64 random bits of this key.
    pub fn bits(self, counter: u64) -> u64 {
        let (a, b) = threefry2x32((self.0, self.1), ((counter >> 32) as u32, counter as u32));
        (a as u64) << 32 | b as u64
    }

    /// Returns the draws of this key in order, from the first.
    pub fn stream(self) -> Stream {
        Stream { key: self, counter: 0 }
    }
}

/// A sequential reader of the draws of one [`Key`].
#[derive(Clone, Debug)]
pub struct Stream {
    key: Key,
    counter: u64,
}

impl Stream {
    /// Draws 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let bits = self.key.bits(self.counter);
        self.counter += 1;
        bits
    }

    /// Draws uniformly from `[0, 1)`, with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Draws uniformly from `0..n` without bias (Lemire's multiply-and-reject).
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(n) requires n > 0, got 0");
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = self.next_u64() as u128 * n as u128;
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Draws uniformly from `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Draws from the standard normal distribution by the Box–Muller transform. The second value of the pair is discarded.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles `items` by the Fisher–Yates algorithm.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Computes one block of Threefry-2x32-20.
pub fn threefry2x32(key: (u32, u32), counter: (u32, u32)) -> (u32, u32) {
    const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];
    const PARITY: u32 = 0x1bd1_1bda;
    let schedule = [key.0, key.1, PARITY ^ key.0 ^ key.1];
    let (mut x, mut y) = (counter.0.wrapping_add(schedule[0]), counter.1.wrapping_add(schedule[1]));
    for group in 0..5usize {
        for rotation in ROTATIONS[group % 2] {
            x = x.wrapping_add(y);
            y = y.rotate_left(rotation) ^ x;
        }
        x = x.wrapping_add(schedule[(group + 1) % 3]);
        y = y.wrapping_add(schedule[(group + 2) % 3]).wrapping_add(group as u32 + 1);
    }
    (x, y)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference values are published with Random123 (file kat_vectors, threefry2x32 20).
    #[test]
    fn threefry_matches_published_test_vectors() {
        assert_eq!(threefry2x32((0, 0), (0, 0)), (0x6b20_0159, 0x99ba_4efe));
        assert_eq!(threefry2x32((!0, !0), (!0, !0)), (0x1cb9_96fc, 0xbb00_2be7));
        assert_eq!(threefry2x32((0x13198a2e, 0x03707344), (0x243f6a88, 0x85a308d3)), (0xc492_3a9c, 0x483d_f7a0));
    }

    #[test]
    fn below_is_uniform() {
        let mut stream = Key::new(7).stream();
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[stream.below(6) as usize] += 1;
        }
        // Six standard deviations of a binomial(60000, 1/6) are 548.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 548), "{counts:?}");
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut stream = Key::new(11).fold_in(3).stream();
        let draws: Vec<f64> = (0..40_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 4e4;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 4e4;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.045, "mean {mean}, variance {variance}");
    }

    #[test]
    fn child_keys_differ_from_siblings_and_draws() {
        let key = Key::new(1);
        assert_ne!(key.fold_in(0), key.fold_in(1));
        let Key(a, b) = key.fold_in(0);
        assert_ne!((a as u64) << 32 | b as u64, key.bits(0));
    }
}
