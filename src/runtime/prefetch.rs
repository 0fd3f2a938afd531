//! Prefetching: a separate thread builds the batch of the next step and transfers it to the devices while the current step
//! runs. It works a fixed number of steps ahead. A batch is a pure function of its step, so stopping and restarting loses no
//! data.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::compile::transfer;
use super::devices::Devices;
use crate::batch::{BatchSource, HostBatch, ReplicaRange};
use crate::optim::Hyperparameters;
use crate::pjrt::{Buffer, Client, Device};
use crate::schedule::{Schedule, StepPlan};
use crate::step::program::Value;
use crate::step::{Scalars, StepInputs};

/// Number of prefetched batches on the devices, in addition to the one in use and the one being built.
const AHEAD: usize = 1;

/// The inputs of all steps of a run.
#[derive(Clone, Debug)]
pub struct RunInputs {
    /// The schedule of the run.
    pub schedule: Schedule,
    /// The seed of the run.
    pub seed: u64,
    /// The numbers of the optimizer.
    pub hyperparameters: Hyperparameters,
    /// The batches of each phase.
    pub sources: Vec<Arc<dyn BatchSource>>,
    /// The arguments of each phase's step behind weights and optimizer state.
    pub values: Vec<Vec<Value>>,
}

/// The inputs of one step on the devices.
#[derive(Debug)]
pub struct Prefetched {
    /// The number of the step in the run, from 0.
    pub step: u64,
    /// The settings of the step.
    pub plan: StepPlan,
    /// `[device][input]`, in the order of the step's arguments behind weights and optimizer state.
    pub buffers: Vec<Vec<Buffer>>,
    /// The share of the positions that this host's devices compute without holding a token.
    pub padding: f64,
    /// The positions that all devices compute, padding included.
    pub positions: usize,
}

impl RunInputs {
    /// Builds the rows of `replicas` in the batch of step `step`: a pure function, so that hosts build the global batch
    /// without communicating.
    ///
    /// # Errors
    /// If the schedule has no such step, or the data cannot be read.
    pub fn batch(&self, step: u64, replicas: ReplicaRange) -> anyhow::Result<HostBatch> {
        let StepPlan { phase, first_example, global_batch, .. } = self.schedule.at(step)?;
        let mut batch = self.sources[phase].batch(first_example, global_batch, replicas)?;
        // The program has rows for the full batch.
        batch.pad_shares_to(replicas.count, self.schedule.phases()[phase].global_batch / replicas.of);
        Ok(batch)
    }

    fn transfer(
        &self,
        client: &Client,
        devices: &[Device],
        replicas: ReplicaRange,
        step: u64,
    ) -> anyhow::Result<Prefetched> {
        let plan = self.schedule.at(step)?;
        let batch = self.batch(step, replicas)?;
        let first_row = replicas.rows(plan.global_batch).start;
        let scalars = Scalars::new(&plan, step, self.seed, first_row, &self.hyperparameters);
        let inputs = StepInputs { batch: &batch, scalars, replicas: replicas.count };
        let buffers = transfer(client, devices, &self.values[plan.phase], &inputs)?;
        // Whole micro-batches are computed, up to the last one that holds a token.
        let of_replica = batch.occupied_rows.next_multiple_of(self.schedule.phases()[plan.phase].micro_batch_size)
            * batch.row_length;
        let padding = 1.0 - batch.tokens as f64 / (replicas.count * of_replica) as f64;
        Ok(Prefetched { step, plan, buffers, padding, positions: replicas.of * of_replica })
    }
}

/// Returns the number of rows that a replica with at most `rows` rows is expected to compute if an example takes
/// `rows_per_example` rows. Rows are dealt to the replicas in turn, so no replica has more than its share, rounded up.
pub fn rows_expected(rows: usize, rows_per_example: f64, micro_batch: usize) -> usize {
    // Most shares are no binary fractions: 20 × 0.55 is a little more than 11.
    let occupied = (rows as f64 * rows_per_example - 1e-9).ceil() as usize;
    occupied.next_multiple_of(micro_batch).min(rows)
}

/// The thread that prefetches the inputs of consecutive steps.
#[derive(Debug)]
pub struct Prefetch {
    batches: Option<Receiver<anyhow::Result<Prefetched>>>,
    thread: Option<JoinHandle<()>>,
}

impl Prefetch {
    /// Starts to prefetch the inputs of `steps`.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(inputs: RunInputs, devices: &Devices, steps: Range<u64>) -> anyhow::Result<Prefetch> {
        let (sender, batches) = sync_channel(AHEAD);
        let (client, replicas, devices) = (devices.client.clone(), devices.replica_range(), devices.devices.clone());
        let work = move || {
            for step in steps {
                let prefetched = inputs.transfer(&client, &devices, replicas, step);
                let failed = prefetched.is_err();
                // The receiver is gone when the run ends early.
                if sender.send(prefetched).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("prefetch".to_owned()).spawn(work);
        let thread = thread.context("cannot start the thread that prefetches batches")?;
        Ok(Prefetch { batches: Some(batches), thread: Some(thread) })
    }

    /// Waits for the inputs of the next step and returns them with the time spent waiting; none after the last step.
    ///
    /// # Errors
    /// The error that building or transferring them failed with.
    pub fn wait(&mut self) -> anyhow::Result<Option<(Prefetched, Duration)>> {
        let begin = Instant::now();
        let Some(batches) = &self.batches else { return Ok(None) };
        match batches.recv() {
            Ok(prefetched) => Ok(Some((prefetched?, begin.elapsed()))),
            // The thread has ended: at the end of the steps, or in a panic.
            Err(_) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(_)) => Err(anyhow!("the thread that prefetches batches panicked; its message is above")),
                _ => Ok(None),
            },
        }
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computed_rows_are_complete_micro_batches() {
        // 16 · 0.51 = 8.16: nine rows, in three micro-batches of four, in nine of one.
        assert_eq!([4, 1, 8].map(|micro_batch| rows_expected(16, 0.51, micro_batch)), [12, 9, 16]);
        assert_eq!([0.5, 0.55, 0.125, 1.0].map(|share| rows_expected(20, share, 1)), [10, 11, 3, 20]);
        assert_eq!(rows_expected(20, 0.85, 16), 20, "at most `rows` rows");
    }
}
