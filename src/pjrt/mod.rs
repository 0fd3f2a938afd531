//! A safe wrapper of the PJRT C API, with PJRT's terms. A program is a serialized HloModuleProto.
//!
//! [`Environment`] finds and loads a [`Plugin`]. A [`Client`] of the plugin has [`Device`]s, compiles programs into
//! [`LoadedExecutable`]s and copies arrays to devices as [`Buffer`]s; execution maps buffers to buffers. Almost all work
//! is asynchronous: a buffer is returned before its contents exist, and an [`Event`] reports completion and errors. A
//! [`Topology`] describes devices that are absent, and compiles for them into an [`Executable`], which reports memory and
//! cost.
//!
//! Each owner destroys its C object when dropped and holds the objects that it depends on: a buffer holds its client, a
//! client its plugin. Plugins are never unloaded. On Linux with glibc, `kept_blocks.rs` keeps the memory of XLA's CPU client between
//! executions. This is the only module with `unsafe` code.
//!
//! | type | `Send` | `Sync` | reason |
//! |---|---|---|---|
//! | [`Plugin`], [`Topology`], [`Executable`] | yes | yes | the C API only reads them |
//! | [`Client`], [`Device`] | yes | yes | PJRT's client is thread-safe; its devices are constant |
//! | [`LoadedExecutable`] | yes | yes | several threads may execute at once |
//! | [`Buffer`] | yes | yes | reference-counted; reading, donating and deleting are locked by the plugin |
//! | [`Event`] | yes | yes | any thread may poll, wait and register callbacks |
//! | [`HostTransfer`] | yes | yes | its memory is read only after its event |

#![allow(unsafe_code, reason = "calls of the C API are unsafe; no other module needs it")]

mod api;
mod buffer;
mod client;
mod client_handle;
mod device;
mod device_description;
mod discovery;
mod error;
mod event;
mod executable;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod kept_blocks;
mod key_value_callbacks;
mod named_value;
mod options;
mod plugin;
mod sys;
mod topology;

pub use buffer::{Buffer, HostBytes, HostTransfer};
pub use client::Client;
pub use device::{Device, MemoryStats};
pub use device_description::DeviceDescription;
pub use discovery::{Environment, Found, Platform, PlatformChoice, Rejected};
pub use error::{ErrorCode, PjrtError};
pub use event::Event;
pub use executable::{CompiledMemoryStats, Executable, ExecuteOptions, Execution, LoadedExecutable, OptimizedProgram};
pub use named_value::{CreateOption, Value};
pub use options::{
    CUDA_MEMORY_FRACTION, CompileOptions, Effort, Override, client_options, deviceless_overrides,
    multi_process_options, recommended_overrides,
};
pub use plugin::{Plugin, show_plugin_messages};
pub use topology::Topology;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_send_and_sync_as_documented() {
        fn send_and_sync<T: Send + Sync>() {}
        send_and_sync::<(Plugin, Topology, Executable)>();
        send_and_sync::<(Client, Device, LoadedExecutable)>();
        send_and_sync::<(Buffer, Event, HostTransfer)>();
    }
}
