//! A device: where buffers live and programs run. A [`DeviceDescription`] is what can be said of one that is not here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::api::{Api, text};
use super::client::{Client, ClientHandle};
use super::error::PjrtError;
use super::named_value::{Value, named_values};
use super::sys::{self, Struct};

/// What a plugin says of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceDescription {
    /// Unique over all processes of the run.
    pub id: i32,
    /// The process that can address it.
    pub process_index: i32,
    /// The model, such as `NVIDIA H200` or `TPU v3`.
    pub kind: String,
    /// The plugin's own sentence about it.
    pub text: String,
    /// Further facts, such as `coords` on a TPU or `compute_capability` on CUDA.
    pub attributes: BTreeMap<String, Value>,
}

impl DeviceDescription {
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

/// A device of a client. Clones are the same device.
#[derive(Clone)]
pub struct Device {
    pub(super) client: Arc<ClientHandle>,
    /// Lives as long as the client.
    pub(super) raw: *mut sys::PJRT_Device,
    pub(super) description: Arc<DeviceDescription>,
}

// SAFETY: the C API's functions on a device only read; the device lives as long as the client held here.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// Memory of a device, in bytes. What a plugin does not count is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStats {
    pub bytes_in_use: i64,
    pub peak_bytes_in_use: Option<i64>,
    /// What the allocator may take of the device.
    pub bytes_limit: Option<i64>,
    pub largest_alloc_size: Option<i64>,
    pub num_allocs: Option<i64>,
    pub largest_free_block_bytes: Option<i64>,
}

impl Device {
    /// Unique over all processes of the run.
    pub fn id(&self) -> i32 {
        self.description.id
    }

    pub fn kind(&self) -> &str {
        &self.description.kind
    }

    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    pub fn client(&self) -> Client {
        Client { handle: self.client.clone() }
    }

    /// Its number in this machine, such as the CUDA ordinal.
    pub fn local_hardware_id(&self) -> Result<i32, PjrtError> {
        let mut args = sys::PJRT_Device_LocalHardwareId { device: self.raw, ..Struct::new() };
        // SAFETY: the device lives as long as the client.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.local_hardware_id)
    }

    /// Whether this process can put buffers on it and run programs there.
    pub fn is_addressable(&self) -> Result<bool, PjrtError> {
        let mut args = sys::PJRT_Device_IsAddressable { device: self.raw, ..Struct::new() };
        // SAFETY: the device lives as long as the client.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.is_addressable)
    }

    /// How much of its memory is used.
    ///
    /// # Errors
    /// Plugins that do not count, such as CPU ones, answer UNIMPLEMENTED.
    pub fn memory_stats(&self) -> Result<MemoryStats, PjrtError> {
        let mut s = sys::PJRT_Device_MemoryStats { device: self.raw, ..Struct::new() };
        // SAFETY: the device lives as long as the client.
        unsafe { self.client.api.call(&mut s)? };
        let set = |is_set: bool, value: i64| is_set.then_some(value);
        Ok(MemoryStats {
            bytes_in_use: s.bytes_in_use,
            peak_bytes_in_use: set(s.peak_bytes_in_use_is_set, s.peak_bytes_in_use),
            bytes_limit: set(s.bytes_limit_is_set, s.bytes_limit),
            largest_alloc_size: set(s.largest_alloc_size_is_set, s.largest_alloc_size),
            num_allocs: set(s.num_allocs_is_set, s.num_allocs),
            largest_free_block_bytes: set(s.largest_free_block_bytes_is_set, s.largest_free_block_bytes),
        })
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl Eq for Device {}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description.text)
    }
}
