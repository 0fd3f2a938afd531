//! Saves the checkpoints of a run into its run directory, and starts their upload to its bucket.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Map, Value};

use super::job::Job;
use super::uploader::Uploader;
use crate::checkpoint::{Best, Checkpoint, State, save};
use crate::runtime::state::TrainState;
use crate::shape::HostTensor;

/// Writes the checkpoints of one run, on host 0.
pub struct Checkpointer {
    job: Arc<Job>,
    /// For a run in a bucket.
    uploader: Option<Uploader>,
}

impl Checkpointer {
    /// Returns the checkpointer of a run.
    ///
    /// # Errors
    /// If the run directory is not the copy of the run in its bucket.
    pub fn new(job: Arc<Job>) -> anyhow::Result<Checkpointer> {
        let uploader = Uploader::new(&job.checkpoint)?;
        Ok(Checkpointer { job, uploader })
    }

    /// Writes a checkpoint of `state` after `done` updates, with the `metrics` of the last one and the `best` evaluation. `say`
    /// receives messages for the user.
    ///
    /// # Errors
    /// If a value is not finite, or the disk fails.
    pub fn save(
        &mut self,
        state: &TrainState,
        done: u64,
        metrics: &Map<String, Value>,
        best: Option<&Best>,
        say: impl Fn(&str),
    ) -> anyhow::Result<PathBuf> {
        let directory = &self.job.checkpoint.directory;
        let (model, optimizer) = state.to_host()?;
        if let Some((name, _)) = model.iter().chain(&optimizer).find(|(_, tensor)| !is_finite(tensor)) {
            bail!(
                "step {done}: {name} holds a value that is not finite, so no checkpoint was saved; the checkpoints in {directory} \
                 are older. Resume from them with a lower learning_rate, and accept the changed setting"
            );
        }
        let position = State { metrics: metrics.clone(), best: best.cloned(), ..self.position(done)? };
        let checkpoint = Checkpoint { state: position, model, optimizer, files: self.job.files.clone() };
        // Saving removes old checkpoints, which must not be in an upload.
        self.wait_for_upload(&say);
        let saved = save(self.job.checkpoint.directory.local(), &checkpoint, self.job.checkpoint.keep)?;
        saved.notes.iter().for_each(|note| say(note));
        if let Some(uploader) = &mut self.uploader {
            uploader.start()?;
        }
        Ok(saved.path)
    }

    /// Waits until all checkpoints are in the bucket; returns messages about the uploads.
    ///
    /// # Errors
    /// If the newest checkpoint could not be uploaded.
    pub fn finish(&mut self) -> anyhow::Result<Vec<String>> {
        self.uploader.as_mut().map_or(Ok(Vec::new()), Uploader::wait)
    }

    /// Waits for the upload. Its failure does not stop training, because the next upload includes the same files.
    fn wait_for_upload(&mut self, say: impl Fn(&str)) {
        match self.finish() {
            Ok(notes) => notes.iter().for_each(|note| say(note)),
            Err(error) => say(&format!("{error:#}")),
        }
    }

    /// Returns all values besides tensors that the step after `done` updates depends on.
    fn position(&self, done: u64) -> anyhow::Result<State> {
        let schedule = &self.job.schedule;
        let state = State {
            step: done,
            seed: self.job.seed,
            run_fingerprint: self.job.fingerprint.clone(),
            vocabulary_sha256: self.job.vocabulary_sha256.clone(),
            ..State::default()
        };
        if done < schedule.steps() {
            let next = schedule.at(done)?;
            return Ok(State {
                phase: next.phase,
                step_in_phase: next.step_in_phase,
                next_example: next.first_example,
                optimizer_steps: next.optimizer_step - 1,
                ..state
            });
        }
        let last = schedule.at(done - 1)?;
        Ok(State {
            phase: last.phase,
            step_in_phase: last.step_in_phase + 1,
            next_example: last.first_example + last.global_batch as u64,
            optimizer_steps: last.optimizer_step,
            ..state
        })
    }
}

/// Returns whether all values of an f32 tensor are finite.
fn is_finite(tensor: &HostTensor) -> bool {
    tensor.bytes().chunks_exact(4).all(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite())
}
