//! Text to token blocks, on all cores: threads that read and decompress several parts at once, and threads that each take
//! whole blocks from filter to spool. Inputs are hashed meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::blocks::{BlockBuilder, BlockId, TextBlock};
use super::encode::{Encoded, encode};
use super::journal::{BlockRecord, Journal, Step};
use super::token_block::TokenBlock;
use super::{PartOfInput, Preparation, PrepareProgress, PrepareStage, Spools};
use crate::data::error::{DataError, Result};
use crate::data::files::sha256_of_file;

/// What a reading thread does next.
#[derive(Clone, Copy, Debug)]
enum Job {
    Hash { input: usize },
    Read { part: u32, place: PartOfInput },
}

/// The first error of several threads.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    first: Mutex<Option<DataError>>,
}

impl Failure {
    fn keep(&self, result: Result<()>) {
        if let Err(error) = result {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.happened.store(true, Ordering::Relaxed);
        }
    }

    fn happened(&self) -> bool {
        self.happened.load(Ordering::Relaxed)
    }

    fn into_result(self) -> Result<()> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Reads and tokenizes whatever the journal does not tell of.
pub(super) fn tokenize(
    asked: &Preparation,
    journal: &Journal,
    spools: &Spools,
    progress: PrepareProgress,
) -> Result<()> {
    forget_lost_blocks(journal, spools);
    let mut jobs = Vec::new();
    for (part, place) in asked.parts().into_iter().enumerate() {
        let part = part as u32;
        if place.part == 0 && journal.ask(|done| !done.hashed.contains_key(&place.input)) {
            jobs.push(Job::Hash { input: place.input });
        }
        if journal.ask(|done| !done.has_part(part)) {
            jobs.push(Job::Read { part, place });
        }
    }
    let next = AtomicUsize::new(0);
    let failure = Failure::default();
    let threads = rayon::current_num_threads();
    // With blocks that wait and blocks in the making, a thread has three at most.
    let (send, receive) = sync_channel::<(BlockId, TextBlock)>(threads);
    let receive = Arc::new(Mutex::new(receive));
    std::thread::scope(|scope| {
        // Two at least: one to hash while another reads.
        for _ in 0..threads.clamp(2, jobs.len().max(2)) {
            let send = send.clone();
            let (next, jobs, failure) = (&next, &jobs, &failure);
            scope.spawn(move || {
                let hand_on = |block| !failure.happened() && send.send(block).is_ok();
                while let Some(&job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !failure.happened()) {
                    failure.keep(asked.do_job(job, journal, &hand_on, progress));
                }
            });
        }
        drop(send);
        for _ in 0..threads {
            let receive = receive.clone();
            let failure = &failure;
            scope.spawn(move || {
                // After a failure, blocks are still taken, so that no thread waits to hand one on.
                while let Some((id, block)) = take(&receive) {
                    if !failure.happened() {
                        failure.keep(asked.tokenize_block(id, &block, journal, spools));
                    }
                }
            });
        }
        // Should every thread that takes blocks die of a panic, those that hand them on shall not wait.
        drop(receive);
    });
    failure.into_result()
}

fn take(receive: &Mutex<Receiver<(BlockId, TextBlock)>>) -> Option<(BlockId, TextBlock)> {
    receive.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Blocks of an interrupted preparation that are not whole are tokenized again.
fn forget_lost_blocks(journal: &Journal, spools: &Spools) {
    let blocks: Vec<_> = journal.ask(|done| done.blocks.iter().map(|(&id, record)| (id, record.clone())).collect());
    let lost: Vec<BlockId> = blocks
        .into_par_iter()
        .filter(|(_, record)| {
            let is_whole = |place, spool: &super::Spool| Option::is_none_or(place, |place| spool.is_whole(&place));
            !(is_whole(record.train, &spools.train) && is_whole(record.held_out, &spools.held_out))
        })
        .map(|(id, _)| id)
        .collect();
    journal.forget(&lost);
}

impl Preparation<'_> {
    fn do_job(
        &self,
        job: Job,
        journal: &Journal,
        hand_on: &dyn Fn((BlockId, TextBlock)) -> bool,
        progress: PrepareProgress,
    ) -> Result<()> {
        match job {
            Job::Hash { input } => {
                let sha256 = sha256_of_file(self.inputs[input].path(), &|_| ())?;
                journal.note(Step::Hashed { input, sha256 })
            }
            Job::Read { part, place } => self.read_part(part, place, journal, hand_on, progress),
        }
    }

    fn read_part(
        &self,
        part: u32,
        place: PartOfInput,
        journal: &Journal,
        hand_on: &dyn Fn((BlockId, TextBlock)) -> bool,
        progress: PrepareProgress,
    ) -> Result<()> {
        let mut sink = |index, block| {
            let id = BlockId { part, index };
            // A block that an interrupted preparation tokenized is read again, for where the next one begins.
            journal.ask(|done| done.blocks.contains_key(&id)) || hand_on((id, block))
        };
        let mut builder = BlockBuilder::new(&mut sink);
        let reading = |bytes| progress(PrepareStage::Tokenizing, bytes);
        let input = &self.inputs[place.input];
        match input.read_part(place.part, &self.options.reading, &reading, &mut |batch| builder.take(&batch))? {
            true => {
                let blocks = builder.finish();
                journal.note(Step::Read { part, blocks })
            }
            // Another thread failed.
            false => Ok(()),
        }
    }

    fn tokenize_block(&self, id: BlockId, block: &TextBlock, journal: &Journal, spools: &Spools) -> Result<()> {
        let Encoded { train, held_out, cut_documents, removed } = encode(block, self.tokenizer, self.options)?;
        let append = |spool: &super::Spool, block: TokenBlock| {
            (!block.heads.is_empty()).then(|| spool.append(&block)).transpose()
        };
        let record = BlockRecord {
            train: append(&spools.train, train)?,
            held_out: append(&spools.held_out, held_out)?,
            counts: block.counts,
            cut_documents: cut_documents + block.cut_documents,
            removed,
        };
        journal.note(Step::Tokenized(id, record))
    }
}
