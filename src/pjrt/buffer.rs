//! Buffers: arrays on devices. A buffer is returned before the work that computes it has ended; the error of that work
//! surfaces when the buffer is awaited, read, or passed to a program.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use super::api::slice;
use super::client_handle::ClientHandle;
use super::device::Device;
use super::error::PjrtError;
use super::event::Event;
use super::sys::{self, Call, Struct};
use crate::shape::{DType, HostTensor, Shape};

/// An array on a device. Clones share it. The memory is freed with the last clone, or reused if the buffer is donated.
#[derive(Clone)]
pub struct Buffer {
    pub(super) handle: Arc<BufferHandle>,
    shape: Shape,
}

/// The owner of the C buffer.
pub(super) struct BufferHandle {
    pub(super) client: Arc<ClientHandle>,
    pub(super) raw: *mut sys::PJRT_Buffer,
}

// SAFETY: the C API's buffer may be read, awaited and destroyed from any thread.
unsafe impl Send for BufferHandle {}
// SAFETY: as above.
unsafe impl Sync for BufferHandle {}

impl BufferHandle {
    /// # Safety
    /// `raw` is a buffer of `client` that nobody else destroys.
    pub(super) unsafe fn from_raw(client: &Arc<ClientHandle>, raw: *mut sys::PJRT_Buffer) -> Self {
        BufferHandle { client: client.clone(), raw }
    }

    fn shape(&self) -> Result<Shape, PjrtError> {
        let mut element_type = sys::PJRT_Buffer_ElementType { buffer: self.raw, ..Struct::new() };
        let mut dimensions = sys::PJRT_Buffer_Dimensions { buffer: self.raw, ..Struct::new() };
        // SAFETY: the buffer is alive and owns the dimensions.
        let dims: Vec<usize> = unsafe {
            self.client.api.call(&mut element_type)?;
            self.client.api.call(&mut dimensions)?;
            slice(dimensions.dims, dimensions.num_dims).iter().map(|&d| d as usize).collect()
        };
        Ok(Shape::new(dtype_of("a buffer", element_type.element_type)?, dims))
    }
}

impl Drop for BufferHandle {
    fn drop(&mut self) {
        let mut args = sys::PJRT_Buffer_Destroy { buffer: self.raw, ..Struct::new() };
        // SAFETY: ours and alive; work of the plugin that still uses the memory holds it on its own.
        let _ = unsafe { self.client.api.call(&mut args) };
    }
}

/// Elements in host memory, kept alive by a transfer until the plugin has read them.
pub enum HostBytes {
    /// Bytes owned by the transfer.
    Owned(Vec<u8>),
    /// Shared bytes.
    Shared(Arc<[u8]>),
    /// A shared tensor.
    Tensor(Arc<HostTensor>),
}

impl HostBytes {
    /// Returns the elements. They are on the heap: moving `self` does not move them.
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            HostBytes::Owned(bytes) => bytes,
            HostBytes::Shared(bytes) => bytes,
            HostBytes::Tensor(tensor) => tensor.bytes(),
        }
    }
}

impl From<Vec<u8>> for HostBytes {
    fn from(bytes: Vec<u8>) -> Self {
        HostBytes::Owned(bytes)
    }
}

impl From<Arc<[u8]>> for HostBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        HostBytes::Shared(bytes)
    }
}

impl From<Arc<HostTensor>> for HostBytes {
    fn from(tensor: Arc<HostTensor>) -> Self {
        HostBytes::Tensor(tensor)
    }
}

impl From<HostTensor> for HostBytes {
    fn from(tensor: HostTensor) -> Self {
        HostBytes::Owned(tensor.into_bytes())
    }
}

impl Buffer {
    pub(super) fn with_shape(handle: BufferHandle, shape: Shape) -> Self {
        Buffer { handle: Arc::new(handle), shape }
    }

    /// Wraps a buffer and queries its shape.
    pub(super) fn with_queried_shape(handle: BufferHandle) -> Result<Self, PjrtError> {
        let shape = handle.shape()?;
        Ok(Buffer::with_shape(handle, shape))
    }

    /// Returns the shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the device that holds the buffer.
    pub fn device(&self) -> Result<Device, PjrtError> {
        let client = &self.handle.client;
        let mut args = sys::PJRT_Buffer_Device { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive.
        unsafe { client.api.call(&mut args)? };
        Device::at(client, args.device).ok_or_else(|| PjrtError::Argument {
            what: sys::PJRT_Buffer_Device::FUNCTION,
            required: "a device of the client".to_owned(),
            found: "a device that the client does not list".to_owned(),
        })
    }

    /// Returns the size on the device in bytes, padding included.
    pub fn on_device_size(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Buffer_OnDeviceSizeInBytes { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive.
        unsafe { self.handle.client.api.call(&mut args)? };
        Ok(args.on_device_size_in_bytes)
    }

    /// Returns whether the buffer was donated or deleted.
    pub fn is_deleted(&self) -> Result<bool, PjrtError> {
        let mut args = sys::PJRT_Buffer_IsDeleted { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive (its memory need not be).
        unsafe { self.handle.client.api.call(&mut args)? };
        Ok(args.is_deleted)
    }

    /// Frees the memory as soon as running work allows, for all clones.
    pub fn delete(&self) -> Result<(), PjrtError> {
        let mut args = sys::PJRT_Buffer_Delete { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive; deleting twice is allowed.
        unsafe { self.handle.client.api.call(&mut args) }
    }

    /// Returns the event of the work that computes the buffer.
    pub fn ready(&self) -> Result<Event, PjrtError> {
        let client = &self.handle.client;
        let mut args = sys::PJRT_Buffer_ReadyEvent { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive; the event is then ours.
        unsafe {
            client.api.call(&mut args)?;
            Ok(Event::from_raw(client, args.event, sys::PJRT_Buffer_ReadyEvent::FUNCTION))
        }
    }

    /// Copies the buffer to another device of the same client.
    pub fn copy_to_device(&self, device: &Device) -> Result<Buffer, PjrtError> {
        let client = &self.handle.client;
        if !Arc::ptr_eq(client, &device.client) {
            return Err(PjrtError::Argument {
                what: sys::PJRT_Buffer_CopyToDevice::FUNCTION,
                required: "a device of the same client".to_owned(),
                found: format!("{} of another client", device.description().text),
            });
        }
        let mut args =
            sys::PJRT_Buffer_CopyToDevice { buffer: self.handle.raw, dst_device: device.raw, ..Struct::new() };
        // SAFETY: buffer and device are alive and of one client; the new buffer is then ours.
        unsafe {
            client.api.call(&mut args)?;
            Ok(Buffer::with_shape(BufferHandle::from_raw(client, args.dst_buffer), self.shape.clone()))
        }
    }

    /// Waits for the buffer and copies it to the host.
    pub fn to_host(&self) -> Result<HostTensor, PjrtError> {
        self.to_host_async()?.wait()
    }

    /// Starts a copy to the host, in row-major order for any device layout.
    pub fn to_host_async(&self) -> Result<HostTransfer, PjrtError> {
        let client = &self.handle.client;
        let mut bytes = vec![0u8; self.shape.bytes()];
        let minor_to_major: Vec<i64> = (0..self.shape.rank() as i64).rev().collect();
        let mut layout = sys::PJRT_Buffer_MemoryLayout::dense(&minor_to_major);
        let mut args = sys::PJRT_Buffer_ToHostBuffer {
            src: self.handle.raw,
            host_layout: &mut layout,
            dst: bytes.as_mut_ptr().cast::<c_void>(),
            dst_size: bytes.len(),
            ..Struct::new()
        };
        // SAFETY: the layout is alive during the call; `bytes` is as large as said and stays, untouched and in place,
        // in the transfer until its event is ready; the event is then ours.
        unsafe {
            client.api.call(&mut args)?;
            let event = Event::from_raw(client, args.event, sys::PJRT_Buffer_ToHostBuffer::FUNCTION);
            Ok(HostTransfer { bytes, shape: self.shape.clone(), event, _source: self.handle.clone() })
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.shape)
    }
}

/// A running copy from device to host. Dropping it waits for the end, because the plugin writes into its memory.
pub struct HostTransfer {
    bytes: Vec<u8>,
    shape: Shape,
    event: Event,
    _source: Arc<BufferHandle>,
}

impl HostTransfer {
    /// Returns whether the copy has ended, with or without an error.
    pub fn is_ready(&self) -> Result<bool, PjrtError> {
        self.event.is_ready()
    }

    /// Blocks until the copy has ended and returns the elements.
    ///
    /// # Errors
    /// The error of the copy, or of the work that computes the buffer.
    pub fn wait(mut self) -> Result<HostTensor, PjrtError> {
        self.event.wait()?;
        let bytes = std::mem::take(&mut self.bytes);
        let found = bytes.len();
        HostTensor::from_bytes(self.shape.clone(), bytes)
            .map_err(|_| PjrtError::Bytes { shape: self.shape.clone(), found })
    }
}

impl Drop for HostTransfer {
    fn drop(&mut self) {
        // The error of the copy is irrelevant here; the plugin must have stopped writing.
        let _ = self.event.wait();
    }
}

/// The `PJRT_Buffer_Type` of each element type.
const ELEMENT_TYPES: [(DType, i32); 10] = [
    (DType::Pred, 1),
    (DType::S32, 4),
    (DType::U8, 6),
    (DType::U16, 7),
    (DType::U32, 8),
    (DType::U64, 9),
    (DType::F16, 10),
    (DType::F32, 11),
    (DType::F64, 12),
    (DType::BF16, 13),
];

pub(super) fn element_type_of(dtype: DType) -> i32 {
    // A test ensures that the list is complete; 0 is PJRT_Buffer_Type_INVALID, which plugins reject.
    ELEMENT_TYPES.iter().find(|(d, _)| *d == dtype).map_or(0, |(_, code)| *code)
}

pub(super) fn dtype_of(what: &'static str, code: i32) -> Result<DType, PjrtError> {
    let known = ELEMENT_TYPES.iter().find(|(_, c)| *c == code);
    known.map(|(dtype, _)| *dtype).ok_or(PjrtError::ElementType { what, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn element_type_codes_are_complete_and_unique() {
        for dtype in DType::ALL {
            assert_eq!(dtype_of("a buffer", element_type_of(dtype)), Ok(dtype));
        }
        assert!(dtype_of("a buffer", 5).is_err(), "s64 has no DType");
    }
}
