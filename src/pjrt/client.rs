//! Clients: the runtime of a plugin with its devices. Every object created by a client keeps it alive.

use std::fmt;
use std::sync::Arc;

use super::buffer::{Buffer, BufferHandle, HostBytes, element_type_of};
use super::client_handle::ClientHandle;
use super::device::Device;
use super::error::PjrtError;
use super::event::Event;
use super::executable::LoadedExecutable;
use super::named_value::CreateOption;
use super::options::CompileOptions;
use super::plugin::Plugin;
use super::sys::{self, Call, Struct};
use crate::key_value::KeyValueStore;
use crate::shape::{HostTensor, Shape};

/// The runtime of a plugin. Clones share it. It is destroyed when the last object created from it is dropped.
#[derive(Clone)]
pub struct Client {
    pub(super) handle: Arc<ClientHandle>,
}

impl Client {
    /// Creates a client of `plugin` on the devices of this machine.
    ///
    /// Several processes exchange their topology through `store`. The other settings that a plugin needs are create-options:
    /// on CUDA `node_id` and `num_nodes` (see [`multi_process_options`](super::multi_process_options)).
    ///
    /// # Errors
    /// If the plugin fails to create a client.
    pub fn new(
        plugin: &Plugin,
        options: &[CreateOption],
        store: Option<Arc<dyn KeyValueStore>>,
    ) -> Result<Self, PjrtError> {
        Ok(Client { handle: Arc::new(ClientHandle::create(&plugin.api, options, store)?) })
    }

    /// Returns the plugin's platform name: `cpu`, `cuda`, `tpu`.
    pub fn platform_name(&self) -> &str {
        &self.handle.platform_name
    }

    /// Returns the versions of the underlying software, such as CUDA or libtpu; several lines on some platforms.
    pub fn platform_version(&self) -> &str {
        &self.handle.platform_version
    }

    /// Returns the index of this process; 0 for a single process.
    pub fn process_index(&self) -> i32 {
        self.handle.process_index
    }

    /// Returns the plugin.
    pub fn plugin(&self) -> Plugin {
        Plugin { api: self.handle.api.clone() }
    }

    /// Returns all devices, including those of other processes.
    pub fn devices(&self) -> Vec<Device> {
        self.handle.devices.iter().map(|entry| Device::of(&self.handle, entry)).collect()
    }

    /// Returns the devices of this process, in the plugin's order.
    pub fn addressable_devices(&self) -> Vec<Device> {
        self.handle
            .devices
            .iter()
            .filter(|entry| entry.addressable)
            .map(|entry| Device::of(&self.handle, entry))
            .collect()
    }

    /// Compiles a serialized HloModuleProto and loads it onto devices.
    ///
    /// # Errors
    /// If the plugin fails to compile the program.
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

    /// Loads an executable serialized by [`super::Executable::serialize`] with the same version of the same plugin, for the
    /// same kind of device.
    ///
    /// A serialized executable is machine code: load it only from a trusted source.
    ///
    /// # Errors
    /// If the plugin rejects the bytes.
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

    /// Copies row-major elements to a device and returns when the plugin has read `bytes`. There is no intermediate copy.
    ///
    /// # Errors
    /// If `bytes` does not have the size of `shape`, the device belongs to another client, or the transfer fails.
    pub fn buffer_from_host(&self, bytes: &[u8], shape: &Shape, device: &Device) -> Result<Buffer, PjrtError> {
        // SAFETY: `bytes` outlives the wait.
        let (buffer, done) = unsafe { self.begin_transfer(bytes, shape, device)? };
        done.wait()?;
        Ok(buffer)
    }

    /// Starts to copy row-major elements to a device and returns immediately. The elements are kept until the plugin has
    /// read them. An error of the copy surfaces when the buffer is used or awaited.
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
            // Without a callback, wait here: the elements must outlive the transfer.
            done.wait()?;
            return Err(error);
        }
        Ok(buffer)
    }

    /// Copies a tensor to a device like [`Client::buffer_from_host_async`].
    ///
    /// # Errors
    /// As [`Client::buffer_from_host`].
    pub fn buffer_from_tensor(&self, tensor: HostTensor, device: &Device) -> Result<Buffer, PjrtError> {
        let shape = tensor.shape().clone();
        self.buffer_from_host_async(tensor, &shape, device)
    }

    /// Starts a transfer; the event reports when the plugin has read `bytes`.
    ///
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
                found: format!("{} of another client", device.description().text),
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
            Ok((Buffer::with_shape(buffer, shape.clone()), done))
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {} devices)", self.platform_name(), self.handle.devices.len())
    }
}
