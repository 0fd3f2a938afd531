//! The next batch is made and sent to the devices while the step before it runs. A thread of its own does both, a fixed
//! number of steps ahead; what it makes is a pure function of the step, so stopping and starting it loses nothing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::devices::Devices;
use crate::data::{Batch, Examples};
use crate::pjrt::{Buffer, Client, Device};
use crate::schedule::{Schedule, StepPlan};
use crate::shape::Shape;

/// Batches that wait on the devices, beside the one in use and the one being made.
const AHEAD: usize = 1;

/// The inputs of one step, on the devices.
#[derive(Debug)]
pub struct Fed {
    /// The step's number in the run, from 0.
    pub step: u64,
    pub plan: StepPlan,
    /// The batch's tensors in [`Batch::tensors`]' order, `[device][tensor]`.
    pub buffers: Vec<Vec<Buffer>>,
    /// Positions of the batch that hold a token.
    pub real_tokens: usize,
}

/// A source of batches, running ahead.
#[derive(Debug)]
pub struct Feed {
    batches: Option<Receiver<anyhow::Result<Fed>>>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts to make the batches of `steps`; `examples` has those of each phase.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(
        schedule: Schedule,
        examples: Vec<Arc<Examples>>,
        devices: &Devices,
        steps: Range<u64>,
    ) -> anyhow::Result<Feed> {
        let (sender, batches) = sync_channel(AHEAD);
        let (client, devices) = (devices.client.clone(), devices.devices.clone());
        let make = move |step: u64| -> anyhow::Result<Fed> {
            let plan = schedule.at(step)?;
            let batch = examples[plan.phase].batch(plan.first_example, plan.global_batch)?;
            let buffers = send(&client, &devices, &batch)?;
            Ok(Fed { step, plan, buffers, real_tokens: batch.real_tokens() })
        };
        let work = move || {
            for step in steps {
                let fed = make(step);
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
    pub fn next(&mut self) -> anyhow::Result<Option<(Fed, Duration)>> {
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

/// Divides the rows of `batch` among the devices in order and sends each its part.
///
/// # Errors
/// If the plugin refuses a transfer.
pub fn send(client: &Client, devices: &[Device], batch: &Batch) -> anyhow::Result<Vec<Vec<Buffer>>> {
    let rows = batch.rows / devices.len();
    let mut buffers = vec![Vec::new(); devices.len()];
    for (_, tensor) in batch.tensors() {
        let mut dims = tensor.shape().dims.clone();
        dims[0] = rows;
        let shape = Shape::new(tensor.shape().dtype, dims);
        if let [device] = devices {
            buffers[0].push(client.buffer_from_host_async(tensor, &shape, device)?);
            continue;
        }
        for ((part, device), list) in tensor.bytes().chunks_exact(shape.bytes()).zip(devices).zip(&mut buffers) {
            list.push(client.buffer_from_host_async(part.to_vec(), &shape, device)?);
        }
    }
    Ok(buffers)
}
