//! Saves the checkpoints of a run into its run directory, and starts their upload to its bucket. Training waits for the copy
//! from the devices only: a thread writes it to the disk while the next steps run.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, anyhow, bail};

use super::job::Job;
use super::uploader::Uploader;
use crate::checkpoint::{Checkpoint, RunDirectory, RunLock, Saved, Software, State};
use crate::runtime::state::TrainState;
use crate::schedule::Position;
use crate::shape::HostTensor;

/// Writes the checkpoints of one run, on host 0, one at a time.
pub struct Checkpointer {
    job: Arc<Job>,
    lock: Arc<RunLock>,
    software: Software,
    writer: Writer,
}

/// The part of the checkpointer that a save needs.
enum Writer {
    Idle(Box<Destination>),
    Saving(JoinHandle<(Box<Destination>, anyhow::Result<Saved>)>),
    /// The thread of the last save panicked.
    Lost,
}

/// The places that checkpoints are written to.
struct Destination {
    directory: RunDirectory,
    /// For a run in a bucket.
    uploader: Option<Uploader>,
}

impl Checkpointer {
    /// Returns the checkpointer of a run that trains with `software` and whose directory is locked by `lock`.
    ///
    /// # Errors
    /// If the run directory is not the copy of the run in its bucket.
    pub fn new(job: Arc<Job>, lock: Arc<RunLock>, software: Software) -> anyhow::Result<Checkpointer> {
        let uploader = Uploader::new(&job.checkpoint)?;
        let directory = RunDirectory::new(job.checkpoint.directory.local(), job.checkpoint.kept());
        Ok(Checkpointer { job, lock, software, writer: Writer::Idle(Box::new(Destination { directory, uploader })) })
    }

    /// Copies `state` to the host, and starts to write it as the checkpoint at `position`, with what the trainer has filled into
    /// `record`. An earlier save must be complete ([`Checkpointer::wait`]).
    ///
    /// # Errors
    /// If the run directory was moved, the copy fails, or the system cannot start a thread.
    pub fn start(&mut self, state: &TrainState, position: Position, record: State) -> anyhow::Result<()> {
        let (model, optimizer) = state.to_host()?;
        self.lock.check()?;
        let step = record.step;
        let Position { phase, step_in_phase, next_example, optimizer_steps } = position;
        let state = State {
            phase,
            step_in_phase,
            next_example,
            optimizer_steps,
            seed: self.job.seed,
            run_fingerprint: self.job.fingerprint.clone(),
            vocabulary_sha256: self.job.vocabulary_sha256.clone(),
            software: Some(self.software.clone()),
            ..record
        };
        let checkpoint = Checkpoint { state, model, optimizer, files: self.job.files.clone() };
        let Writer::Idle(mut destination) = std::mem::replace(&mut self.writer, Writer::Lost) else {
            bail!("step {step}: the previous checkpoint is not complete");
        };
        let save = move || {
            let saved = destination.save(&checkpoint);
            (destination, saved)
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(save);
        self.writer = Writer::Saving(thread.context("cannot start the thread that writes checkpoints")?);
        Ok(())
    }

    /// Returns whether a save has ended whose result [`Checkpointer::wait`] has not returned yet.
    pub fn has_ended(&self) -> bool {
        matches!(&self.writer, Writer::Saving(thread) if thread.is_finished())
    }

    /// Waits for the save in progress, if there is one.
    ///
    /// # Errors
    /// If a value is not finite, or the disk fails.
    pub fn wait(&mut self) -> anyhow::Result<Option<Saved>> {
        match std::mem::replace(&mut self.writer, Writer::Lost) {
            Writer::Saving(thread) => {
                let (destination, saved) =
                    thread.join().map_err(|_| anyhow!("the thread that writes checkpoints panicked"))?;
                self.writer = Writer::Idle(destination);
                saved.map(Some)
            }
            other => {
                self.writer = other;
                Ok(None)
            }
        }
    }

    /// Renames the checkpoints that are newer than `step` (all of them without one), here and in the bucket; returns messages with
    /// their new names. The last save must be complete.
    ///
    /// # Errors
    /// If the file system reports an error, or a request fails.
    pub fn set_aside_after(&mut self, step: Option<u64>) -> anyhow::Result<Vec<String>> {
        let Writer::Idle(destination) = &mut self.writer else { bail!("the last checkpoint is not complete") };
        let mut notes = destination.wait_for_upload();
        // The bucket first: a start of the run repeats its renames in the local copy if they are interrupted here.
        if let Some(uploader) = &destination.uploader {
            notes.extend(uploader.set_aside_after(step)?);
        }
        notes.extend(destination.directory.set_aside_after(step)?);
        Ok(notes)
    }

    /// Waits until all checkpoints are in the bucket; returns messages about the uploads. The last save must be complete.
    ///
    /// # Errors
    /// If the newest checkpoint could not be uploaded.
    pub fn finish(&mut self) -> anyhow::Result<Vec<String>> {
        match &mut self.writer {
            Writer::Idle(destination) => destination.uploader.as_mut().map_or(Ok(Vec::new()), Uploader::wait),
            Writer::Saving(_) | Writer::Lost => Ok(Vec::new()),
        }
    }

    /// Uploads the metrics since the last checkpoint, at the end of a run; [`Checkpointer::finish`] must have been called.
    ///
    /// # Errors
    /// If the upload fails.
    pub fn upload_metrics(&self) -> anyhow::Result<()> {
        match &self.writer {
            Writer::Idle(destination) => destination.uploader.as_ref().map_or(Ok(()), Uploader::upload_metrics),
            Writer::Saving(_) | Writer::Lost => Ok(()),
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        // A save in progress completes even if the run fails.
        let _ = self.wait();
    }
}

impl Destination {
    /// Waits for the upload; returns messages about it. Its failure does not stop training, because the next upload includes the same
    /// files.
    fn wait_for_upload(&mut self) -> Vec<String> {
        let uploaded = self.uploader.as_mut().map_or(Ok(Vec::new()), Uploader::wait);
        uploaded.unwrap_or_else(|error| vec![format!("{error:#}")])
    }

    /// Writes `checkpoint` into the run directory, and starts its upload.
    fn save(&mut self, checkpoint: &Checkpoint) -> anyhow::Result<Saved> {
        let step = checkpoint.state.step;
        if let Some((name, _)) =
            checkpoint.model.iter().chain(&checkpoint.optimizer).find(|(_, tensor)| !is_finite(tensor))
        {
            bail!(
                "step {step}: {name} holds a value that is not finite, so no checkpoint was saved; resume from the checkpoint \
                 before with a lower learning_rate, and accept the changed setting"
            );
        }
        // Saving removes old checkpoints, which must not be in an upload.
        let mut notes = self.wait_for_upload();
        let saved = self.directory.save(checkpoint)?;
        notes.extend(saved.notes);
        if let Some(uploader) = &mut self.uploader {
            uploader.start()?;
        }
        Ok(Saved { path: saved.path, notes })
    }
}

/// Returns whether all values of an f32 tensor are finite.
fn is_finite(tensor: &HostTensor) -> bool {
    tensor.bytes().chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
}
