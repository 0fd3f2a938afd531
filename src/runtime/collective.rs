//! Words that every replica gives and every host gets: an all-gather, for the few things besides gradients that the hosts
//! of a run must tell each other while it runs. It goes the way that the steps go, between the devices, and so needs
//! nothing that a step does not.

use anyhow::{Context, ensure};

use super::compile::Compiled;
use super::devices::Devices;
use crate::graph::Graph;
use crate::pjrt::{Buffer, Client, Device, HostTransfer};
use crate::shape::{DType, HostTensor, Shape};
use crate::step::program::{Arguments, Program, Results, Role};

/// A compiled exchange of `width` words a replica.
#[derive(Debug)]
pub struct Exchange {
    compiled: Compiled,
    client: Client,
    devices: Vec<Device>,
    width: usize,
}

/// An exchange under way.
pub struct Exchanging {
    gathered: HostTransfer,
    width: usize,
}

impl Exchange {
    /// # Errors
    /// What the compiler says.
    pub fn new(devices: &Devices, width: usize) -> anyhow::Result<Exchange> {
        let compiled = Compiled::new(devices, || Ok(program(width, devices.len())))?;
        Ok(Exchange { compiled, client: devices.client.clone(), devices: devices.devices.clone(), width })
    }

    /// Words of a replica.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Gives the words of each device of this host. Every host must call this the same number of times, at the same points
    /// among the steps.
    ///
    /// # Errors
    /// If the plugin refuses.
    pub fn start(&self, words: &[Vec<u32>]) -> anyhow::Result<Exchanging> {
        ensure!(
            words.len() == self.devices.len() && words.iter().all(|row| row.len() == self.width),
            "an exchange requires {} words for each of {} devices",
            self.width,
            self.devices.len()
        );
        let put = |(row, device): (&Vec<u32>, &Device)| {
            self.client.buffer_from_tensor(HostTensor::new([1, self.width], row), device)
        };
        let buffers: Vec<Buffer> = words.iter().zip(&self.devices).map(put).collect::<Result<_, _>>()?;
        let arguments: Vec<Vec<&Buffer>> = buffers.iter().map(|buffer| vec![buffer]).collect();
        let outputs = self.compiled.executable.execute(&arguments).context("the exchange between the hosts")?;
        Ok(Exchanging { gathered: outputs[0][0].to_host_async()?, width: self.width })
    }
}

impl Exchanging {
    /// The words of every replica of the run, in order.
    ///
    /// # Errors
    /// If it failed on the device: a host has gone, for example.
    pub fn wait(self) -> anyhow::Result<Vec<Vec<u32>>> {
        let words = self.gathered.wait().context("the exchange between the hosts failed")?.to_vec::<u32>()?;
        Ok(words.chunks(self.width).map(<[u32]>::to_vec).collect())
    }
}

/// u32\[1, width\] of each replica → u32\[replicas, width\] on all.
fn program(width: usize, replicas: usize) -> Program {
    let graph = Graph::new("exchange");
    let mut arguments = Arguments::new(&graph);
    let words = arguments.add("words", Role::Report, Shape::new(DType::U32, [1, width]));
    let mut results = Results::default();
    results.add("gathered", Role::Report, words.all_gather(0, replicas));
    Program::new(arguments, results, Vec::new(), replicas)
}
