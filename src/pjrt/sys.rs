//! The PJRT C API, declared by hand: the function table in its order, and the argument structs of the functions that are
//! used.
//!
//! Every function of the API takes a pointer to an argument struct and returns a `PJRT_Error*`, null for success. Here an
//! argument struct has the name of *its function* (the header's `PJRT_Event_Await_Args` is [`PJRT_Event_Await`]), so the
//! type of the struct determines the function that is called; see [`Call`]. The plugin writes the fields marked *out* in
//! the header and reads all others.
//!
//! The source is `xla/pjrt/c/pjrt_c_api.h` in openxla/xla. New fields are only appended, to the table and to the structs,
//! and `struct_size` tells the other side how many there are. It is the end of the last field, without the trailing
//! padding that `size_of` includes.

#![allow(non_camel_case_types, non_snake_case, reason = "the names are those of the C header")]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// The major version declared here. Other major versions may differ in any way.
pub const API_MAJOR: i32 = 0;
/// The oldest minor version with this order of the table (0.57 rearranged it).
pub const API_MINOR_OLDEST: i32 = 57;

macro_rules! opaque {
    ($($name:ident)*) => { $(
        #[repr(C)]
        pub struct $name {
            _opaque: [u8; 0],
        }
    )* };
}
opaque! {
    PJRT_Error PJRT_Event PJRT_Client PJRT_Device PJRT_DeviceDescription PJRT_Memory PJRT_Buffer PJRT_Executable
    PJRT_LoadedExecutable PJRT_TopologyDescription PJRT_SerializedExecutable
}

/// A struct of the API. It starts with its own size and a list of extensions, which is always empty here.
///
/// # Safety
/// The type is `repr(C)`, begins with `struct_size: usize`, is valid when all its bytes are zero, and `SIZE` is the
/// offset of its end without trailing padding.
pub unsafe trait Struct {
    const SIZE: usize;

    /// Returns a struct whose fields are zero, null or `None`, except `struct_size`: the base of a struct literal,
    /// `X { a, ..X::new() }`.
    fn new() -> Self;
}

/// An argument struct with its function.
///
/// # Safety
/// `OFFSET` is the offset of that function's pointer in [`PJRT_Api`].
pub unsafe trait Call: Struct {
    const FUNCTION: &'static str;
    const OFFSET: usize;
}

macro_rules! structs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$doc])*
        #[repr(C)]
        pub struct $name {
            pub struct_size: usize,
            pub extension_start: *mut c_void,
            $(pub $field: $type,)*
        }
        // SAFETY: repr(C), `struct_size` first; the fields are integers, floats, bools, pointers, optional function
        // pointers and structs of these, for all of which zero is a value. SIZE is the end of the last field.
        unsafe impl Struct for $name {
            const SIZE: usize = {
                let ends = [2 * size_of::<usize>() $(, std::mem::offset_of!($name, $field) + size_of::<$type>())*];
                ends[ends.len() - 1]
            };
            fn new() -> Self {
                // SAFETY: see the impl's own comment: zero is a value of every field.
                let mut zero: Self = unsafe { std::mem::zeroed() };
                zero.struct_size = Self::SIZE;
                zero
            }
        }
    )* };
}

macro_rules! calls {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        structs! { $($name { $($field: $type),* })* }
        $(
            // SAFETY: the field of the table with the function's name holds its pointer.
            unsafe impl Call for $name {
                const FUNCTION: &'static str = stringify!($name);
                const OFFSET: usize = std::mem::offset_of!(PJRT_Api, $name);
            }
        )*
    };
}

macro_rules! table {
    ($($function:ident)*) => {
        /// The table that `GetPjrtApi` returns. The plugin's table may be shorter or longer than this: read it only through
        /// offsets checked against its `struct_size`.
        #[repr(C)]
        pub struct PJRT_Api {
            pub struct_size: usize,
            pub extension_start: *mut c_void,
            pub pjrt_api_version: PJRT_Api_Version,
            $(pub $function: *const c_void,)*
        }
    };
}

table! {
    PJRT_Error_Destroy PJRT_Error_Message PJRT_Error_GetCode
    PJRT_Plugin_Initialize PJRT_Plugin_Attributes
    PJRT_Event_Destroy PJRT_Event_IsReady PJRT_Event_Error PJRT_Event_Await PJRT_Event_OnReady
    PJRT_Client_Create PJRT_Client_Destroy PJRT_Client_PlatformName PJRT_Client_ProcessIndex
    PJRT_Client_PlatformVersion PJRT_Client_Devices PJRT_Client_AddressableDevices PJRT_Client_LookupDevice
    PJRT_Client_LookupAddressableDevice PJRT_Client_AddressableMemories PJRT_Client_Compile
    PJRT_Client_DefaultDeviceAssignment PJRT_Client_BufferFromHostBuffer
    PJRT_DeviceDescription_Id PJRT_DeviceDescription_ProcessIndex PJRT_DeviceDescription_Attributes
    PJRT_DeviceDescription_Kind PJRT_DeviceDescription_DebugString PJRT_DeviceDescription_ToString
    PJRT_Device_GetDescription PJRT_Device_IsAddressable PJRT_Device_LocalHardwareId PJRT_Device_AddressableMemories
    PJRT_Device_DefaultMemory PJRT_Device_MemoryStats
    PJRT_Memory_Id PJRT_Memory_Kind PJRT_Memory_DebugString PJRT_Memory_ToString PJRT_Memory_AddressableByDevices
    PJRT_Executable_Destroy PJRT_Executable_Name PJRT_Executable_NumReplicas PJRT_Executable_NumPartitions
    PJRT_Executable_NumOutputs PJRT_Executable_SizeOfGeneratedCodeInBytes PJRT_Executable_GetCostAnalysis
    PJRT_Executable_OutputMemoryKinds PJRT_Executable_OptimizedProgram PJRT_Executable_Serialize
    PJRT_LoadedExecutable_Destroy PJRT_LoadedExecutable_GetExecutable PJRT_LoadedExecutable_AddressableDevices
    PJRT_LoadedExecutable_Delete PJRT_LoadedExecutable_IsDeleted PJRT_LoadedExecutable_Execute
    PJRT_Executable_DeserializeAndLoad PJRT_LoadedExecutable_Fingerprint
    PJRT_Buffer_Destroy PJRT_Buffer_ElementType PJRT_Buffer_Dimensions PJRT_Buffer_UnpaddedDimensions
    PJRT_Buffer_DynamicDimensionIndices PJRT_Buffer_GetMemoryLayout PJRT_Buffer_OnDeviceSizeInBytes PJRT_Buffer_Device
    PJRT_Buffer_Memory PJRT_Buffer_Delete PJRT_Buffer_IsDeleted PJRT_Buffer_CopyToDevice PJRT_Buffer_ToHostBuffer
    PJRT_Buffer_IsOnCpu PJRT_Buffer_ReadyEvent PJRT_Buffer_UnsafePointer PJRT_Buffer_IncreaseExternalReferenceCount
    PJRT_Buffer_DecreaseExternalReferenceCount PJRT_Buffer_OpaqueDeviceMemoryDataPointer
    PJRT_CopyToDeviceStream_Destroy PJRT_CopyToDeviceStream_AddChunk PJRT_CopyToDeviceStream_TotalBytes
    PJRT_CopyToDeviceStream_GranuleSize PJRT_CopyToDeviceStream_CurrentBytes
    PJRT_TopologyDescription_Create PJRT_TopologyDescription_Destroy PJRT_TopologyDescription_PlatformName
    PJRT_TopologyDescription_PlatformVersion PJRT_TopologyDescription_GetDeviceDescriptions
    PJRT_TopologyDescription_Serialize PJRT_TopologyDescription_Attributes
    PJRT_Compile PJRT_Executable_OutputElementTypes PJRT_Executable_OutputDimensions PJRT_Buffer_CopyToMemory
    PJRT_Client_CreateViewOfDeviceBuffer PJRT_Executable_Fingerprint PJRT_Client_TopologyDescription
    PJRT_Executable_GetCompiledMemoryStats
    // The functions that follow are not used.
}

structs! {
    PJRT_Api_Version { major_version: c_int, minor_version: c_int }

    /// A create-option, attribute or cost property.
    PJRT_NamedValue {
        name: *const c_char,
        name_size: usize,
        kind: c_int,
        value: PJRT_NamedValue_Union,
        value_size: usize,
    }

    PJRT_Program { code: *mut c_char, code_size: usize, format: *const c_char, format_size: usize }

    PJRT_ExecuteOptions {
        send_callbacks: *mut c_void,
        recv_callbacks: *mut c_void,
        num_send_ops: usize,
        num_recv_ops: usize,
        launch_id: c_int,
        non_donatable_input_indices: *const i64,
        num_non_donatable_input_indices: usize,
        context: *mut c_void,
        call_location: *const c_char,
        num_tasks: usize,
        task_ids: *const c_int,
        incarnation_ids: *const i64,
        multi_slice_config: *mut c_void,
    }

    /// The header's tiled layout; without tiles, an order of dimensions.
    PJRT_Buffer_MemoryLayout_Tiled {
        minor_to_major: *const i64,
        minor_to_major_size: usize,
        tile_dims: *const i64,
        tile_dim_sizes: *const usize,
        num_tiles: usize,
    }

    PJRT_KeyValueGetCallback_Args {
        key: *const c_char,
        key_size: usize,
        timeout_in_ms: c_int,
        callback_error: *const PJRT_CallbackError,
        user_arg: *mut c_void,
        value: *mut c_char,
        value_size: usize,
        value_deleter_callback: Option<PJRT_KeyValueCallback_ValueDeleter>,
    }

    PJRT_KeyValueTryGetCallback_Args {
        key: *const c_char,
        key_size: usize,
        callback_error: *const PJRT_CallbackError,
        user_arg: *mut c_void,
        value: *mut c_char,
        value_size: usize,
        value_deleter_callback: Option<PJRT_KeyValueCallback_ValueDeleter>,
    }

    PJRT_KeyValuePutCallback_Args {
        key: *const c_char,
        key_size: usize,
        value: *const c_char,
        value_size: usize,
        callback_error: *const PJRT_CallbackError,
        user_arg: *mut c_void,
    }

    /// In the header, a union of the tiled (larger) and the strided layout; `kind` 0 means tiled.
    PJRT_Buffer_MemoryLayout { tiled: PJRT_Buffer_MemoryLayout_Tiled, kind: c_int }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union PJRT_NamedValue_Union {
    pub string: *const c_char,
    pub int64: i64,
    pub int64_list: *const i64,
    pub float: f32,
    pub boolean: bool,
}

/// Values of `PJRT_NamedValue::kind`.
pub mod named_value {
    pub const STRING: i32 = 0;
    pub const INT64: i32 = 1;
    pub const INT64_LIST: i32 = 2;
    pub const FLOAT: i32 = 3;
    pub const BOOL: i32 = 4;
}

/// `PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes`: the plugin may read the host memory, without copying it
/// first, until the event `done_with_host_buffer` is ready.
pub const IMMUTABLE_UNTIL_TRANSFER_COMPLETES: c_int = 1;

/// The values of `PJRT_Error_Code` that callbacks return.
pub mod status {
    use std::ffi::c_int;

    pub const INVALID_ARGUMENT: c_int = 3;
    pub const DEADLINE_EXCEEDED: c_int = 4;
    pub const NOT_FOUND: c_int = 5;
    pub const INTERNAL: c_int = 13;
    pub const UNAVAILABLE: c_int = 14;
}

/// Creates an error of the plugin for a callback to return. Copies the message.
pub type PJRT_CallbackError =
    unsafe extern "C" fn(code: c_int, message: *const c_char, message_size: usize) -> *mut PJRT_Error;
/// Frees a value that a callback returned.
pub type PJRT_KeyValueCallback_ValueDeleter = unsafe extern "C" fn(value: *mut c_char);
pub type PJRT_KeyValueGetCallback = unsafe extern "C" fn(args: *mut PJRT_KeyValueGetCallback_Args) -> *mut PJRT_Error;
pub type PJRT_KeyValueTryGetCallback =
    unsafe extern "C" fn(args: *mut PJRT_KeyValueTryGetCallback_Args) -> *mut PJRT_Error;
pub type PJRT_KeyValuePutCallback = unsafe extern "C" fn(args: *mut PJRT_KeyValuePutCallback_Args) -> *mut PJRT_Error;

/// Called once an event is ready; owns `error` (null for success).
pub type PJRT_Event_OnReadyCallback = unsafe extern "C" fn(error: *mut PJRT_Error, user_arg: *mut c_void);

calls! {
    PJRT_Error_Destroy { error: *mut PJRT_Error }
    PJRT_Error_Message { error: *const PJRT_Error, message: *const c_char, message_size: usize }
    PJRT_Error_GetCode { error: *const PJRT_Error, code: c_int }

    PJRT_Plugin_Initialize {}
    PJRT_Plugin_Attributes { attributes: *const PJRT_NamedValue, num_attributes: usize }

    PJRT_Event_Destroy { event: *mut PJRT_Event }
    PJRT_Event_IsReady { event: *mut PJRT_Event, is_ready: bool }
    PJRT_Event_Await { event: *mut PJRT_Event }
    PJRT_Event_OnReady {
        event: *mut PJRT_Event,
        callback: Option<PJRT_Event_OnReadyCallback>,
        user_arg: *mut c_void,
    }

    PJRT_Client_Create {
        create_options: *const PJRT_NamedValue,
        num_options: usize,
        kv_get_callback: Option<PJRT_KeyValueGetCallback>,
        kv_get_user_arg: *mut c_void,
        kv_put_callback: Option<PJRT_KeyValuePutCallback>,
        kv_put_user_arg: *mut c_void,
        client: *mut PJRT_Client,
        kv_try_get_callback: Option<PJRT_KeyValueTryGetCallback>,
        kv_try_get_user_arg: *mut c_void,
    }
    PJRT_Client_Destroy { client: *mut PJRT_Client }
    PJRT_Client_PlatformName { client: *mut PJRT_Client, platform_name: *const c_char, platform_name_size: usize }
    PJRT_Client_PlatformVersion {
        client: *mut PJRT_Client,
        platform_version: *const c_char,
        platform_version_size: usize,
    }
    PJRT_Client_ProcessIndex { client: *mut PJRT_Client, process_index: c_int }
    PJRT_Client_Devices { client: *mut PJRT_Client, devices: *const *mut PJRT_Device, num_devices: usize }
    PJRT_Client_AddressableDevices {
        client: *mut PJRT_Client,
        addressable_devices: *const *mut PJRT_Device,
        num_addressable_devices: usize,
    }
    PJRT_Client_Compile {
        client: *mut PJRT_Client,
        program: *const PJRT_Program,
        compile_options: *const c_char,
        compile_options_size: usize,
        executable: *mut PJRT_LoadedExecutable,
    }
    PJRT_Client_BufferFromHostBuffer {
        client: *mut PJRT_Client,
        data: *const c_void,
        element_type: c_int,
        dims: *const i64,
        num_dims: usize,
        byte_strides: *const i64,
        num_byte_strides: usize,
        host_buffer_semantics: c_int,
        device: *mut PJRT_Device,
        memory: *mut PJRT_Memory,
        device_layout: *mut PJRT_Buffer_MemoryLayout,
        done_with_host_buffer: *mut PJRT_Event,
        buffer: *mut PJRT_Buffer,
    }

    PJRT_DeviceDescription_Id { device_description: *mut PJRT_DeviceDescription, id: c_int }
    PJRT_DeviceDescription_ProcessIndex { device_description: *mut PJRT_DeviceDescription, process_index: c_int }
    PJRT_DeviceDescription_Attributes {
        device_description: *mut PJRT_DeviceDescription,
        num_attributes: usize,
        attributes: *const PJRT_NamedValue,
    }
    PJRT_DeviceDescription_Kind {
        device_description: *mut PJRT_DeviceDescription,
        device_kind: *const c_char,
        device_kind_size: usize,
    }
    PJRT_DeviceDescription_ToString {
        device_description: *mut PJRT_DeviceDescription,
        to_string: *const c_char,
        to_string_size: usize,
    }

    PJRT_Device_GetDescription { device: *mut PJRT_Device, device_description: *mut PJRT_DeviceDescription }
    PJRT_Device_IsAddressable { device: *mut PJRT_Device, is_addressable: bool }
    PJRT_Device_LocalHardwareId { device: *mut PJRT_Device, local_hardware_id: c_int }
    PJRT_Device_MemoryStats {
        device: *mut PJRT_Device,
        bytes_in_use: i64,
        peak_bytes_in_use: i64,
        peak_bytes_in_use_is_set: bool,
        num_allocs: i64,
        num_allocs_is_set: bool,
        largest_alloc_size: i64,
        largest_alloc_size_is_set: bool,
        bytes_limit: i64,
        bytes_limit_is_set: bool,
        bytes_reserved: i64,
        bytes_reserved_is_set: bool,
        peak_bytes_reserved: i64,
        peak_bytes_reserved_is_set: bool,
        bytes_reservable_limit: i64,
        bytes_reservable_limit_is_set: bool,
        largest_free_block_bytes: i64,
        largest_free_block_bytes_is_set: bool,
        pool_bytes: i64,
        pool_bytes_is_set: bool,
        peak_pool_bytes: i64,
        peak_pool_bytes_is_set: bool,
    }

    PJRT_Executable_Destroy { executable: *mut PJRT_Executable }
    PJRT_Executable_Name {
        executable: *mut PJRT_Executable,
        executable_name: *const c_char,
        executable_name_size: usize,
    }
    PJRT_Executable_NumReplicas { executable: *mut PJRT_Executable, num_replicas: usize }
    PJRT_Executable_NumPartitions { executable: *mut PJRT_Executable, num_partitions: usize }
    PJRT_Executable_NumOutputs { executable: *mut PJRT_Executable, num_outputs: usize }
    PJRT_Executable_SizeOfGeneratedCodeInBytes { executable: *mut PJRT_Executable, size_in_bytes: i64 }
    PJRT_Executable_GetCostAnalysis {
        executable: *mut PJRT_Executable,
        num_properties: usize,
        properties: *const PJRT_NamedValue,
    }
    PJRT_Executable_OptimizedProgram { executable: *mut PJRT_Executable, program: *mut PJRT_Program }
    PJRT_Executable_Serialize {
        executable: *const PJRT_Executable,
        serialized_bytes: *const c_char,
        serialized_bytes_size: usize,
        serialized_executable: *mut PJRT_SerializedExecutable,
        serialized_executable_deleter: Option<unsafe extern "C" fn(*mut PJRT_SerializedExecutable)>,
    }
    PJRT_Executable_DeserializeAndLoad {
        client: *mut PJRT_Client,
        serialized_executable: *const c_char,
        serialized_executable_size: usize,
        loaded_executable: *mut PJRT_LoadedExecutable,
        overridden_serialized_compile_options: *const c_char,
        overridden_serialized_compile_options_size: usize,
    }
    PJRT_Executable_OutputElementTypes {
        executable: *mut PJRT_Executable,
        output_types: *const c_int,
        num_output_types: usize,
    }
    PJRT_Executable_OutputDimensions {
        executable: *mut PJRT_Executable,
        num_outputs: usize,
        dims: *const i64,
        dim_sizes: *const usize,
    }
    PJRT_Executable_Fingerprint {
        executable: *mut PJRT_Executable,
        executable_fingerprint: *const c_char,
        executable_fingerprint_size: usize,
    }
    PJRT_Executable_GetCompiledMemoryStats {
        executable: *mut PJRT_Executable,
        generated_code_size_in_bytes: i64,
        argument_size_in_bytes: i64,
        output_size_in_bytes: i64,
        alias_size_in_bytes: i64,
        temp_size_in_bytes: i64,
        host_generated_code_size_in_bytes: i64,
        host_argument_size_in_bytes: i64,
        host_output_size_in_bytes: i64,
        host_alias_size_in_bytes: i64,
        host_temp_size_in_bytes: i64,
        peak_memory_in_bytes: i64,
        total_size_in_bytes: i64,
        total_allocation_bytes: i64,
        indefinite_allocations: i64,
        peak_unpadded_heap_bytes: i64,
    }

    PJRT_LoadedExecutable_Destroy { executable: *mut PJRT_LoadedExecutable }
    PJRT_LoadedExecutable_GetExecutable {
        loaded_executable: *mut PJRT_LoadedExecutable,
        executable: *mut PJRT_Executable,
    }
    PJRT_LoadedExecutable_AddressableDevices {
        executable: *mut PJRT_LoadedExecutable,
        addressable_devices: *const *mut PJRT_Device,
        num_addressable_devices: usize,
    }
    PJRT_LoadedExecutable_Execute {
        executable: *mut PJRT_LoadedExecutable,
        options: *mut PJRT_ExecuteOptions,
        argument_lists: *const *const *mut PJRT_Buffer,
        num_devices: usize,
        num_args: usize,
        output_lists: *const *mut *mut PJRT_Buffer,
        device_complete_events: *mut *mut PJRT_Event,
        execute_device: *mut PJRT_Device,
    }

    PJRT_Buffer_Destroy { buffer: *mut PJRT_Buffer }
    PJRT_Buffer_ElementType { buffer: *mut PJRT_Buffer, element_type: c_int }
    PJRT_Buffer_Dimensions { buffer: *mut PJRT_Buffer, dims: *const i64, num_dims: usize }
    PJRT_Buffer_OnDeviceSizeInBytes { buffer: *mut PJRT_Buffer, on_device_size_in_bytes: usize }
    PJRT_Buffer_Device { buffer: *mut PJRT_Buffer, device: *mut PJRT_Device }
    PJRT_Buffer_Delete { buffer: *mut PJRT_Buffer }
    PJRT_Buffer_IsDeleted { buffer: *mut PJRT_Buffer, is_deleted: bool }
    PJRT_Buffer_CopyToDevice {
        buffer: *mut PJRT_Buffer,
        dst_device: *mut PJRT_Device,
        dst_buffer: *mut PJRT_Buffer,
    }
    PJRT_Buffer_ToHostBuffer {
        src: *mut PJRT_Buffer,
        host_layout: *mut PJRT_Buffer_MemoryLayout,
        dst: *mut c_void,
        dst_size: usize,
        event: *mut PJRT_Event,
    }
    PJRT_Buffer_ReadyEvent { buffer: *mut PJRT_Buffer, event: *mut PJRT_Event }

    PJRT_TopologyDescription_Create {
        topology_name: *const c_char,
        topology_name_size: usize,
        create_options: *const PJRT_NamedValue,
        num_options: usize,
        topology: *mut PJRT_TopologyDescription,
    }
    PJRT_TopologyDescription_Destroy { topology: *mut PJRT_TopologyDescription }
    PJRT_TopologyDescription_PlatformName {
        topology: *const PJRT_TopologyDescription,
        platform_name: *const c_char,
        platform_name_size: usize,
    }
    PJRT_TopologyDescription_PlatformVersion {
        topology: *mut PJRT_TopologyDescription,
        platform_version: *const c_char,
        platform_version_size: usize,
    }
    PJRT_TopologyDescription_GetDeviceDescriptions {
        topology: *const PJRT_TopologyDescription,
        descriptions: *const *mut PJRT_DeviceDescription,
        num_descriptions: usize,
    }
    PJRT_Compile {
        topology: *const PJRT_TopologyDescription,
        program: *const PJRT_Program,
        compile_options: *const c_char,
        compile_options_size: usize,
        client: *mut PJRT_Client,
        executable: *mut PJRT_Executable,
    }
}

impl PJRT_Program {
    /// Returns a program of a serialized HloModuleProto, format name `hlo`, which every plugin accepts. Valid while `hlo` is.
    pub fn hlo(hlo: &[u8]) -> Self {
        const FORMAT: &str = "hlo";
        PJRT_Program {
            // The field is mutable for `PJRT_Executable_OptimizedProgram`, which fills it; a compilation only reads it.
            code: hlo.as_ptr().cast_mut().cast(),
            code_size: hlo.len(),
            format: FORMAT.as_ptr().cast(),
            format_size: FORMAT.len(),
            ..Self::new()
        }
    }
}

impl PJRT_Buffer_MemoryLayout {
    /// Returns the layout with dimension order `minor_to_major`, without tiles. Valid while `minor_to_major` is.
    pub fn dense(minor_to_major: &[i64]) -> Self {
        let tiled = PJRT_Buffer_MemoryLayout_Tiled {
            minor_to_major: minor_to_major.as_ptr(),
            minor_to_major_size: minor_to_major.len(),
            tile_dims: ptr::null(),
            ..PJRT_Buffer_MemoryLayout_Tiled::new()
        };
        PJRT_Buffer_MemoryLayout { tiled, kind: 0, ..Self::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn struct_size_excludes_trailing_padding() {
        assert_eq!(PJRT_Plugin_Initialize::SIZE, 16);
        assert_eq!(PJRT_Event_IsReady::SIZE, 25);
        assert_eq!(PJRT_Error_GetCode::SIZE, 28);
        assert_eq!(PJRT_Client_Create::SIZE, 88);
        assert_eq!(PJRT_NamedValue::SIZE, 56);
        assert_eq!(PJRT_KeyValueGetCallback_Args::SIZE, 80);
        assert_eq!(PJRT_KeyValueTryGetCallback_Args::SIZE, 72);
        assert_eq!(PJRT_KeyValuePutCallback_Args::SIZE, 64);
        assert_eq!(PJRT_Buffer_ToHostBuffer::SIZE, 56);
        assert_eq!(PJRT_LoadedExecutable_Execute::SIZE, 80);
    }

    #[test]
    fn table_offsets_match_the_header() {
        // 16 bytes of size and extensions, 24 of version, then one pointer for each function.
        assert_eq!(PJRT_Error_Destroy::OFFSET, 40);
        assert_eq!(PJRT_Client_Create::OFFSET, 40 + 8 * 10);
        assert_eq!(PJRT_Buffer_ToHostBuffer::OFFSET, 600);
        assert_eq!(PJRT_Executable_GetCompiledMemoryStats::OFFSET, 40 + 8 * 96);
    }
}
