//! Tokenizes text on all cores: reading threads read and decompress several parts at once, and tokenizing threads each
//! filter, encode and spool whole blocks. Inputs are hashed in parallel.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope};

use rayon::prelude::*;

use super::blocks::{BlockBuilder, BlockId, TextBlock};
use super::encode::{Encoded, encode};
use super::journal::{BlockRecord, Journal, JournalRecord};
use super::spool::{Spool, Spools};
use super::token_block::TokenBlock;
use super::{PartOfInput, Preparation, PrepareProgress, PrepareStage};
use crate::data::error::{DataError, Result};
use crate::data::files::sha256_of_file;

/// A job of a reading thread.
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

/// Reads and tokenizes the text of these numbered parts of inputs that the journal does not list.
pub(super) fn tokenize(
    preparation: &Preparation,
    places: &[(u32, PartOfInput)],
    journal: &Journal,
    spools: &Spools,
    progress: PrepareProgress,
) -> Result<()> {
    let mut jobs = Vec::new();
    for &(part, place) in places {
        if place.part == 0 && journal.read(|done| !done.hashed.contains_key(&place.input)) {
            jobs.push(Job::Hash { input: place.input });
        }
        if journal.read(|done| !done.has_part(part)) {
            jobs.push(Job::Read { part, place });
        }
    }
    let next = AtomicUsize::new(0);
    let failure = Failure::default();
    let threads = rayon::current_num_threads();
    // Including queued blocks and blocks in progress, there are at most three per thread.
    let (send, receive) = sync_channel::<(BlockId, TextBlock)>(threads);
    let receive = Arc::new(Mutex::new(receive));
    std::thread::scope(|scope| {
        // At least two: one hashes while another reads.
        for _ in 0..threads.clamp(2, jobs.len().max(2)) {
            let send = send.clone();
            let (next, jobs, failure) = (&next, &jobs, &failure);
            start(scope, preparation, failure, move || {
                let pass_on = |block| !failure.happened() && send.send(block).is_ok();
                while let Some(&job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !failure.happened()) {
                    failure.keep(preparation.do_job(job, journal, &pass_on, progress));
                }
            });
        }
        drop(send);
        for _ in 0..threads {
            let receive = receive.clone();
            let failure = &failure;
            start(scope, preparation, failure, move || {
                // After a failure, blocks are still received, so that no sender waits.
                while let Some((id, block)) = receive_block(&receive) {
                    if !failure.happened() {
                        failure.keep(preparation.tokenize_block(id, &block, journal, spools));
                    }
                }
            });
        }
        // If every receiving thread panics, senders must not wait.
        drop(receive);
    });
    failure.into_result()
}

/// Starts a thread; if the system refuses it, that is the failure of the preparation.
fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    preparation: &Preparation,
    failure: &Failure,
    work: impl FnOnce() + Send + 'scope,
) {
    let thread = Builder::new().spawn_scoped(scope, work).map(drop);
    failure.keep(thread.map_err(DataError::io("start a thread to read", preparation.inputs[0].path())));
}

fn receive_block(receive: &Mutex<Receiver<(BlockId, TextBlock)>>) -> Option<(BlockId, TextBlock)> {
    receive.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Discards the blocks of an interrupted preparation that are damaged, so that they are tokenized again.
pub(super) fn forget_lost_blocks(journal: &Journal, spools: &Spools) {
    let blocks: Vec<_> = journal.read(|done| done.blocks.iter().map(|(&id, record)| (id, record.clone())).collect());
    let lost: Vec<BlockId> = blocks
        .into_par_iter()
        .filter(|(_, record)| {
            let is_complete = |place, spool: &Spool| Option::is_none_or(place, |place| spool.is_complete(&place));
            !(is_complete(record.train, &spools.train) && is_complete(record.held_out, &spools.held_out))
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
        pass_on: &dyn Fn((BlockId, TextBlock)) -> bool,
        progress: PrepareProgress,
    ) -> Result<()> {
        match job {
            Job::Hash { input } => {
                let sha256 = sha256_of_file(self.inputs[input].path(), &|_| ())?;
                journal.record(JournalRecord::Hashed { input, sha256 })
            }
            Job::Read { part, place } => self.read_part(part, place, journal, pass_on, progress),
        }
    }

    fn read_part(
        &self,
        part: u32,
        place: PartOfInput,
        journal: &Journal,
        pass_on: &dyn Fn((BlockId, TextBlock)) -> bool,
        progress: PrepareProgress,
    ) -> Result<()> {
        let mut sink = |index, block| {
            let id = BlockId { part, index };
            // A block that an interrupted preparation tokenized is read again to find the start of the next one.
            journal.read(|done| done.blocks.contains_key(&id)) || pass_on((id, block))
        };
        let mut builder = BlockBuilder::new(&mut sink);
        let reading = |bytes| progress(PrepareStage::Tokenizing, bytes);
        let input = &self.inputs[place.input];
        match input.read_part(place.part, &self.options.reading, &reading, &mut |batch| builder.push_batch(&batch))? {
            true => {
                let blocks = builder.finish();
                journal.record(JournalRecord::Read { part, blocks })
            }
            // Another thread failed.
            false => Ok(()),
        }
    }

    fn tokenize_block(&self, id: BlockId, block: &TextBlock, journal: &Journal, spools: &Spools) -> Result<()> {
        let Encoded { train, held_out, overlong_documents, removed } = encode(block, self.tokenizer, self.options)?;
        let append =
            |spool: &Spool, block: TokenBlock| (!block.heads.is_empty()).then(|| spool.append(&block)).transpose();
        let record = BlockRecord {
            train: append(&spools.train, train)?,
            held_out: append(&spools.held_out, held_out)?,
            counts: block.counts,
            overlong_documents: overlong_documents + block.overlong_documents,
            removed,
        };
        journal.record(JournalRecord::Tokenized(id, record))
    }
}
