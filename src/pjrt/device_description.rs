//! Descriptions of devices, which exist also for the absent devices of a topology.

use std::collections::BTreeMap;

use super::api::{Api, text};
use super::error::PjrtError;
use super::named_value::{Value, named_values};
use super::sys::{self, Struct};

/// The plugin's description of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceDescription {
    /// Global id, unique over all processes.
    pub id: i32,
    /// Index of the process that the device belongs to.
    pub process_index: i32,
    /// The model, such as `NVIDIA H200` or `TPU v3`.
    pub kind: String,
    /// The plugin's printed form of the device.
    pub text: String,
    /// Further attributes, such as `coords` on a TPU or `compute_capability` on CUDA.
    pub attributes: BTreeMap<String, Value>,
}

impl DeviceDescription {
    /// Reads a description.
    ///
    /// # Safety
    /// `device_description` is alive.
    pub(super) unsafe fn read(
        api: &Api,
        device_description: *mut sys::PJRT_DeviceDescription,
    ) -> Result<Self, PjrtError> {
        let mut id = sys::PJRT_DeviceDescription_Id { device_description, ..Struct::new() };
        let mut process = sys::PJRT_DeviceDescription_ProcessIndex { device_description, ..Struct::new() };
        let mut kind = sys::PJRT_DeviceDescription_Kind { device_description, ..Struct::new() };
        let mut to_string = sys::PJRT_DeviceDescription_ToString { device_description, ..Struct::new() };
        let mut attributes = sys::PJRT_DeviceDescription_Attributes { device_description, ..Struct::new() };
        // SAFETY: the description is alive, and owns what the calls point to.
        unsafe {
            api.call(&mut id)?;
            api.call(&mut process)?;
            api.call(&mut kind)?;
            api.call(&mut to_string)?;
            api.call(&mut attributes)?;
            Ok(DeviceDescription {
                id: id.id,
                process_index: process.process_index,
                kind: text(kind.device_kind, kind.device_kind_size),
                text: text(to_string.to_string, to_string.to_string_size),
                attributes: named_values(attributes.attributes, attributes.num_attributes),
            })
        }
    }
}
