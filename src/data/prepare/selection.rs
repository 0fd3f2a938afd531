//! Selects the documents for the shards and the number of their copies. Of duplicates, the first in the order of the
//! text is kept; a training document is used as often as the weight of its source demands.
//!
//! The memory for signatures is bounded, the corpus is not. If the signatures do not fit, the blocks are read in
//! several passes, each for its share of the signatures. The result takes one byte per document.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU8, Ordering};

use rayon::prelude::*;

use crate::rng::Key;

use super::Spool;
use super::signature::{BANDS, FINGERPRINT};
use super::spool::Spooled;
use super::token_block::Head;
use crate::data::error::Result;
use crate::data::store::manifest::{Deduplication, Removed};

/// Total bytes of the signature sets in memory.
const MEMORY: usize = 256 << 20;
/// Bytes of a set element: sixteen and one for the hash table, in a table that may have just doubled.
const ENTRY: usize = 40;

const EXACT: u8 = 1;
const NEAR: u8 = 2;

/// A block of either split, in the order of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectableBlock<'a> {
    pub place: Spooled,
    pub spool: &'a Spool,
    /// Average number of times each document is used.
    pub weight: f64,
    /// Key that selects the documents which get the extra copy of a fractional weight.
    pub key: Key,
}

impl SelectableBlock<'_> {
    /// Returns the number of copies of a document that is not a duplicate.
    fn copies(&self, document: usize) -> u8 {
        let is_chosen = self.key.fold_in(document as u64).stream().uniform() < self.weight.fract();
        self.weight as u8 + is_chosen as u8
    }
}

/// One pass over all blocks.
#[derive(Clone, Copy, Debug)]
struct Pass {
    /// The band to compare, or `None` for the fingerprint.
    band: Option<usize>,
    /// The pass handles signatures with this remainder modulo `parts`.
    part: u64,
    parts: u64,
}

/// The selected and the removed documents of every block.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Copies of each document of each block; 0 if it is removed.
    pub copies: Vec<Vec<u8>>,
    pub removed: BTreeMap<String, Removed>,
}

/// Selects documents from `blocks`.
///
/// # Errors
/// If the spool cannot be read.
pub(super) fn select(blocks: &[SelectableBlock], duplicates: Deduplication) -> Result<Selection> {
    select_within(blocks, duplicates, MEMORY)
}

fn select_within(blocks: &[SelectableBlock], duplicates: Deduplication, memory: usize) -> Result<Selection> {
    let flags: Vec<Vec<AtomicU8>> =
        blocks.iter().map(|block| (0..block.place.documents).map(|_| AtomicU8::new(0)).collect()).collect();
    let documents: usize = flags.iter().map(Vec::len).sum();
    let parts = (documents * ENTRY * rayon::current_num_threads()).div_ceil(memory).max(1) as u64;
    let (fingerprints, bands) = match duplicates {
        Deduplication::Keep => (0, 0),
        Deduplication::Exact => (1, 0),
        Deduplication::Near => (1, BANDS),
    };
    let kinds = std::iter::repeat_n(None, fingerprints).chain((0..bands).map(Some));
    let passes: Vec<Pass> = kinds.flat_map(|band| (0..parts).map(move |part| Pass { band, part, parts })).collect();
    // Passes are independent of each other and run in parallel.
    passes.into_par_iter().try_for_each(|pass| pass.mark(blocks, &flags))?;

    let mut selection = Selection::default();
    for (block, flags) in blocks.iter().zip(flags) {
        let flags: Vec<u8> = flags.into_iter().map(AtomicU8::into_inner).collect();
        if flags.iter().any(|&flag| flag != 0) {
            let (_, heads) = block.spool.read_heads(&block.place)?;
            for (&flag, [.., bytes]) in flags.iter().zip(&heads).filter(|(flag, _)| **flag != 0) {
                let name = if flag & EXACT != 0 { "exact_duplicates" } else { "near_duplicates" };
                *selection.removed.entry(name.into()).or_default() += Removed { documents: 1, bytes: *bytes as u64 };
            }
        }
        let copies =
            flags.iter().enumerate().map(|(document, &flag)| if flag == 0 { block.copies(document) } else { 0 });
        selection.copies.push(copies.collect());
    }
    Ok(selection)
}

impl Pass {
    /// Marks every document whose signature occurred earlier.
    fn mark(self, blocks: &[SelectableBlock], flags: &[Vec<AtomicU8>]) -> Result<()> {
        let mut seen: HashSet<u128> = HashSet::new();
        for (block, flags) in blocks.iter().zip(flags) {
            let (signatures, heads): (Vec<u64>, Vec<Head>) = block.spool.read_heads(&block.place)?;
            let length = signatures.len() / heads.len().max(1);
            for (signature, flag) in signatures.chunks(length.max(1)).zip(flags) {
                let (key, mark) = match self.band {
                    None => ((signature[0] as u128) << 64 | signature[1] as u128, EXACT),
                    Some(band) => (signature[FINGERPRINT + band] as u128, NEAR),
                };
                if key % self.parts as u128 == self.part as u128 && !seen.insert(key) {
                    flag.fetch_or(mark, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::prepare::token_block::{TokenBlock, TokenForm};
    use crate::data::store::shard::Split;

    #[test]
    fn first_duplicate_is_kept_with_any_number_of_passes() {
        let directory = tempfile::tempdir().unwrap();
        let form = TokenForm { signature: FINGERPRINT + BANDS, token_size: 2 };
        let spool = Spool::new(directory.path(), Split::Train, form, 0);
        // Documents by fingerprint, with one band that defines their near duplicates.
        let texts = [[(1, 10), (2, 20), (1, 10)], [(3, 30), (4, 20), (3, 30)], [(5, 50), (6, 50), (2, 20)]];
        let places: Vec<Spooled> = texts
            .iter()
            .map(|documents| {
                let mut block = TokenBlock::new(form);
                for &(fingerprint, near) in documents {
                    let mut signature = [0; FINGERPRINT + BANDS];
                    signature[1] = fingerprint;
                    for (band, word) in signature[FINGERPRINT..].iter_mut().enumerate() {
                        *word = if band == 7 { near } else { fingerprint * 1000 + band as u64 };
                    }
                    block.push(&[7], &[1], 100, &signature);
                }
                spool.append(&block).unwrap()
            })
            .collect();
        let blocks: Vec<SelectableBlock> = places
            .iter()
            .map(|&place| SelectableBlock { place, spool: &spool, weight: 1.0, key: Key::new(1) })
            .collect();
        for memory in [MEMORY, 100, 30] {
            let exact = select_within(&blocks, Deduplication::Exact, memory).unwrap();
            assert_eq!(exact.copies, [[1, 1, 0], [1, 1, 0], [1, 1, 0]]);
            let near = select_within(&blocks, Deduplication::Near, memory).unwrap();
            assert_eq!(near.copies, [[1, 1, 0], [1, 0, 0], [1, 0, 0]]);
            let removed: Vec<(&str, u64, u64)> =
                near.removed.iter().map(|(name, removed)| (name.as_str(), removed.documents, removed.bytes)).collect();
            assert_eq!(removed, [("exact_duplicates", 3, 300), ("near_duplicates", 2, 200)]);
        }
    }

    #[test]
    fn weight_is_the_average_number_of_copies() {
        let directory = tempfile::tempdir().unwrap();
        let form = TokenForm { signature: 0, token_size: 2 };
        let spool = Spool::new(directory.path(), Split::Train, form, 0);
        let mut block = TokenBlock::new(form);
        (0..4000).for_each(|_| block.push(&[7], &[1], 100, &[]));
        let place = spool.append(&block).unwrap();
        for weight in [0.25, 1.0, 2.0, 2.5] {
            let blocks = [SelectableBlock { place, spool: &spool, weight, key: Key::new(5) }];
            let copies = &select(&blocks, Deduplication::Keep).unwrap().copies[0];
            let sum: u32 = copies.iter().map(|&copies| copies as u32).sum();
            // Five standard deviations of a binomial(4000, 0.5) are 158.
            assert!((sum as f64 - 4000.0 * weight).abs() <= if weight.fract() == 0.0 { 0.0 } else { 158.0 }, "{sum}");
            assert!(copies.iter().all(|&copies| copies as f64 == weight.floor() || copies as f64 == weight.ceil()));
        }
    }
}
