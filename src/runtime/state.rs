//! What the steps change: weights and optimizer slots, on the devices from the first step to the last. Every device holds
//! the same values, or its parts of them; a step donates them all and returns them all. On disk tensors are always whole,
//! so that a checkpoint can be resumed on any number of devices, sharded or not.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rayon::prelude::*;

use super::devices::Devices;
use super::gather::Gather;
use crate::checkpoint::{Checkpoint, arrange};
use crate::pjrt::Buffer;
use crate::shape::{DType, HostTensor, Shape};
use crate::step::sharding::Shards;
use crate::step::train_step::StepSpec;
use crate::task::ParamSpec;

/// Names and shapes of a state's tensors, in the order in which a step takes and returns them: all weights, then all
/// slots of the first kind, then all of the second.
#[derive(Clone, Debug)]
pub struct StateLayout {
    specs: Vec<ParamSpec>,
    slots: &'static [&'static str],
    /// If devices hold parts.
    shards: Option<Shards>,
}

impl StateLayout {
    /// The layout of `params` with the optimizer state `state_names` of each, replicated on every device.
    pub fn replicated(params: Vec<ParamSpec>, state_names: &'static [&'static str]) -> StateLayout {
        StateLayout { specs: params, slots: state_names, shards: None }
    }

    /// What the step of `spec` takes and returns.
    pub fn of(spec: &StepSpec) -> StateLayout {
        StateLayout {
            shards: spec.shards(),
            ..StateLayout::replicated(spec.task.parameters(), spec.optimizer.state_names())
        }
    }

    /// The learned tensors.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }

    /// Tensors of the state.
    pub fn len(&self) -> usize {
        self.specs.len() * (1 + self.slots.len())
    }

    /// Never: a model has weights.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }

    /// Names and whole shapes of the weights.
    pub fn weights(&self) -> Vec<(String, Shape)> {
        self.specs.iter().map(|spec| (spec.name.clone(), spec.shape(DType::F32))).collect()
    }

    /// Names (`m/<tensor name>`) and whole shapes of the slots.
    pub fn slots(&self) -> Vec<(String, Shape)> {
        let of_kind = |slot: &'static &'static str| {
            self.specs.iter().map(move |spec| (format!("{slot}/{}", spec.name), spec.shape(DType::F32)))
        };
        self.slots.iter().flat_map(of_kind).collect()
    }
}

/// Weights and slots on every device.
#[derive(Debug)]
pub struct TrainState {
    layout: StateLayout,
    /// `[device][tensor]`, tensors in the layout's order.
    buffers: Vec<Vec<Buffer>>,
    /// If devices hold parts.
    gather: Option<Gather>,
}

impl TrainState {
    /// First values from `seed`, slots zero.
    ///
    /// # Errors
    /// If the devices have no room.
    pub fn initial(layout: StateLayout, seed: u64, devices: &Devices) -> anyhow::Result<TrainState> {
        let weights: Vec<HostTensor> = layout.specs.par_iter().map(|spec| spec.initial(seed)).collect();
        TrainState::with_zero_slots(layout, weights, devices)
    }

    fn with_zero_slots(layout: StateLayout, weights: Vec<HostTensor>, devices: &Devices) -> anyhow::Result<TrainState> {
        let slots = layout.slots().into_iter().map(|(_, shape)| HostTensor::zeros(shape)).collect();
        TrainState::on_devices(layout, weights, slots, devices)
    }

    /// The state that `checkpoint`, read from `path`, holds. Weights that an import did not find come from `seed`; without
    /// optimizer tensors (also after an import) the slots are zero.
    ///
    /// # Errors
    /// The first tensor that is missing, unexpected or of another shape, with the file's name.
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
            return TrainState::with_zero_slots(layout, weights, devices);
        }
        let slots = arrange(&path.join("optimizer.safetensors"), checkpoint.optimizer, &layout.slots())?;
        TrainState::on_devices(layout, weights, slots, devices)
    }

    fn on_devices(
        layout: StateLayout,
        weights: Vec<HostTensor>,
        slots: Vec<HostTensor>,
        devices: &Devices,
    ) -> anyhow::Result<TrainState> {
        let gather = layout.shards.map(|shards| Gather::new(&layout.specs, shards, devices)).transpose()?;
        let mut buffers = vec![Vec::with_capacity(layout.len()); devices.devices.len()];
        for tensor in weights.into_iter().chain(slots) {
            let tensor = Arc::new(tensor);
            for ((replica, device), list) in (devices.replica_range().first..).zip(&devices.devices).zip(&mut buffers) {
                let held = match layout.shards {
                    None => tensor.clone(),
                    Some(shards) => Arc::new(shards.shard(&tensor, replica)),
                };
                let buffer = devices.client.buffer_from_host_async(held.clone(), held.shape(), device);
                list.push(buffer.context("cannot put the weights on the device")?);
            }
        }
        Ok(TrainState { layout, buffers, gather })
    }

    pub fn layout(&self) -> &StateLayout {
        &self.layout
    }

    /// The tensors on each device, `[device][tensor]`.
    pub fn buffers(&self) -> &[Vec<Buffer>] {
        &self.buffers
    }

    /// Whole weights, `[device][tensor]`: those that the devices hold, or copies put together of their parts.
    ///
    /// # Errors
    /// If the devices have no room for the copies.
    pub fn whole_weights(&self) -> anyhow::Result<Vec<Vec<Buffer>>> {
        let held = self.of_kind(0);
        let Some(gather) = &self.gather else { return Ok(held.into_iter().map(<[Buffer]>::to_vec).collect()) };
        let mut whole = vec![Vec::with_capacity(self.layout.specs.len()); held.len()];
        gather.run(&held, |group| {
            whole.iter_mut().zip(group).for_each(|(list, tensors)| list.extend(tensors));
            Ok(())
        })?;
        Ok(whole)
    }

    /// The weights (kind 0) or the slots of one kind (from 1) as the devices hold them, `[device][tensor]`.
    fn of_kind(&self, kind: usize) -> Vec<&[Buffer]> {
        let tensors = self.layout.specs.len();
        self.buffers.iter().map(|list| &list[kind * tensors..(kind + 1) * tensors]).collect()
    }

    /// Takes what a step returned in place of what it was given.
    pub fn replace(&mut self, buffers: Vec<Vec<Buffer>>) {
        self.buffers = buffers;
    }

    /// Sets the slots to zero: a phase that does not carry the moments begins.
    ///
    /// # Errors
    /// If the devices have no room.
    pub fn reset_slots(&mut self, devices: &Devices) -> anyhow::Result<()> {
        let weights = self.layout.specs.len();
        for (list, device) in self.buffers.iter_mut().zip(&devices.devices) {
            for buffer in &mut list[weights..] {
                let zeros = HostTensor::zeros(buffer.shape().clone());
                *buffer = devices.client.buffer_from_tensor(zeros, device)?;
            }
        }
        Ok(())
    }

    /// Reads weights and slots, whole, by name. Waits for the steps that are under way.
    ///
    /// # Errors
    /// The error of a step under way, or of the copy.
    #[expect(clippy::type_complexity, reason = "two lists of named tensors, as a checkpoint takes them")]
    pub fn to_host(&self) -> anyhow::Result<(Vec<(String, HostTensor)>, Vec<(String, HostTensor)>)> {
        let mut tensors: Vec<HostTensor> = Vec::with_capacity(self.layout.len());
        // Every device has the same whole tensors; the first one's are read.
        let mut read = |whole: &[Buffer]| -> anyhow::Result<()> {
            let transfers: Vec<_> = whole.iter().map(Buffer::to_host_async).collect::<Result<_, _>>()?;
            for transfer in transfers {
                tensors.push(transfer.wait()?);
            }
            Ok(())
        };
        self.whole_tensors(&mut read)?;
        let names = self.layout.weights().into_iter().chain(self.layout.slots()).map(|(name, _)| name);
        let mut weights: Vec<(String, HostTensor)> = names.zip(tensors).collect();
        let slots = weights.split_off(self.layout.specs.len());
        Ok((weights, slots))
    }

    /// Takes part in the [`TrainState::to_host`] of another host of the run, which needs the parts that are here.
    ///
    /// # Errors
    /// As there.
    pub fn lend_to_host(&self) -> anyhow::Result<()> {
        self.gather.as_ref().map_or(Ok(()), |_| self.whole_tensors(|_| Ok(())))
    }

    /// Hands the whole weights and slots of the first device to `take`, some at a time, in the layout's order.
    fn whole_tensors(&self, mut take: impl FnMut(&[Buffer]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let Some(gather) = &self.gather else { return take(&self.buffers[0]) };
        (0..=self.layout.slots.len()).try_for_each(|kind| gather.run(&self.of_kind(kind), |whole| take(&whole[0])))
    }
}
