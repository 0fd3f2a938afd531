//! Uploads checkpoints to a bucket during training, one at a time, on a separate thread. A checkpoint that cannot be uploaded
//! stays in the run directory, and is uploaded with the next one or when the run is resumed.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use crate::checkpoint::{CheckpointError, Keep, METRICS_FILE, Mirrored, RemoteRun};
use crate::run::CheckpointSettings;
use crate::units::duration;

/// The upload of a run directory to its bucket.
pub struct Uploader {
    run: Arc<RemoteRun>,
    keep: Keep,
    upload: Option<JoinHandle<Upload>>,
}

/// The result of an upload, and its duration.
type Upload = (Result<Mirrored, CheckpointError>, Duration);

impl Uploader {
    /// Returns the uploader of a run in a bucket; none for a run in a directory.
    ///
    /// # Errors
    /// If the local directory is not the copy of the run in the bucket.
    pub fn new(settings: &CheckpointSettings) -> anyhow::Result<Option<Uploader>> {
        let Some(address) = settings.directory.address() else { return Ok(None) };
        let run = RemoteRun::open(address, settings.directory.local()).context("[checkpoint] directory")?;
        Ok(Some(Uploader { run: Arc::new(run), keep: settings.kept(), upload: None }))
    }

    /// Starts to upload the checkpoints that the bucket lacks; [`Uploader::wait`] must have been called for an earlier upload.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let (run, keep) = (self.run.clone(), self.keep);
        let upload = move || {
            let begin = Instant::now();
            (run.mirror(keep, METRICS_FILE, &|_| ()), begin.elapsed())
        };
        let thread = std::thread::Builder::new().name("upload".to_owned()).spawn(upload);
        self.upload = Some(thread.context("cannot start the thread that uploads checkpoints")?);
        Ok(())
    }

    /// Waits for the upload, which must end before local checkpoints are removed; returns messages about it.
    ///
    /// # Errors
    /// If it failed; the checkpoint is then in the run directory only.
    pub fn wait(&mut self) -> anyhow::Result<Vec<String>> {
        let Some(thread) = self.upload.take() else { return Ok(Vec::new()) };
        let (mirrored, took) = thread.join().map_err(|_| anyhow!("the thread that uploads checkpoints panicked"))?;
        let Mirrored { uploaded, mut notes } = mirrored.with_context(|| {
            format!("the newest checkpoint was not uploaded to {}; it is complete on this machine", self.run.address())
        })?;
        notes.extend(uploaded.iter().map(|address| format!("uploaded {address} in {}", duration(took))));
        Ok(notes)
    }

    /// Uploads `metrics.jsonl` with the lines since the last checkpoint; [`Uploader::wait`] must have been called.
    ///
    /// # Errors
    /// If the upload fails.
    pub fn upload_metrics(&self) -> anyhow::Result<()> {
        self.run.upload_journal(METRICS_FILE, &|_| ()).with_context(|| {
            format!(
                "the last lines of {METRICS_FILE} were not uploaded to {}; they are on this machine",
                self.run.address()
            )
        })
    }

    /// Renames the checkpoints in the bucket that are newer than `step`; [`Uploader::wait`] must have been called.
    ///
    /// # Errors
    /// If a request fails.
    pub fn set_aside_after(&self, step: Option<u64>) -> Result<Vec<String>, CheckpointError> {
        self.run.set_aside_after(step)
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        // An upload in progress completes even if the run fails.
        if let Some(thread) = self.upload.take() {
            let _ = thread.join();
        }
    }
}
