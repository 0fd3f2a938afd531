//! Checkpoints on their way to a bucket while training goes on: one at a time, on a thread of their own. What cannot be
//! sent stays here, and is sent with the next one or by the next `--resume`.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::checkpoint::METRICS_FILE;
use crate::checkpoint::{CheckpointError, Mirrored, RemoteRun};
use crate::run::CheckpointSettings;
use crate::units::duration;

/// The way from a run directory to its bucket.
pub struct Uploader {
    run: Arc<RemoteRun>,
    keep: usize,
    under_way: Option<JoinHandle<Sent>>,
}

/// How an upload ended, and how long it took.
type Sent = (Result<Mirrored, CheckpointError>, Duration);

impl Uploader {
    /// Of a run that is saved in a bucket; none if it is saved in a directory.
    ///
    /// # Errors
    /// If the directory here is not the copy of that bucket's run.
    pub fn new(settings: &CheckpointSettings) -> anyhow::Result<Option<Uploader>> {
        let Some(address) = settings.directory.address() else { return Ok(None) };
        let run = RemoteRun::open(address, settings.directory.local()).context("[checkpoint] directory")?;
        Ok(Some(Uploader { run: Arc::new(run), keep: settings.keep, under_way: None }))
    }

    /// Begins to send what the bucket lacks; the upload before must have been waited for.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let (run, keep) = (self.run.clone(), self.keep);
        let send = move || {
            let begin = Instant::now();
            (run.mirror(keep, METRICS_FILE, &|_| ()), begin.elapsed())
        };
        let thread = std::thread::Builder::new().name("upload".to_owned()).spawn(send);
        self.under_way = Some(thread.context("the system gives no thread to send checkpoints from")?);
        Ok(())
    }

    /// Waits for the upload under way, which must have ended before a checkpoint here may be removed; sentences on what
    /// it did.
    ///
    /// # Errors
    /// If it failed, and where the checkpoint is nevertheless.
    pub fn wait(&mut self) -> anyhow::Result<Vec<String>> {
        let Some(thread) = self.under_way.take() else { return Ok(Vec::new()) };
        let (sent, took) = thread.join().map_err(|_| anyhow!("the thread that sends checkpoints panicked"))?;
        let Mirrored { sent, mut notes } = sent.with_context(|| {
            format!("the newest checkpoint is not in {} yet; it is whole on this machine", self.run.address())
        })?;
        notes.extend(sent.iter().map(|address| format!("sent {address} in {}", duration(took))));
        Ok(notes)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // However the run ends, what is being sent arrives.
        if let Some(thread) = self.under_way.take() {
            let _ = thread.join();
        }
    }
}
