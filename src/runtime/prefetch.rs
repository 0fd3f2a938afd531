//! The next batch is made and sent to the devices while the step before it runs. A thread of its own does both, a fixed
//! number of steps ahead; what it makes is a pure function of the step, so stopping and starting it loses nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};

use super::devices::{Devices, Share};
use crate::data::{Batch, Dataset};
use crate::pjrt::{Buffer, Client, Device};
use crate::schedule::{Schedule, StepPlan};
use crate::shape::HostTensor;
use crate::step::program::{Role, Value};

/// Batches that wait on the devices, beside the one in use and the one being made.
const AHEAD: usize = 1;

/// What a run feeds its steps from.
#[derive(Clone, Debug)]
pub struct Source {
    pub schedule: Schedule,
    pub seed: u64,
    /// The examples of each phase.
    pub examples: Vec<Arc<Dataset>>,
    /// How many of them a row holds at most, in each phase: 1 for plain rows.
    pub sequences_per_row: Vec<usize>,
    /// What each phase's step takes beside weights and slots.
    pub inputs: Vec<Vec<Value>>,
}

/// The inputs of one step, on the devices.
#[derive(Debug)]
pub struct Fed {
    /// The step's number in the run, from 0.
    pub step: u64,
    pub plan: StepPlan,
    /// `[device][input]`, in the order of the step's inputs behind weights and slots.
    pub buffers: Vec<Vec<Buffer>>,
    /// Share of the positions that this host's devices compute that hold no token.
    pub padding: f64,
    /// Positions that all devices compute, padding included.
    pub positions: usize,
}

impl Source {
    /// A host's rows of the batch of step `step`: a pure function, so that the hosts need not talk to each other to make
    /// one batch together.
    ///
    /// # Errors
    /// If the schedule has no such step, or a shard cannot be read any more.
    pub fn batch(&self, step: u64, share: Share) -> anyhow::Result<Batch> {
        let StepPlan { phase, first_example, global_batch, .. } = self.schedule.at(step)?;
        let examples = &self.examples[phase];
        Ok(match self.sequences_per_row[phase] {
            1 => {
                let rows = share.rows(global_batch);
                examples.batch(first_example + rows.start as u64, rows.len())?
            }
            most => {
                let replicas = share.first..share.first + share.count;
                examples.packed_batch(first_example, global_batch, most, replicas, share.of)?
            }
        })
    }

    /// Makes the inputs of step `step`.
    fn make(&self, client: &Client, devices: &[Device], share: Share, step: u64) -> anyhow::Result<Fed> {
        let plan = self.schedule.at(step)?;
        let batch = self.batch(step, share)?;
        let scalars = Scalars::of(&plan, step, self.seed, share.rows(plan.global_batch).start);
        let buffers = send(client, devices, &self.inputs[plan.phase], &batch, &scalars)?;
        let of_replica = rows_taken(&batch, plan.micro_batch_size, share.count) * batch.sequence_length;
        let padding = 1.0 - batch.real_tokens() as f64 / (share.count * of_replica) as f64;
        Ok(Fed { step, plan, buffers, padding, positions: share.of * of_replica })
    }
}

/// Rows that each of `replicas` computes: all of plain ones, and whole micro-batches of packed ones up to the last that holds
/// a token on any replica.
fn rows_taken(batch: &Batch, micro_batch: usize, replicas: usize) -> usize {
    let rows = batch.rows / replicas;
    if batch.packed.is_none() {
        return rows;
    }
    let is_filled = |row: &[i32]| row[0] > 0;
    let filled = |block: &[i32]| block.chunks(batch.sequence_length).rposition(is_filled).map_or(0, |last| last + 1);
    let blocks = batch.attention_mask.chunks(rows * batch.sequence_length);
    blocks.map(filled).max().unwrap_or(0).next_multiple_of(micro_batch)
}

/// [`rows_taken`] by a replica that has room for `rows`, where there is no batch yet and a sequence takes `rows_per_sequence`
/// of them. Rows are dealt to the replicas in turn, so none has more than its share, rounded up.
pub fn rows_expected(rows: usize, rows_per_sequence: f64, micro_batch: usize) -> usize {
    // Most shares are no binary fractions: 20 × 0.55 is a little more than 11.
    let filled = (rows as f64 * rows_per_sequence - 1e-9).ceil() as usize;
    filled.next_multiple_of(micro_batch).min(rows)
}

/// A source of batches, running ahead.
#[derive(Debug)]
pub struct Feed {
    batches: Option<Receiver<anyhow::Result<Fed>>>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts to make the inputs of `steps`.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(source: Source, devices: &Devices, steps: Range<u64>) -> anyhow::Result<Feed> {
        let (sender, batches) = sync_channel(AHEAD);
        let (client, share, devices) = (devices.client.clone(), devices.share(), devices.devices.clone());
        let work = move || {
            for step in steps {
                let fed = source.make(&client, &devices, share, step);
                let failed = fed.is_err();
                // The receiver is gone when the run ends early.
                if sender.send(fed).is_err() || failed {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("feed".to_owned()).spawn(work);
        Ok(Feed { batches: Some(batches), thread: Some(thread.context("cannot start the thread that makes batches")?) })
    }

    /// The next step's inputs, and how long the run had to wait for them; none after the last.
    ///
    /// # Errors
    /// What went wrong while they were made.
    pub fn wait(&mut self) -> anyhow::Result<Option<(Fed, Duration)>> {
        let begin = Instant::now();
        let Some(batches) = &self.batches else { return Ok(None) };
        match batches.recv() {
            Ok(fed) => Ok(Some((fed?, begin.elapsed()))),
            // The thread has ended: at the end of the steps, or in a panic.
            Err(_) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(_)) => Err(anyhow!("the thread that makes batches has panicked; its message is above")),
                _ => Ok(None),
            },
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Without a receiver the thread's next send fails, and it ends.
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The inputs of a step that are no tensors of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalars {
    pub learning_rate: f64,
    /// For bias correction, from 1.
    pub optimizer_step: u64,
    /// For dropout: the step's number in the run, from 0.
    pub step: u64,
    pub seed: u64,
    /// Where the rows that are sent begin in the global batch.
    pub first_row: usize,
}

impl Scalars {
    pub fn of(plan: &StepPlan, step: u64, seed: u64, first_row: usize) -> Scalars {
        let StepPlan { learning_rate, optimizer_step, .. } = *plan;
        Scalars { learning_rate, optimizer_step, step, seed, first_row }
    }

    /// The input `name` of the replica whose first row of the global batch is `first_row`.
    fn input(&self, name: &str, first_row: usize) -> anyhow::Result<HostTensor> {
        Ok(match name {
            "learning_rate" => HostTensor::scalar(self.learning_rate as f32),
            "optimizer_step" => HostTensor::scalar(i32::try_from(self.optimizer_step)?),
            "step" => HostTensor::scalar(u32::try_from(self.step)?),
            "first_row" => HostTensor::scalar(u32::try_from(first_row)?),
            "seed" => HostTensor::new([2], &[self.seed as u32, (self.seed >> 32) as u32]),
            _ => bail!("the step asks for an input {name:?} that nothing feeds"),
        })
    }
}

/// Sends each of `inputs` to the devices, which divide the rows of `batch` among themselves in order.
///
/// # Errors
/// If the plugin refuses a transfer.
pub fn send(
    client: &Client,
    devices: &[Device],
    inputs: &[Value],
    batch: &Batch,
    scalars: &Scalars,
) -> anyhow::Result<Vec<Vec<Buffer>>> {
    let rows = batch.rows / devices.len();
    let mut tensors = batch.tensors();
    let mut buffers = vec![Vec::with_capacity(inputs.len()); devices.len()];
    for input in inputs {
        if input.role != Role::Batch {
            for (replica, (device, list)) in devices.iter().zip(&mut buffers).enumerate() {
                let value = scalars.input(&input.name, scalars.first_row + replica * rows)?;
                list.push(client.buffer_from_tensor(value, device)?);
            }
            continue;
        }
        let Some((_, tensor)) = tensors.iter_mut().find(|(name, _)| *name == input.name) else {
            bail!("the step asks for an input {:?} that no batch has", input.name)
        };
        if let [device] = devices {
            let whole = std::mem::replace(tensor, HostTensor::scalar(0i32));
            buffers[0].push(client.buffer_from_host_async(whole, &input.shape, device)?);
            continue;
        }
        for ((part, device), list) in tensor.bytes().chunks_exact(input.shape.bytes()).zip(devices).zip(&mut buffers) {
            list.push(client.buffer_from_host_async(part.to_vec(), &input.shape, device)?);
        }
    }
    Ok(buffers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_of_a_packed_step_are_whole_micro_batches() {
        // 16 · 0.51 = 8.16: nine rows, in three micro-batches of four, in nine of one.
        assert_eq!([4, 1, 8].map(|micro_batch| rows_expected(16, 0.51, micro_batch)), [12, 9, 16]);
        assert_eq!([0.5, 0.55, 0.125, 1.0].map(|share| rows_expected(20, share, 1)), [10, 11, 3, 20]);
        assert_eq!(rows_expected(20, 0.85, 16), 20, "no more rows than there is room for");
    }
}
