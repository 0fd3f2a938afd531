//! Signatures for finding duplicates: a fingerprint for equal documents, and MinHash signatures (Broder, "On the
//! resemblance and containment of documents", 1997), grouped into bands, for near duplicates.
//!
//! Two documents whose sets of shingles have the Jaccard similarity `s` share a band with probability `1 − (1 −
//! s^ROWS)^BANDS`: 5 % at s = 0.5, 56 % at 0.7, 92 % at 0.8, 99.96 % at 0.9.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::blocks::TextDocument;
use crate::data::store::manifest::Deduplication;

/// Words of a shingle.
pub(super) const SHINGLE: usize = 5;
/// Bands of a signature. Two documents that share one are near duplicates.
pub(super) const BANDS: usize = 14;
/// Minima that are hashed into a band.
pub(super) const ROWS: usize = 8;

/// 64-bit words of a fingerprint.
pub(super) const FINGERPRINT: usize = 2;

/// Returns the number of 64-bit words in a [`signature`].
pub(super) const fn length(duplicates: Deduplication) -> usize {
    match duplicates {
        Deduplication::Keep => 0,
        Deduplication::Exact => FINGERPRINT,
        Deduplication::Near => FINGERPRINT + BANDS,
    }
}

/// Returns the fingerprint of a document, and its bands if near duplicates are removed.
pub(super) fn signature(document: TextDocument, duplicates: Deduplication) -> Vec<u64> {
    let mut signature = Vec::with_capacity(length(duplicates));
    if duplicates != Deduplication::Keep {
        let fingerprint = document.fingerprint();
        signature.extend([(fingerprint >> 64) as u64, fingerprint as u64]);
    }
    if duplicates == Deduplication::Near {
        signature.extend(bands(document.lines()));
    }
    signature
}

/// Returns one number per band.
fn bands<'a>(lines: impl Iterator<Item = &'a str>) -> [u64; BANDS] {
    let mut minima = [[u64::MAX; ROWS]; BANDS];
    for shingle in shingles(lines) {
        // The k-th hash function multiplies by the k-th odd number of a sequence and folds (64-bit multiply-shift;
        // Dietzfelbinger et al., 1997), so one hash of the shingle gives all of them.
        let mut multiplier = 0x9e37_79b9_7f4a_7c15_u64;
        for minimum in minima.iter_mut().flatten() {
            let product = (shingle ^ multiplier.rotate_left(32)).wrapping_mul(multiplier | 1);
            *minimum = (product ^ (product >> 32)).min(*minimum);
            multiplier = multiplier.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd134_2543_de82_ef95);
        }
    }
    std::array::from_fn(|band| xxh3_64_with_seed(bytemuck::cast_slice(&minima[band]), band as u64))
}

/// Returns the hash of each [`SHINGLE`] consecutive words, lower-case and without punctuation; of all words if there
/// are fewer.
fn shingles<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<u64> {
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()));
    let words: Vec<u64> = words.map(|word| xxh3_64(word.to_lowercase().as_bytes())).collect();
    let hash = |shingle: &[u64]| xxh3_64(bytemuck::cast_slice(shingle));
    match words.len() {
        0..SHINGLE => vec![hash(&words)],
        _ => words.windows(SHINGLE).map(hash).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Key;

    /// Returns a text of 200 words, and a copy in which each word is replaced with the given probability.
    fn pair(seed: u64, replaced: f64) -> [String; 2] {
        let mut stream = Key::new(seed).stream();
        let words: Vec<u64> = (0..200).map(|_| stream.below(5000)).collect();
        let other: Vec<u64> =
            words.iter().map(|&w| if stream.uniform() < replaced { 5000 + stream.below(5000) } else { w }).collect();
        [words, other].map(|words| words.iter().map(|w| format!("w{w} ")).collect())
    }

    fn jaccard(texts: &[String; 2]) -> f64 {
        let [a, b] =
            texts.each_ref().map(|text| shingles(text.lines()).into_iter().collect::<std::collections::HashSet<_>>());
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    #[test]
    fn band_collisions_match_the_formula() {
        for replaced in [0.01, 0.03, 0.06] {
            let (mut found, mut expected) = (0.0, 0.0);
            for seed in 0..300 {
                let texts = pair(seed, replaced);
                let [a, b] = texts.each_ref().map(|text| bands(text.lines()));
                found += a.iter().zip(&b).any(|(a, b)| a == b) as u32 as f64;
                expected += 1.0 - (1.0 - jaccard(&texts).powi(ROWS as i32)).powi(BANDS as i32);
            }
            // Five standard deviations of a binomial(300, 0.5) are 43.
            assert!((found - expected).abs() < 43.0, "{replaced}: found {found}, expected {expected:.1}");
        }
    }

    #[test]
    fn case_punctuation_and_line_ends_are_ignored() {
        let same = ["One two, three FOUR five six.", "one two\nthree four (five) six"];
        assert_eq!(bands(same[0].lines()), bands(same[1].lines()));
        assert_ne!(bands(same[0].lines()), bands("one two three four five seven".lines()));
        assert_ne!(bands("one two".lines()), bands("one three".lines()));
    }
}
