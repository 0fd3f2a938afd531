//! A buffer: an array on a device. It may still be in the making when it is returned, and its error, if it has one,
//! appears when it is awaited, read, or given to a program.

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

/// An array on a device. Clones share it; the memory is freed with the last one, or given away by donation.
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

/// Elements in host memory, owned or shared, that a transfer keeps until it has read them.
pub enum HostBytes {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Tensor(Arc<HostTensor>),
}

impl HostBytes {
    /// The elements. They lie on the heap: moving `self` does not move them.
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
    pub(super) fn of_shape(handle: BufferHandle, shape: Shape) -> Self {
        Buffer { handle: Arc::new(handle), shape }
    }

    /// Asks the plugin for the shape.
    pub(super) fn of_asked_shape(handle: BufferHandle) -> Result<Self, PjrtError> {
        let shape = handle.shape()?;
        Ok(Buffer::of_shape(handle, shape))
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where it lies.
    pub fn device(&self) -> Result<Device, PjrtError> {
        let client = &self.handle.client;
        let mut args = sys::PJRT_Buffer_Device { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive.
        unsafe { client.api.call(&mut args)? };
        Device::at(client, args.device).ok_or_else(|| PjrtError::Argument {
            what: sys::PJRT_Buffer_Device::FUNCTION,
            required: "a device of the client".to_owned(),
            found: "an unknown one".to_owned(),
        })
    }

    /// Bytes it takes on the device, padding included.
    pub fn on_device_size(&self) -> Result<usize, PjrtError> {
        let mut args = sys::PJRT_Buffer_OnDeviceSizeInBytes { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive.
        unsafe { self.handle.client.api.call(&mut args)? };
        Ok(args.on_device_size_in_bytes)
    }

    /// Whether its memory is gone: it was donated to a program, or deleted.
    pub fn is_deleted(&self) -> Result<bool, PjrtError> {
        let mut args = sys::PJRT_Buffer_IsDeleted { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive (its memory need not be).
        unsafe { self.handle.client.api.call(&mut args)? };
        Ok(args.is_deleted)
    }

    /// Frees its memory now, as soon as running work allows, for all clones.
    pub fn delete(&self) -> Result<(), PjrtError> {
        let mut args = sys::PJRT_Buffer_Delete { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive; deleting twice is allowed.
        unsafe { self.handle.client.api.call(&mut args) }
    }

    /// The end of the work that makes it, and that work's error.
    pub fn ready(&self) -> Result<Event, PjrtError> {
        let client = &self.handle.client;
        let mut args = sys::PJRT_Buffer_ReadyEvent { buffer: self.handle.raw, ..Struct::new() };
        // SAFETY: the buffer is alive; the event is then ours.
        unsafe {
            client.api.call(&mut args)?;
            Ok(Event::from_raw(client, args.event, sys::PJRT_Buffer_ReadyEvent::FUNCTION))
        }
    }

    /// A copy on another device of the same client.
    pub fn copy_to_device(&self, device: &Device) -> Result<Buffer, PjrtError> {
        let client = &self.handle.client;
        if !Arc::ptr_eq(client, &device.client) {
            return Err(PjrtError::Argument {
                what: sys::PJRT_Buffer_CopyToDevice::FUNCTION,
                required: "a device of the same client".to_owned(),
                found: format!("{device:?} of another one"),
            });
        }
        let mut args =
            sys::PJRT_Buffer_CopyToDevice { buffer: self.handle.raw, dst_device: device.raw, ..Struct::new() };
        // SAFETY: buffer and device are alive and of one client; the new buffer is then ours.
        unsafe {
            client.api.call(&mut args)?;
            Ok(Buffer::of_shape(BufferHandle::from_raw(client, args.dst_buffer), self.shape.clone()))
        }
    }

    /// Waits for the buffer and copies it to the host.
    pub fn to_host(&self) -> Result<HostTensor, PjrtError> {
        self.to_host_async()?.wait()
    }

    /// Begins to copy it to the host, row-major whatever the device's layout.
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

/// A copy from device to host under way. Dropping it waits for its end: the plugin writes into memory held here.
pub struct HostTransfer {
    bytes: Vec<u8>,
    shape: Shape,
    event: Event,
    _source: Arc<BufferHandle>,
}

impl HostTransfer {
    pub fn is_ready(&self) -> Result<bool, PjrtError> {
        self.event.is_ready()
    }

    /// Blocks until the elements are here.
    ///
    /// # Errors
    /// The error of the copy, or of the work that was to make the buffer.
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
        // An error of the copy has no reader any more; what matters is that the plugin stopped writing.
        let _ = self.event.wait();
    }
}

/// `PJRT_Buffer_Type` of each element type.
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
    // The test below holds the list to every DType; 0 is PJRT_Buffer_Type_INVALID, which plugins refuse.
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
    fn every_element_type_has_a_number_of_its_own() {
        for dtype in DType::ALL {
            assert_eq!(dtype_of("a buffer", element_type_of(dtype)), Ok(dtype));
        }
        assert!(dtype_of("a buffer", 5).is_err(), "s64 is not one of ours");
    }
}
