//! A client: a plugin's runtime on this machine, with its devices. Everything made by a client keeps it alive.

use std::fmt;
use std::sync::Arc;

use super::api::{Api, slice, text};
use super::buffer::{Buffer, BufferHandle, HostBytes, element_type_of};
use super::callbacks::Callbacks;
use super::device::{Device, DeviceDescription};
use super::error::PjrtError;
use super::event::Event;
use super::executable::LoadedExecutable;
use super::named_value::CreateOption;
use super::options::CompileOptions;
use super::plugin::Plugin;
use super::sys::{self, Call, Struct};
use crate::key_value::KeyValueStore;
use crate::shape::{HostTensor, Shape};

/// The runtime of a plugin. Clones share it; it ends when nothing made from it is left.
#[derive(Clone)]
pub struct Client {
    pub(super) handle: Arc<ClientHandle>,
}

/// The owner of the C client.
pub(super) struct ClientHandle {
    pub(super) api: Arc<Api>,
    pub(super) raw: *mut sys::PJRT_Client,
    platform_name: String,
    platform_version: String,
    process_index: i32,
    devices: Vec<DeviceEntry>,
    /// Where the plugin finds the other processes. Fields go after [`Drop::drop`], and so after the C client.
    _callbacks: Option<Box<Callbacks>>,
}

struct DeviceEntry {
    raw: *mut sys::PJRT_Device,
    description: Arc<DeviceDescription>,
    addressable: bool,
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

impl Client {
    pub(super) fn create(
        plugin: &Plugin,
        options: &[CreateOption],
        store: Option<Arc<dyn KeyValueStore>>,
    ) -> Result<Self, PjrtError> {
        let api = plugin.api.clone();
        let options: Vec<_> = options.iter().map(CreateOption::as_named_value).collect();
        let mut args =
            sys::PJRT_Client_Create { create_options: options.as_ptr(), num_options: options.len(), ..Struct::new() };
        let callbacks = store.map(Callbacks::new);
        callbacks.iter().for_each(|callbacks| callbacks.enter(&mut args));
        // SAFETY: the options are alive during the call; the callbacks are for as long as the client, whose handle holds
        // them. Without callbacks the client is of one process.
        unsafe { api.call(&mut args)? };
        let mut handle = ClientHandle {
            api,
            _callbacks: callbacks,
            raw: args.client,
            platform_name: String::new(),
            platform_version: String::new(),
            process_index: 0,
            devices: Vec::new(),
        };
        // If one of these fails, the handle's drop destroys the client.
        handle.read_facts()?;
        Ok(Client { handle: Arc::new(handle) })
    }

    /// The kind of platform as the plugin names it: `cpu`, `cuda`, `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.handle.platform_name
    }

    /// The versions behind it, such as those of CUDA or libtpu; several lines on some platforms.
    pub fn platform_version(&self) -> &str {
        &self.handle.platform_version
    }

    /// This process among those of the run; 0 if it is alone.
    pub fn process_index(&self) -> i32 {
        self.handle.process_index
    }

    pub fn plugin(&self) -> Plugin {
        Plugin { api: self.handle.api.clone() }
    }

    /// All devices of the run, also those of other processes.
    pub fn devices(&self) -> Vec<Device> {
        self.handle.devices.iter().map(|entry| self.handle.device(entry)).collect()
    }

    /// The devices that this process uses, in the plugin's order.
    pub fn addressable_devices(&self) -> Vec<Device> {
        self.handle.devices.iter().filter(|entry| entry.addressable).map(|entry| self.handle.device(entry)).collect()
    }

    /// Compiles a serialized HloModuleProto.
    pub fn compile(&self, hlo: &[u8], options: &CompileOptions) -> Result<LoadedExecutable, PjrtError> {
        let (program, options) = (sys::PJRT_Program::hlo(hlo), options.encode());
        let mut args = sys::PJRT_Client_Compile {
            client: self.handle.raw,
            program: &program,
            compile_options: options.as_ptr().cast(),
            compile_options_size: options.len(),
            ..Struct::new()
        };
        // SAFETY: program and options are alive during the call; the executable is then ours.
        unsafe {
            self.handle.api.call(&mut args)?;
            LoadedExecutable::from_raw(&self.handle, args.executable)
        }
    }

    /// Loads what [`super::Executable::serialize`] wrote. It must come from the same version of the same plugin, for the
    /// same kind of device.
    ///
    /// A serialized executable is machine code: load none from a source that you would not run.
    pub fn deserialize(&self, serialized: &[u8]) -> Result<LoadedExecutable, PjrtError> {
        let mut args = sys::PJRT_Executable_DeserializeAndLoad {
            client: self.handle.raw,
            serialized_executable: serialized.as_ptr().cast(),
            serialized_executable_size: serialized.len(),
            ..Struct::new()
        };
        // SAFETY: the bytes are alive during the call; the executable is then ours.
        unsafe {
            self.handle.api.call(&mut args)?;
            LoadedExecutable::from_raw(&self.handle, args.loaded_executable)
        }
    }

    /// Copies row-major elements to a device and returns when `bytes` has been read. The plugin reads it in place: no
    /// copy is made on the way.
    ///
    /// # Errors
    /// If `bytes` is not the size of `shape`, or the plugin refuses (no memory, device of another client).
    pub fn buffer_from_host(&self, bytes: &[u8], shape: &Shape, device: &Device) -> Result<Buffer, PjrtError> {
        // SAFETY: `bytes` outlives the wait.
        let (buffer, done) = unsafe { self.begin_transfer(bytes, shape, device)? };
        done.wait()?;
        Ok(buffer)
    }

    /// Hands row-major elements over to be copied to a device, and returns at once: they are kept until the plugin has
    /// read them. An error of the copy appears where the buffer is used or awaited.
    ///
    /// # Errors
    /// As [`Client::buffer_from_host`].
    pub fn buffer_from_host_async(
        &self,
        bytes: impl Into<HostBytes>,
        shape: &Shape,
        device: &Device,
    ) -> Result<Buffer, PjrtError> {
        let owner: HostBytes = bytes.into();
        // SAFETY: the elements lie on the heap, and `owner` goes into the callback that runs when they have been read.
        let (buffer, done) = unsafe { self.begin_transfer(owner.as_slice(), shape, device)? };
        let owner = Arc::new(owner);
        let kept = owner.clone();
        if let Err(error) = done.on_ready(move |_| drop(kept)) {
            // Without a callback, wait here: the elements must not go before they were read.
            done.wait()?;
            return Err(error);
        }
        Ok(buffer)
    }

    /// [`Client::buffer_from_host_async`] of a tensor.
    pub fn buffer_from_tensor(&self, tensor: HostTensor, device: &Device) -> Result<Buffer, PjrtError> {
        let shape = tensor.shape().clone();
        self.buffer_from_host_async(tensor, &shape, device)
    }

    /// # Safety
    /// `bytes` stays alive and unchanged until the event is ready.
    unsafe fn begin_transfer(
        &self,
        bytes: &[u8],
        shape: &Shape,
        device: &Device,
    ) -> Result<(Buffer, Event), PjrtError> {
        if bytes.len() != shape.bytes() {
            return Err(PjrtError::Bytes { shape: shape.clone(), found: bytes.len() });
        }
        if !Arc::ptr_eq(&device.client, &self.handle) {
            return Err(PjrtError::Argument {
                what: "PJRT_Client_BufferFromHostBuffer",
                required: "a device of the same client".to_owned(),
                found: format!("{device:?} of another one"),
            });
        }
        let dims: Vec<i64> = shape.dims.iter().map(|&d| d as i64).collect();
        let mut args = sys::PJRT_Client_BufferFromHostBuffer {
            client: self.handle.raw,
            data: bytes.as_ptr().cast(),
            element_type: element_type_of(shape.dtype),
            dims: dims.as_ptr(),
            num_dims: dims.len(),
            host_buffer_semantics: sys::IMMUTABLE_UNTIL_TRANSFER_COMPLETES,
            device: device.raw,
            ..Struct::new()
        };
        // SAFETY: client and device are alive, dims and data have the sizes given; the caller keeps the data. The event
        // and the buffer are then ours.
        unsafe {
            self.handle.api.call(&mut args)?;
            let function = sys::PJRT_Client_BufferFromHostBuffer::FUNCTION;
            let done = Event::from_raw(&self.handle, args.done_with_host_buffer, function);
            let buffer = BufferHandle::from_raw(&self.handle, args.buffer);
            Ok((Buffer::of_shape(buffer, shape.clone()), done))
        }
    }
}

impl ClientHandle {
    fn read_facts(&mut self) -> Result<(), PjrtError> {
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

    fn device(self: &Arc<Self>, entry: &DeviceEntry) -> Device {
        Device { client: self.clone(), raw: entry.raw, description: entry.description.clone() }
    }

    /// The device behind a pointer that the plugin returned.
    pub(super) fn device_at(self: &Arc<Self>, raw: *mut sys::PJRT_Device) -> Option<Device> {
        self.devices.iter().find(|entry| entry.raw == raw).map(|entry| self.device(entry))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {} devices)", self.platform_name(), self.handle.devices.len())
    }
}
