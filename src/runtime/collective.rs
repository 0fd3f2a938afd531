//! An all-gather of 32-bit words over all replicas, for the few values besides gradients that hosts share during a run. It
//! runs on the devices, over the same links as a step's collectives, so it needs no other connection between hosts.

use anyhow::{Context, ensure};

use super::compile::Compiled;
use super::devices::Devices;
use crate::graph::Graph;
use crate::pjrt::{Buffer, Client, Device, HostTransfer};
use crate::shape::{DType, HostTensor, Shape};
use crate::step::program::{Arguments, Program, Results, Role};

/// A compiled all-gather of `width` words per replica.
#[derive(Debug)]
pub struct AllGather {
    compiled: Compiled,
    client: Client,
    devices: Vec<Device>,
    width: usize,
}

/// An all-gather that was started and whose result has not been read.
pub struct PendingAllGather {
    gathered: HostTransfer,
    width: usize,
}

impl AllGather {
    /// Compiles the program.
    ///
    /// # Errors
    /// If compilation fails.
    pub fn new(devices: &Devices, width: usize) -> anyhow::Result<AllGather> {
        let compiled = Compiled::new(devices, || Ok(program(width, devices.len())))?;
        Ok(AllGather { compiled, client: devices.client.clone(), devices: devices.devices.clone(), width })
    }

    /// Returns the number of words per replica.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Starts an all-gather with the words of each device of this host. Every host must call this the same number of times,
    /// at the same points between the steps.
    ///
    /// # Errors
    /// If the number of words is wrong, or the plugin reports an error.
    pub fn start(&self, words: &[Vec<u32>]) -> anyhow::Result<PendingAllGather> {
        ensure!(
            words.len() == self.devices.len() && words.iter().all(|row| row.len() == self.width),
            "an all-gather requires {} words for each of {} devices",
            self.width,
            self.devices.len()
        );
        let put = |(row, device): (&Vec<u32>, &Device)| {
            self.client.buffer_from_tensor(HostTensor::new([1, self.width], row), device)
        };
        let buffers: Vec<Buffer> = words.iter().zip(&self.devices).map(put).collect::<Result<_, _>>()?;
        let arguments: Vec<Vec<&Buffer>> = buffers.iter().map(|buffer| vec![buffer]).collect();
        let outputs =
            self.compiled.executable.execute(&arguments).context("cannot start the all-gather between hosts")?;
        Ok(PendingAllGather { gathered: outputs[0][0].to_host_async()?, width: self.width })
    }
}

impl PendingAllGather {
    /// Waits for the words of every replica of the run, in order.
    ///
    /// # Errors
    /// If it failed on the device, for example because a host was lost.
    pub fn wait(self) -> anyhow::Result<Vec<Vec<u32>>> {
        let words = self.gathered.wait().context("the all-gather between hosts failed")?.to_vec::<u32>()?;
        Ok(words.chunks(self.width).map(<[u32]>::to_vec).collect())
    }
}

/// u32\[1, width\] of each replica → u32\[replicas, width\] on all.
fn program(width: usize, replicas: usize) -> Program {
    let graph = Graph::new("host_all_gather");
    let mut arguments = Arguments::new(&graph);
    let words = arguments.add("words", Role::Report, Shape::new(DType::U32, [1, width]));
    let mut results = Results::default();
    results.add("gathered", Role::Report, words.all_gather(0, replicas));
    Program::new(arguments, results, Vec::new(), replicas)
}
