//! The training state: weights and optimizer state, which stay on the devices from the first step to the last. They are
//! replicated or sharded. A step donates its input state and returns the new state. Checkpoints hold unsharded tensors, so that a
//! run resumes on any number of devices, sharded or not.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rayon::prelude::*;

use super::devices::Devices;
use super::gather::Gather;
use crate::checkpoint::{Checkpoint, arrange};
use crate::optim::ema;
use crate::pjrt::Buffer;
use crate::shape::{DType, HostTensor, Shape};
use crate::step::StepSpec;
use crate::step::sharding::Shards;
use crate::task::ParamSpec;

/// The names and shapes of the tensors of a training state, in the order of the arguments and results of a step: all
/// weights, then the optimizer state of the first kind (such as m), then that of the second (such as v). The averages of the
/// weights are the last kind, if a step keeps them.
#[derive(Clone, Debug)]
pub struct StateLayout {
    specs: Vec<ParamSpec>,
    state_names: Vec<&'static str>,
    /// None if the state is replicated.
    shards: Option<Shards>,
}

impl StateLayout {
    /// The layout of `params` with the optimizer state `state_names` of each, replicated on every device.
    pub fn replicated(params: Vec<ParamSpec>, state_names: &[&'static str]) -> StateLayout {
        StateLayout { specs: params, state_names: state_names.to_vec(), shards: None }
    }

    /// Returns the layout of the state in the arguments and results of the step of `spec`.
    pub fn of(spec: &StepSpec) -> StateLayout {
        StateLayout { shards: spec.shards(), ..StateLayout::replicated(spec.task.parameters(), &spec.state_names()) }
    }

    /// Returns the learned tensors.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// Returns the number of tensors of the state.
    pub fn len(&self) -> usize {
        self.specs.len() * (1 + self.state_names.len())
    }

    /// Returns whether the averages of the weights are part of the state.
    fn has_averages(&self) -> bool {
        self.state_names.last() == Some(&ema::STATE_NAME)
    }

    /// Returns false for every model: a model has weights.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Returns the names and unsharded shapes of the weights.
    pub fn weights(&self) -> Vec<(String, Shape)> {
        self.specs.iter().map(|spec| (spec.name.clone(), spec.shape(DType::F32))).collect()
    }

    /// Returns the names (`m/<tensor name>`) and unsharded shapes of the optimizer state.
    pub fn optimizer_state(&self) -> Vec<(String, Shape)> {
        let of_kind = |kind: &&'static str| {
            let kind = *kind;
            self.specs.iter().map(move |spec| (format!("{kind}/{}", spec.name), spec.shape(DType::F32)))
        };
        self.state_names.iter().flat_map(of_kind).collect()
    }
}

/// Weights and optimizer state on every device of this host.
#[derive(Debug)]
pub struct TrainState {
    layout: StateLayout,
    /// `[device][tensor]`, in the order of the layout.
    buffers: Vec<Vec<Buffer>>,
    /// None if the state is replicated.
    gather: Option<Gather>,
}

impl TrainState {
    /// Initialises weights from `seed`, the optimizer state with zeros, and the averages of the weights with the weights.
    ///
    /// # Errors
    /// If the devices are out of memory.
    pub fn initial(layout: StateLayout, seed: u64, devices: &Devices) -> anyhow::Result<TrainState> {
        let weights: Vec<HostTensor> = layout.specs.par_iter().map(|spec| spec.initial(seed)).collect();
        TrainState::before_first_step(layout, weights, devices)
    }

    fn before_first_step(
        layout: StateLayout,
        weights: Vec<HostTensor>,
        devices: &Devices,
    ) -> anyhow::Result<TrainState> {
        let averages = if layout.has_averages() { weights.clone() } else { Vec::new() };
        let of_optimizer = layout.optimizer_state().into_iter().filter(|(name, _)| ema::parameter(name).is_none());
        let zeros = of_optimizer.map(|(_, shape)| HostTensor::zeros(shape));
        let state = zeros.chain(averages).collect();
        TrainState::on_devices(layout, weights, state, devices)
    }

    /// Restores the state of `checkpoint`, which was read from `path`. Weights that an import did not find are initialised
    /// from `seed`; without optimizer tensors (as after an import) the optimizer state is zero. Averages that the checkpoint lacks
    /// begin as the weights, and those that the layout lacks are left out: the user has accepted the change.
    ///
    /// # Errors
    /// If a tensor is missing, unexpected or of another shape, with the names of the tensor and the file.
    pub fn restore(
        layout: StateLayout,
        mut checkpoint: Checkpoint,
        path: &Path,
        seed: u64,
        devices: &Devices,
    ) -> anyhow::Result<TrainState> {
        for spec in &layout.specs {
            if checkpoint.state.missing.contains(&spec.name) {
                checkpoint.model.push((spec.name.clone(), spec.initial(seed)));
            }
        }
        let weights = arrange(&path.join("model.safetensors"), checkpoint.model, &layout.weights())?;
        if checkpoint.optimizer.is_empty() {
            return TrainState::before_first_step(layout, weights, devices);
        }
        let mut optimizer = checkpoint.optimizer;
        let is_average = |(name, _): &(String, HostTensor)| ema::parameter(name).is_some();
        if !layout.has_averages() {
            optimizer.retain(|tensor| !is_average(tensor));
        } else if !optimizer.iter().any(is_average) {
            let names = layout.specs.iter().map(|spec| format!("{}/{}", ema::STATE_NAME, spec.name));
            optimizer.extend(names.zip(weights.iter().cloned()));
        }
        let optimizer = arrange(&path.join("optimizer.safetensors"), optimizer, &layout.optimizer_state())?;
        TrainState::on_devices(layout, weights, optimizer, devices)
    }

    fn on_devices(
        layout: StateLayout,
        weights: Vec<HostTensor>,
        optimizer: Vec<HostTensor>,
        devices: &Devices,
    ) -> anyhow::Result<TrainState> {
        let gather = layout.shards.map(|shards| Gather::new(&layout.specs, shards, devices)).transpose()?;
        let mut buffers = vec![Vec::with_capacity(layout.len()); devices.devices.len()];
        for tensor in weights.into_iter().chain(optimizer) {
            let tensor = Arc::new(tensor);
            for ((replica, device), list) in (devices.replica_range().first..).zip(&devices.devices).zip(&mut buffers) {
                let local = match layout.shards {
                    None => tensor.clone(),
                    Some(shards) => Arc::new(shards.shard(&tensor, replica)),
                };
                let buffer = devices.client.buffer_from_host_async(local.clone(), local.shape(), device);
                list.push(buffer.context("cannot transfer the weights to the device")?);
            }
        }
        Ok(TrainState { layout, buffers, gather })
    }

    /// Returns the names and shapes of the tensors.
    pub fn layout(&self) -> &StateLayout {
        &self.layout
    }

    /// Returns the tensors on each device, `[device][tensor]`.
    pub fn buffers(&self) -> &[Vec<Buffer>] {
        &self.buffers
    }

    /// Returns unsharded weights, `[device][tensor]`: those of a replicated state, or all-gathered copies.
    ///
    /// # Errors
    /// If the devices are out of memory for the copies.
    pub fn unsharded_weights(&self) -> anyhow::Result<Vec<Vec<Buffer>>> {
        self.unsharded(0)
    }

    /// Returns the unsharded averages of the weights as [`TrainState::unsharded_weights`] does; none if there are none.
    ///
    /// # Errors
    /// If the devices are out of memory for the copies.
    pub fn unsharded_averages(&self) -> anyhow::Result<Option<Vec<Vec<Buffer>>>> {
        self.layout.has_averages().then(|| self.unsharded(self.layout.state_names.len())).transpose()
    }

    /// Returns the unsharded tensors of one kind, as [`TrainState::of_kind`] counts them.
    fn unsharded(&self, kind: usize) -> anyhow::Result<Vec<Vec<Buffer>>> {
        let local = self.of_kind(kind);
        let Some(gather) = &self.gather else { return Ok(local.into_iter().map(<[Buffer]>::to_vec).collect()) };
        let mut unsharded = vec![Vec::with_capacity(self.layout.specs.len()); local.len()];
        gather.run(&local, |group| {
            unsharded.iter_mut().zip(group).for_each(|(list, tensors)| list.extend(tensors));
            Ok(())
        })?;
        Ok(unsharded)
    }

    /// Returns the weights (kind 0) or the optimizer state of one kind (from 1) as the devices hold them, `[device][tensor]`.
    fn of_kind(&self, kind: usize) -> Vec<&[Buffer]> {
        let tensors = self.layout.specs.len();
        self.buffers.iter().map(|list| &list[kind * tensors..(kind + 1) * tensors]).collect()
    }

    /// Replaces the tensors, which a step has consumed, by those that it returned.
    pub fn replace(&mut self, buffers: Vec<Vec<Buffer>>) {
        self.buffers = buffers;
    }

    /// Sets the optimizer state to zero, for a phase that does not carry the moments over. The averages of the weights go on.
    ///
    /// # Errors
    /// If the devices are out of memory.
    pub fn reset_optimizer_state(&mut self, devices: &Devices) -> anyhow::Result<()> {
        let weights = self.layout.specs.len();
        let end = self.layout.len() - if self.layout.has_averages() { weights } else { 0 };
        for (list, device) in self.buffers.iter_mut().zip(&devices.devices) {
            for buffer in &mut list[weights..end] {
                let zeros = HostTensor::zeros(buffer.shape().clone());
                *buffer = devices.client.buffer_from_tensor(zeros, device)?;
            }
        }
        Ok(())
    }

    /// Reads unsharded weights and optimizer state by name. Waits for the steps that are under way.
    ///
    /// # Errors
    /// If a step under way or the copy failed.
    #[expect(clippy::type_complexity, reason = "two lists of named tensors, as a checkpoint takes them")]
    pub fn to_host(&self) -> anyhow::Result<(Vec<(String, HostTensor)>, Vec<(String, HostTensor)>)> {
        let mut host: Vec<HostTensor> = Vec::with_capacity(self.layout.len());
        // Every device has the same unsharded tensors; those of the first are read.
        let mut read = |tensors: &[Buffer]| -> anyhow::Result<()> {
            let transfers: Vec<_> = tensors.iter().map(Buffer::to_host_async).collect::<Result<_, _>>()?;
            for transfer in transfers {
                host.push(transfer.wait()?);
            }
            Ok(())
        };
        self.unsharded_tensors(&mut read)?;
        let names = self.layout.weights().into_iter().chain(self.layout.optimizer_state()).map(|(name, _)| name);
        let mut weights: Vec<(String, HostTensor)> = names.zip(host).collect();
        let optimizer = weights.split_off(self.layout.specs.len());
        Ok((weights, optimizer))
    }

    /// Participates in the [`TrainState::to_host`] of another host of the run, which gathers the shards of this one.
    ///
    /// # Errors
    /// As [`TrainState::to_host`].
    pub fn participate_in_to_host(&self) -> anyhow::Result<()> {
        self.gather.as_ref().map_or(Ok(()), |_| self.unsharded_tensors(|_| Ok(())))
    }

    /// Calls `take` with the unsharded tensors of the first device, some at a time, in the order of the layout.
    fn unsharded_tensors(&self, mut take: impl FnMut(&[Buffer]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Some(gather) = &self.gather else { return take(&self.buffers[0]) };
        (0..=self.layout.state_names.len())
            .try_for_each(|kind| gather.run(&self.of_kind(kind), |unsharded| take(&unsharded[0])))
    }
}
