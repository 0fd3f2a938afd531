//! The signatures of documents as sorted files, from which repeated documents are found for a corpus of any size: equal signatures
//! come one after the other when the files of all machines are merged.
//!
//! ```text
//! spool ── heads of a million documents ── one sorted file for each kind of signature ──┐
//!          in memory at a time                                                          ├─ merge ── marks
//!                                     the files of the other parts of the preparation ──┘
//! ```
//!
//! An entry is the words of a signature, and the document: the number of its block and its index in the block. Signatures and then
//! documents are in ascending order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::signature::{BANDS, FINGERPRINT};
use super::spool::{Spool, Spooled};
use super::staging::write_to_disk;
use super::work_files::{CHECK_THE_DISK, SORTED};
use crate::data::error::{DataError, Result};
use crate::data::store::manifest::Deduplication;
use crate::files;

/// Documents whose signatures are sorted at a time: 260 MB for near duplicates.
const RUN: usize = 1 << 20;
/// Bytes of entries in memory while files are merged.
const MEMORY: usize = 256 << 20;
/// Kinds of signatures that are merged at a time.
const MERGES: usize = 4;

/// Marks of a document that repeats an earlier one.
pub(super) const EXACT: u8 = 1;
pub(super) const NEAR: u8 = 2;

/// The words of an entry: a signature, and the document as `block << 32 | index`.
const EXACT_WORDS: usize = FINGERPRINT + 1;
const NEAR_WORDS: usize = 2;

/// A kind of signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Fingerprint,
    Band(usize),
}

impl Kind {
    fn all(duplicates: Deduplication) -> Vec<Kind> {
        match duplicates {
            Deduplication::Keep => Vec::new(),
            Deduplication::Exact => vec![Kind::Fingerprint],
            Deduplication::Near => std::iter::once(Kind::Fingerprint).chain((0..BANDS).map(Kind::Band)).collect(),
        }
    }
}

/// A file of sorted entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SortedRun {
    kind: Kind,
    file: String,
    entries: u64,
    xxh3: u64,
}

/// The sorted files in a directory.
#[derive(Debug)]
pub(super) struct SortedSignatures {
    pub directory: PathBuf,
    pub runs: Vec<SortedRun>,
    /// The number that each block of these files has among the blocks of all directories, in ascending order.
    pub blocks: Vec<u32>,
}

impl SortedSignatures {
    /// Writes the signatures of all documents of `blocks` to sorted files in `directory`.
    ///
    /// # Errors
    /// If the spool cannot be read or the disk is full.
    pub fn sort(blocks: &[(Spooled, &Spool)], duplicates: Deduplication, directory: &Path) -> Result<SortedSignatures> {
        let runs = sort_by(RUN, blocks, duplicates, directory)?;
        Ok(SortedSignatures { directory: directory.to_owned(), runs, blocks: (0..blocks.len() as u32).collect() })
    }

    /// Returns `true` if all files have the bytes that were written.
    pub fn are_complete(runs: &[SortedRun], directory: &Path) -> bool {
        runs.par_iter().all(|run| {
            let bytes = files::read(directory.join(&run.file));
            bytes.is_ok_and(|bytes| xxh3_64(&bytes) == run.xxh3)
        })
    }

    /// Removes the files.
    pub fn remove(self) -> Result<()> {
        self.runs
            .iter()
            .map(|run| self.directory.join(&run.file))
            .try_for_each(|path| fs::remove_file(&path).map_err(DataError::io("remove", &path)))
    }
}

/// Writes sorted files of at most `run` documents each, unless one block has more.
fn sort_by(
    run: usize,
    blocks: &[(Spooled, &Spool)],
    duplicates: Deduplication,
    directory: &Path,
) -> Result<Vec<SortedRun>> {
    let kinds = Kind::all(duplicates);
    let (mut runs, mut start) = (Vec::new(), 0);
    while start < blocks.len() && !kinds.is_empty() {
        let (mut end, mut documents) = (start, 0);
        while end < blocks.len() && (end == start || documents + blocks[end].0.documents as usize <= run) {
            documents += blocks[end].0.documents as usize;
            end += 1;
        }
        let signatures = (start..end).into_par_iter().map(|block| {
            let (place, spool) = &blocks[block];
            Ok((block as u32, spool.read_heads(place)?.0))
        });
        let signatures: Vec<(u32, Vec<u64>)> = signatures.collect::<Result<_>>()?;
        let number = runs.len() / kinds.len();
        let sorted = kinds.par_iter().map(|&kind| match kind {
            Kind::Fingerprint => write_run::<EXACT_WORDS>(kind, number, &signatures, duplicates, directory),
            Kind::Band(_) => write_run::<NEAR_WORDS>(kind, number, &signatures, duplicates, directory),
        });
        runs.extend(sorted.collect::<Result<Vec<_>>>()?);
        start = end;
    }
    Ok(runs)
}

/// Sorts the entries of some blocks, each given by its number and the signatures of its documents, and writes them.
fn write_run<const WORDS: usize>(
    kind: Kind,
    number: usize,
    blocks: &[(u32, Vec<u64>)],
    duplicates: Deduplication,
    directory: &Path,
) -> Result<SortedRun> {
    let first = match kind {
        Kind::Fingerprint => 0,
        Kind::Band(band) => FINGERPRINT + band,
    };
    let mut entries: Vec<[u64; WORDS]> = Vec::new();
    for (block, signatures) in blocks {
        for (document, signature) in signatures.chunks(super::signature::length(duplicates)).enumerate() {
            let mut entry = [0; WORDS];
            entry[..WORDS - 1].copy_from_slice(&signature[first..first + WORDS - 1]);
            entry[WORDS - 1] = u64::from(*block) << 32 | document as u64;
            entries.push(entry);
        }
    }
    entries.sort_unstable();
    let name = match kind {
        Kind::Fingerprint => "fingerprints".to_owned(),
        Kind::Band(band) => format!("band-{band:02}"),
    };
    let file = format!("{name}-{number:05}.{SORTED}");
    let bytes: &[u8] = bytemuck::cast_slice(entries.as_flattened());
    write_to_disk(&directory.join(&file), bytes)?;
    Ok(SortedRun { kind, file, entries: entries.len() as u64, xxh3: xxh3_64(bytes) })
}

/// Marks every document that repeats an earlier one by its fingerprint ([`EXACT`]) or one of its bands ([`NEAR`]). `marks` has the
/// documents of all blocks, in the order of the text.
///
/// # Errors
/// If a file cannot be read or is damaged.
pub(super) fn mark_repeated(
    sorted: &[SortedSignatures],
    duplicates: Deduplication,
    marks: &[Vec<AtomicU8>],
) -> Result<()> {
    let kinds = Kind::all(duplicates);
    let files = sorted.iter().map(|sorted| sorted.runs.len()).sum::<usize>().div_ceil(kinds.len().max(1));
    let buffer = (MEMORY / (MERGES * files.max(1))).clamp(1 << 12, 1 << 20);
    for kinds in kinds.chunks(MERGES) {
        kinds.par_iter().try_for_each(|&kind| match kind {
            Kind::Fingerprint => merge::<EXACT_WORDS>(sorted, kind, buffer, EXACT, marks),
            Kind::Band(_) => merge::<NEAR_WORDS>(sorted, kind, buffer, NEAR, marks),
        })?;
    }
    Ok(())
}

/// Merges the files of one kind.
fn merge<const WORDS: usize>(
    sorted: &[SortedSignatures],
    kind: Kind,
    buffer: usize,
    mark: u8,
    marks: &[Vec<AtomicU8>],
) -> Result<()> {
    let runs = sorted.iter().flat_map(|sorted| sorted.runs.iter().map(move |run| (sorted, run)));
    let mut readers: Vec<RunReader<WORDS>> =
        runs.filter(|(_, run)| run.kind == kind).map(|(sorted, run)| RunReader::new(sorted, run, buffer)).collect();
    let mut next = BinaryHeap::with_capacity(readers.len());
    for (index, reader) in readers.iter_mut().enumerate() {
        next.extend(reader.next()?.map(|entry| Reverse((entry, index))));
    }
    let mut before: Option<[u64; WORDS]> = None;
    while let Some(Reverse((entry, index))) = next.pop() {
        let document = entry[WORDS - 1];
        if before.is_some_and(|before| before[..WORDS - 1] == entry[..WORDS - 1]) {
            let marks = marks.get((document >> 32) as usize).and_then(|marks| marks.get(document as u32 as usize));
            marks.ok_or_else(|| readers[index].damaged())?.fetch_or(mark, Ordering::Relaxed);
        }
        before = Some(entry);
        next.extend(readers[index].next()?.map(|entry| Reverse((entry, index))));
    }
    Ok(())
}

/// Reads the entries of a file in order. The file is opened for each read: a merge may have more files than a process may open.
struct RunReader<'a, const WORDS: usize> {
    path: PathBuf,
    run: &'a SortedRun,
    /// The numbers of the blocks.
    blocks: &'a [u32],
    entries: Vec<[u64; WORDS]>,
    next: usize,
    read: u64,
    most: usize,
    hash: Xxh3,
}

impl<'a, const WORDS: usize> RunReader<'a, WORDS> {
    fn new(sorted: &'a SortedSignatures, run: &'a SortedRun, buffer: usize) -> Self {
        RunReader {
            path: sorted.directory.join(&run.file),
            run,
            blocks: &sorted.blocks,
            entries: Vec::new(),
            next: 0,
            read: 0,
            most: buffer / size_of::<[u64; WORDS]>(),
            hash: Xxh3::new(),
        }
    }

    /// Returns the next entry, with the number of its block among all blocks.
    fn next(&mut self) -> Result<Option<[u64; WORDS]>> {
        if self.next == self.entries.len() && !self.fill()? {
            return Ok(None);
        }
        let mut entry = self.entries[self.next];
        self.next += 1;
        let document = entry[WORDS - 1];
        let block = self.blocks.get((document >> 32) as usize).ok_or_else(|| self.damaged())?;
        entry[WORDS - 1] = u64::from(*block) << 32 | u64::from(document as u32);
        Ok(Some(entry))
    }

    /// Reads the next entries. Returns `false` at the end, where the checksum is compared.
    fn fill(&mut self) -> Result<bool> {
        let left = self.run.entries - self.read;
        if left == 0 {
            return if self.hash.digest() == self.run.xxh3 { Ok(false) } else { Err(self.damaged()) };
        }
        self.entries.clear();
        self.entries.resize(self.most.min(left as usize), [0; WORDS]);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(self.entries.as_flattened_mut());
        let file = files::open(&self.path).map_err(DataError::io("open", &self.path))?;
        let at = self.read * size_of::<[u64; WORDS]>() as u64;
        file.read_exact_at(bytes, at).map_err(DataError::io("read", &self.path))?;
        self.hash.update(bytes);
        self.read += self.entries.len() as u64;
        self.next = 0;
        Ok(true)
    }

    fn damaged(&self) -> DataError {
        DataError::file(&self.path, "the signatures that were written", "others", CHECK_THE_DISK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::prepare::token_block::{TokenBlock, TokenForm};
    use crate::data::store::shard::Split;

    /// Documents by fingerprint, with one band that defines their near duplicates.
    const TEXTS: [[(u64, u64); 3]; 3] =
        [[(1, 10), (2, 20), (1, 10)], [(3, 30), (4, 20), (3, 30)], [(5, 50), (6, 50), (2, 20)]];

    fn spool_of(directory: &Path, texts: &[[(u64, u64); 3]]) -> (Spool, Vec<Spooled>) {
        let form = TokenForm { signature: FINGERPRINT + BANDS, token_size: 2 };
        let mut spool = Spool::new(Split::Train, form);
        spool.push_directory(directory, 0);
        let block = |documents: &[(u64, u64); 3]| {
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
        };
        let places = texts.iter().map(block).collect();
        (spool, places)
    }

    /// Returns the marks of [`TEXTS`], whose blocks are sorted in these groups, with at most `run` documents in a file.
    fn marks(groups: &[&[u32]], run: usize) -> Vec<Vec<u8>> {
        let folders: Vec<_> = groups.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        let sorted: Vec<SortedSignatures> = groups
            .iter()
            .zip(&folders)
            .map(|(&blocks, folder)| {
                let texts: Vec<_> = blocks.iter().map(|&block| TEXTS[block as usize]).collect();
                let (spool, places) = spool_of(folder.path(), &texts);
                let places: Vec<_> = places.into_iter().map(|place| (place, &spool)).collect();
                let runs = sort_by(run, &places, Deduplication::Near, folder.path()).unwrap();
                SortedSignatures { directory: folder.path().to_owned(), runs, blocks: blocks.to_vec() }
            })
            .collect();
        let marks: Vec<Vec<AtomicU8>> = (0..3).map(|_| (0..3).map(|_| AtomicU8::new(0)).collect()).collect();
        mark_repeated(&sorted, Deduplication::Near, &marks).unwrap();
        marks.into_iter().map(|marks| marks.into_iter().map(AtomicU8::into_inner).collect()).collect()
    }

    #[test]
    fn repeated_documents_are_found_in_any_number_of_files_and_directories() {
        const BOTH: u8 = EXACT | NEAR;
        let expected = [[0, 0, BOTH], [0, NEAR, BOTH], [0, NEAR, BOTH]];
        for run in [1, 6, 100] {
            for groups in [&[&[0, 1, 2][..]][..], &[&[0, 2], &[1]], &[&[1], &[], &[0], &[2]]] {
                assert_eq!(marks(groups, run), expected, "{groups:?}, {run}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, places) = spool_of(folder.path(), &TEXTS);
        let places: Vec<_> = places.into_iter().map(|place| (place, &spool)).collect();
        let sorted = SortedSignatures::sort(&places, Deduplication::Exact, folder.path()).unwrap();
        let path = folder.path().join(&sorted.runs[0].file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] ^= 1;
        fs::write(&path, bytes).unwrap();
        let marks: Vec<Vec<AtomicU8>> = (0..3).map(|_| (0..3).map(|_| AtomicU8::new(0)).collect()).collect();
        let error = mark_repeated(&[sorted], Deduplication::Exact, &marks).unwrap_err().to_string();
        assert!(error.contains("fingerprints-00000.sorted: requires the signatures that were written"), "{error}");
    }
}
