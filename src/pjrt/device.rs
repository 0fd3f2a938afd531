//! Devices, which hold buffers and run programs.

use std::fmt;
use std::sync::Arc;

use super::client_handle::{ClientHandle, DeviceEntry};
use super::device_description::DeviceDescription;
use super::error::PjrtError;
use super::sys::{self, Struct};

/// A device of a client. Clones refer to the same device.
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

/// Memory statistics of a device, in bytes; `None` where the plugin has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryStats {
    /// Bytes allocated now.
    pub bytes_in_use: i64,
    /// The most bytes allocated at one time.
    pub peak_bytes_in_use: Option<i64>,
    /// The most bytes that the allocator may use.
    pub bytes_limit: Option<i64>,
    /// Size of the largest allocation so far.
    pub largest_alloc_size: Option<i64>,
    /// Number of allocations so far.
    pub num_allocs: Option<i64>,
    /// Size of the largest free block.
    pub largest_free_block_bytes: Option<i64>,
}

impl Device {
    /// Wraps a device of `client`.
    pub(super) fn of(client: &Arc<ClientHandle>, entry: &DeviceEntry) -> Device {
        Device { client: client.clone(), raw: entry.raw, description: entry.description.clone() }
    }

    /// Returns the device for a pointer returned by the plugin, if it is a device of `client`.
    pub(super) fn at(client: &Arc<ClientHandle>, raw: *mut sys::PJRT_Device) -> Option<Device> {
        client.devices.iter().find(|entry| entry.raw == raw).map(|entry| Device::of(client, entry))
    }

    /// Returns the global id, unique over all processes.
    pub fn id(&self) -> i32 {
        self.description.id
    }

    /// Returns the model, such as `NVIDIA H200` or `TPU v3`.
    pub fn kind(&self) -> &str {
        &self.description.kind
    }

    /// Returns the description.
    pub fn description(&self) -> &DeviceDescription {
        &self.description
    }

    /// Returns the number of the device in this machine, such as the CUDA ordinal.
    ///
    /// # Errors
    /// If the call fails.
    pub fn local_hardware_id(&self) -> Result<i32, PjrtError> {
        let mut args = sys::PJRT_Device_LocalHardwareId { device: self.raw, ..Struct::new() };
        // SAFETY: the device lives as long as the client.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.local_hardware_id)
    }

    /// Returns whether this process can use the device.
    ///
    /// # Errors
    /// If the call fails.
    pub fn is_addressable(&self) -> Result<bool, PjrtError> {
        let mut args = sys::PJRT_Device_IsAddressable { device: self.raw, ..Struct::new() };
        // SAFETY: the device lives as long as the client.
        unsafe { self.client.api.call(&mut args)? };
        Ok(args.is_addressable)
    }

    /// Returns statistics of the device's memory.
    ///
    /// # Errors
    /// Plugins without statistics, such as CPU plugins, return UNIMPLEMENTED.
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
