//! Runs a model on many examples of different lengths: examples are sorted by length and divided into batches, and a batch has
//! one of a few row lengths, so that little padding is computed and few programs are compiled.

use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use crate::batch::HostBatch;
use crate::data::LabelledExamples;
use crate::pjrt::{Buffer, HostTransfer};
use crate::run::weights::FoundModel;
use crate::runtime::compile::Compiled;
use crate::runtime::devices::Devices;
use crate::runtime::state::{StateLayout, TrainState};
use crate::step::{ForwardSpec, ForwardStep, Scalars, StepInputs};
use crate::task::{Model, ParamSpec, Precision};

/// Batches in progress: the next batch is built while one runs.
const AHEAD: usize = 2;
/// The shortest row.
const SHORTEST_ROW: usize = 8;

/// Tokenized examples of different lengths.
pub trait Examples {
    /// Returns the number of examples.
    fn count(&self) -> usize;

    /// Returns the number of tokens of an example, special tokens included: at most [`Examples::longest`].
    fn tokens(&self, example: usize) -> usize;

    /// Returns the length of the longest row.
    fn longest(&self) -> usize;

    /// Builds rows of some examples, of `row_length` positions each. The batch has the inputs of the model, and may have more.
    fn select(&self, examples: &[usize], row_length: usize) -> HostBatch;
}

impl Examples for LabelledExamples {
    fn count(&self) -> usize {
        self.len()
    }

    fn tokens(&self, example: usize) -> usize {
        LabelledExamples::tokens(self, example)
    }

    fn longest(&self) -> usize {
        self.form().sequence_length
    }

    fn select(&self, examples: &[usize], row_length: usize) -> HostBatch {
        LabelledExamples::select(self, examples, row_length)
    }
}

/// The computation of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardSettings {
    /// The precision of the matrix products.
    pub precision: Precision,
    /// Rows per device and batch, at most.
    pub micro_batch_size: usize,
}

impl Default for ForwardSettings {
    fn default() -> Self {
        ForwardSettings { precision: Precision::F32, micro_batch_size: 32 }
    }
}

/// Returns the model on rows of a given length. Its parameters do not depend on the length.
pub type ModelOfLength = Box<dyn Fn(usize) -> Arc<dyn Model> + Send + Sync>;

/// The weights of a model on the devices, in the order of its parameters: `[device][tensor]`.
#[derive(Clone, Debug)]
pub struct Weights(Vec<Vec<Buffer>>);

/// A model on devices, compiled once for each shape of a batch that occurs.
pub struct Forward {
    devices: Devices,
    settings: ForwardSettings,
    model: ModelOfLength,
    /// By rows of a device, and length of a row.
    programs: BTreeMap<(usize, usize), Compiled>,
}

/// A batch on the devices whose outputs have not been read.
struct Running<'e> {
    examples: &'e [usize],
    /// Rows of all devices.
    rows: usize,
    /// `[output][device]`
    outputs: Vec<Vec<HostTransfer>>,
}

impl Forward {
    /// Takes the devices of this host and a model. Compiles nothing yet.
    pub fn new(devices: &Devices, settings: ForwardSettings, model: ModelOfLength) -> Forward {
        Forward { devices: devices.clone(), settings, model, programs: BTreeMap::new() }
    }

    /// Loads the weights of a saved model onto the devices. Tensors that this model does not have are left out.
    ///
    /// # Errors
    /// If the saved model lacks a tensor, or a device is out of memory.
    pub fn load(&self, saved: FoundModel) -> anyhow::Result<Weights> {
        let FoundModel { mut checkpoint, path, .. } = saved;
        let params = self.parameters();
        let is_used = |name: &String| params.iter().any(|param| param.name == *name);
        if let Some(lacking) = checkpoint.state.missing.iter().find(|name| is_used(name)) {
            bail!(
                "{} requires the tensor {lacking} for this prediction, got a model without it; name a model that was trained \
                 with this head",
                path.display()
            );
        }
        checkpoint.model.retain(|(name, _)| is_used(name));
        let layout = StateLayout::replicated(params, &[]);
        let state = TrainState::restore(layout, checkpoint, &path, 0, &self.devices)?;
        Ok(Weights(state.buffers().to_vec()))
    }

    /// Selects the weights of this model among those of a model with parameters `specs`: `buffers[device][tensor]`, for the
    /// devices of this forward pass.
    ///
    /// # Errors
    /// If the other model lacks a tensor, or has it in another shape.
    pub fn select(&self, specs: &[ParamSpec], buffers: &[Vec<Buffer>]) -> anyhow::Result<Weights> {
        let place = |param: &ParamSpec| {
            let found = specs.iter().position(|spec| spec.name == param.name && spec.dims == param.dims);
            found.with_context(|| format!("the weights lack the tensor {} {:?}", param.name, param.dims))
        };
        let places: Vec<usize> = self.parameters().iter().map(place).collect::<anyhow::Result<_>>()?;
        let of_device = |tensors: &Vec<Buffer>| places.iter().map(|&place| tensors[place].clone()).collect();
        Ok(Weights(buffers.iter().map(of_device).collect()))
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        (self.model)(SHORTEST_ROW).parameters()
    }

    /// Runs the model on all examples and calls `of_example` with each example and its part of every output, flat, in the
    /// order of [`Model::outputs`]: of an output `[B, S, C]` the `S · C` values of its row, S being the length of the row.
    /// Returns the results in the order of the examples.
    ///
    /// # Errors
    /// If a program cannot be compiled, or a device fails.
    pub fn map<T>(
        &mut self,
        weights: &Weights,
        examples: &dyn Examples,
        mut of_example: impl FnMut(usize, &[&[f32]]) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<T>> {
        ensure!(self.settings.precision != Precision::F64, "predictions require precision f32 or bf16, got f64");
        ensure!(self.settings.micro_batch_size > 0, "micro_batch_size requires at least 1, got 0");
        // The longest first: a device that has too little memory fails at once.
        let mut order: Vec<usize> = (0..examples.count()).collect();
        order.sort_by_key(|&example| Reverse(examples.tokens(example)));
        let devices = self.devices.devices.len();
        let rows = self.settings.micro_batch_size.min(order.len().div_ceil(devices).next_power_of_two());

        let mut results: Vec<Option<T>> = order.iter().map(|_| None).collect();
        let mut batches = order.chunks(rows * devices);
        let mut under_way: VecDeque<Running> = VecDeque::new();
        loop {
            while under_way.len() < AHEAD
                && let Some(batch) = batches.next()
            {
                under_way.push_back(self.launch(weights, examples, batch, rows)?);
            }
            let Some(running) = under_way.pop_front() else { break };
            running.read(|example, outputs| {
                results[example] = Some(of_example(example, outputs)?);
                Ok(())
            })?;
        }
        Ok(results.into_iter().map(|result| result.expect("each example is in one batch")).collect())
    }

    fn launch<'e>(
        &mut self,
        weights: &Weights,
        examples: &dyn Examples,
        batch: &'e [usize],
        rows: usize,
    ) -> anyhow::Result<Running<'e>> {
        let tokens = batch.iter().map(|&example| examples.tokens(example)).max().unwrap_or(0);
        let length = row_length(tokens, examples.longest());
        let replicas = self.devices.devices.len();
        let mut host = examples.select(batch, length);
        host.pad_to(rows * replicas);
        self.compile(rows, length)?;
        let program = &self.programs[&(rows, length)];
        let inputs = StepInputs { batch: &host, scalars: Scalars::FORWARD, replicas };
        let launched = program.run(&self.devices, &weights.0, &inputs)?;
        let read = |name: &str| -> anyhow::Result<Vec<HostTransfer>> {
            let buffers = launched.results(name)?.into_iter();
            buffers.map(|buffer| Ok(buffer.to_host_async()?)).collect()
        };
        let outputs = program.outputs.iter().map(|value| read(&value.name)).collect::<anyhow::Result<_>>()?;
        Ok(Running { examples: batch, rows: rows * replicas, outputs })
    }

    /// Compiles the program for `rows` rows of `length` positions, unless it is compiled already.
    fn compile(&mut self, rows: usize, length: usize) -> anyhow::Result<()> {
        if let Entry::Vacant(entry) = self.programs.entry((rows, length)) {
            let (precision, replicas) = (self.settings.precision, self.devices.devices.len());
            let spec = ForwardSpec { model: (self.model)(length), precision, rows, replicas };
            entry.insert(Compiled::new(&self.devices, || Ok(ForwardStep::build(&spec)?.program))?);
        }
        Ok(())
    }
}

impl Running<'_> {
    /// Waits for the outputs and calls `of_row` with each example and its row of every output.
    fn read(self, mut of_row: impl FnMut(usize, &[&[f32]]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut outputs: Vec<Vec<f32>> = Vec::with_capacity(self.outputs.len());
        for of_devices in self.outputs {
            let mut output = Vec::new();
            for transfer in of_devices {
                output.extend(transfer.wait().context("a prediction failed on the device")?.to_vec::<f32>()?);
            }
            outputs.push(output);
        }
        for (row, &example) in self.examples.iter().enumerate() {
            let part = |output: &Vec<f32>| {
                let width = output.len() / self.rows;
                row * width..(row + 1) * width
            };
            let values: Vec<&[f32]> = outputs.iter().map(|output| &output[part(output)]).collect();
            of_row(example, &values)?;
        }
        Ok(())
    }
}

/// Returns the length of a row for `tokens` tokens: the next power of two or three times a power of two, at most `longest`. There
/// are thus two lengths for each doubling, and at most a third of a row is padding.
fn row_length(tokens: usize, longest: usize) -> usize {
    let power = tokens.next_power_of_two().max(SHORTEST_ROW);
    let between = power / 4 * 3;
    let length = if between >= tokens.max(SHORTEST_ROW) { between } else { power };
    length.min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_few_lengths_and_hold_their_tokens() {
        let lengths: Vec<usize> = (1..=512).map(|tokens| row_length(tokens, 512)).collect();
        assert!(lengths.iter().zip(1..).all(|(&length, tokens)| length >= tokens));
        let mut different = lengths.clone();
        different.dedup();
        assert_eq!(different, [8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]);
        assert_eq!((row_length(17, 20), row_length(3, 5)), (20, 5));
    }
}
