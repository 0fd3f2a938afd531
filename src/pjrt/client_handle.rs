//! The owner of the C client. Every object created by the client holds it: devices, buffers, events, executables.

use std::sync::Arc;

use super::api::{Api, slice, text};
use super::device_description::DeviceDescription;
use super::error::PjrtError;
use super::key_value_callbacks::KeyValueCallbacks;
use super::named_value::CreateOption;
use super::sys::{self, Struct};
use crate::key_value::KeyValueStore;

/// The owner of the C client.
pub(super) struct ClientHandle {
    pub(super) api: Arc<Api>,
    pub(super) raw: *mut sys::PJRT_Client,
    pub(super) platform_name: String,
    pub(super) platform_version: String,
    pub(super) process_index: i32,
    /// All devices, including those of other processes, in the plugin's order.
    pub(super) devices: Vec<DeviceEntry>,
    /// The key-value store through which processes exchange their topology. Fields are dropped after [`Drop::drop`] has
    /// destroyed the C client.
    _callbacks: Option<Box<KeyValueCallbacks>>,
}

/// A device of a client.
pub(super) struct DeviceEntry {
    /// Lives as long as the client.
    pub(super) raw: *mut sys::PJRT_Device,
    pub(super) description: Arc<DeviceDescription>,
    /// Whether this process can use the device.
    pub(super) addressable: bool,
}

// SAFETY: the C API's client may be used from any thread; the devices live as long as it and are only read.
unsafe impl Send for ClientHandle {}
// SAFETY: as above.
unsafe impl Sync for ClientHandle {}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        let mut args = sys::PJRT_Client_Destroy { client: self.raw, ..Struct::new() };
        // SAFETY: everything made from the client held this handle, so nothing of it is left.
        let _ = unsafe { self.api.call(&mut args) };
    }
}

impl ClientHandle {
    pub(super) fn create(
        api: &Arc<Api>,
        options: &[CreateOption],
        store: Option<Arc<dyn KeyValueStore>>,
    ) -> Result<Self, PjrtError> {
        let options: Vec<_> = options.iter().map(CreateOption::as_named_value).collect();
        let mut args =
            sys::PJRT_Client_Create { create_options: options.as_ptr(), num_options: options.len(), ..Struct::new() };
        let callbacks = store.map(KeyValueCallbacks::new);
        callbacks.iter().for_each(|callbacks| callbacks.register(&mut args));
        // SAFETY: the options are alive during the call; the callbacks are for as long as the client, whose handle holds
        // them. Without callbacks the client is of one process.
        unsafe { api.call(&mut args)? };
        let mut handle = ClientHandle {
            api: api.clone(),
            _callbacks: callbacks,
            raw: args.client,
            platform_name: String::new(),
            platform_version: String::new(),
            process_index: 0,
            devices: Vec::new(),
        };
        // If this fails, dropping the handle destroys the client.
        handle.read_properties()?;
        Ok(handle)
    }

    fn read_properties(&mut self) -> Result<(), PjrtError> {
        let (api, client) = (&self.api, self.raw);
        let mut name = sys::PJRT_Client_PlatformName { client, ..Struct::new() };
        let mut version = sys::PJRT_Client_PlatformVersion { client, ..Struct::new() };
        let mut process = sys::PJRT_Client_ProcessIndex { client, ..Struct::new() };
        let mut all = sys::PJRT_Client_Devices { client, ..Struct::new() };
        let mut addressable = sys::PJRT_Client_AddressableDevices { client, ..Struct::new() };
        // SAFETY: the client is alive, and owns what the calls point to.
        unsafe {
            api.call(&mut name)?;
            api.call(&mut version)?;
            api.call(&mut process)?;
            api.call(&mut all)?;
            api.call(&mut addressable)?;
            let here = slice(addressable.addressable_devices, addressable.num_addressable_devices);
            self.devices = slice(all.devices, all.num_devices)
                .iter()
                .map(|&raw| {
                    let mut args = sys::PJRT_Device_GetDescription { device: raw, ..Struct::new() };
                    api.call(&mut args)?;
                    let description = Arc::new(DeviceDescription::read(api, args.device_description)?);
                    Ok(DeviceEntry { raw, description, addressable: here.contains(&raw) })
                })
                .collect::<Result<_, PjrtError>>()?;
            self.platform_name = text(name.platform_name, name.platform_name_size);
            self.platform_version = text(version.platform_version, version.platform_version_size);
        }
        self.process_index = process.process_index;
        Ok(())
    }
}
