//! Selects the documents for the shards and the number of their copies. Of duplicates, the first in the order of the
//! text is kept; a training document is used as often as the weight of its source demands. The result takes one byte per document.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU8;

use crate::rng::Key;

use super::sorted::{EXACT, SortedSignatures, mark_repeated};
use super::spool::{Spool, Spooled};
use crate::data::error::Result;
use crate::data::store::manifest::{Deduplication, Removed};

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

/// The selected and the removed documents of every block.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Copies of each document of each block; 0 if it is removed.
    pub copies: Vec<Vec<u8>>,
    pub removed: BTreeMap<String, Removed>,
}

/// Selects documents from `blocks`, whose signatures are `sorted`.
///
/// # Errors
/// If the spool or a file of signatures cannot be read.
pub(super) fn select(
    blocks: &[SelectableBlock],
    duplicates: Deduplication,
    sorted: &[SortedSignatures],
) -> Result<Selection> {
    let marks: Vec<Vec<AtomicU8>> =
        blocks.iter().map(|block| (0..block.place.documents).map(|_| AtomicU8::new(0)).collect()).collect();
    mark_repeated(sorted, duplicates, &marks)?;
    let mut selection = Selection::default();
    for (block, marks) in blocks.iter().zip(marks) {
        let marks: Vec<u8> = marks.into_iter().map(AtomicU8::into_inner).collect();
        if marks.iter().any(|&mark| mark != 0) {
            let (_, heads) = block.spool.read_heads(&block.place)?;
            for (&mark, [.., bytes]) in marks.iter().zip(&heads).filter(|(mark, _)| **mark != 0) {
                let name = if mark & EXACT != 0 { "exact_duplicates" } else { "near_duplicates" };
                *selection.removed.entry(name.into()).or_default() += Removed { documents: 1, bytes: *bytes as u64 };
            }
        }
        let copies =
            marks.iter().enumerate().map(|(document, &mark)| if mark == 0 { block.copies(document) } else { 0 });
        selection.copies.push(copies.collect());
    }
    Ok(selection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::prepare::token_block::{TokenBlock, TokenForm};
    use crate::data::store::shard::Split;

    #[test]
    fn weight_is_the_average_number_of_copies() {
        let directory = tempfile::tempdir().unwrap();
        let form = TokenForm { signature: 0, token_size: 2 };
        let mut spool = Spool::new(Split::Train, form);
        spool.push_directory(directory.path(), 0);
        let mut block = TokenBlock::new(form);
        (0..4000).for_each(|_| block.push(&[7], &[1], 100, &[]));
        let place = spool.append(&block).unwrap();
        for weight in [0.25, 1.0, 2.0, 2.5] {
            let blocks = [SelectableBlock { place, spool: &spool, weight, key: Key::new(5) }];
            let copies = &select(&blocks, Deduplication::Keep, &[]).unwrap().copies[0];
            let sum: u32 = copies.iter().map(|&copies| copies as u32).sum();
            // Five standard deviations of a binomial(4000, 0.5) are 158.
            assert!((sum as f64 - 4000.0 * weight).abs() <= if weight.fract() == 0.0 { 0.0 } else { 158.0 }, "{sum}");
            assert!(copies.iter().all(|&copies| copies as f64 == weight.floor() || copies as f64 == weight.ceil()));
        }
    }
}
