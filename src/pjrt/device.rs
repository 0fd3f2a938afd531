//! A device: where buffers live and programs run.

use std::fmt;
use std::sync::Arc;

use super::client_handle::{ClientHandle, DeviceEntry};
use super::device_description::DeviceDescription;
use super::error::PjrtError;
use super::sys::{self, Struct};

/// A device of a client. Clones are the same device.
#[derive(Clone)]
pub struct Device {
    pub(super) client: Arc<ClientHandle>,
    /// Lives as long as the client.
    pub(super) raw: *mut sys::PJRT_Device,
    description: Arc<DeviceDescription>,
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
    /// The device of an entry of `client`.
    pub(super) fn of(client: &Arc<ClientHandle>, entry: &DeviceEntry) -> Device {
        Device { client: client.clone(), raw: entry.raw, description: entry.description.clone() }
    }

    /// The device behind a pointer that the plugin returned, if it is one of `client`.
    pub(super) fn at(client: &Arc<ClientHandle>, raw: *mut sys::PJRT_Device) -> Option<Device> {
        client.devices.iter().find(|entry| entry.raw == raw).map(|entry| Device::of(client, entry))
    }

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
