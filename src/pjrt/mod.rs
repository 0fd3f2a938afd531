//! The runtime: bytes of HLO in, work on devices out, through whatever PJRT plugin the machine has. This is the only room
//! with `unsafe` code, and it knows no graphs: a program is a serialized HloModuleProto.
//!
//! The path of a program: a [`Plugin`] is found ([`Environment`]) and loaded; with it a [`Client`] is made, which has
//! [`Device`]s; the client compiles the program into a [`LoadedExecutable`] and puts arrays on devices as [`Buffer`]s;
//! executing turns buffers into buffers. Almost everything is asynchronous: a buffer is returned while it is being made, an
//! [`Event`] says when it is, and an error of the work appears there. For hardware that is not here, a [`Topology`]
//! compiles into an [`Executable`], which tells memory and cost.
//!
//! Nouns are PJRT's. Each owner destroys its C object when dropped, and holds what that object needs: a buffer holds its
//! client, a client its plugin. Plugins are never unloaded.
//!
//! | type | `Send` | `Sync` | because |
//! |---|---|---|---|
//! | [`Plugin`], [`Topology`], [`Executable`] | yes | yes | the C API only reads them |
//! | [`Client`], [`Device`] | yes | yes | PJRT's client is thread-safe; devices are its constants |
//! | [`LoadedExecutable`] | yes | yes | several threads may execute at once |
//! | [`Buffer`] | yes | yes | reference-counted; reading, donating and deleting are locked by the plugin |
//! | [`Event`] | yes | yes | any thread may poll, wait and register callbacks |
//! | [`HostTransfer`] | yes | yes | its memory is touched only after its event |

#![allow(unsafe_code, reason = "the C API can be reached in no other way; nothing outside this room needs it")]

mod api;
mod buffer;
mod callbacks;
mod client;
mod client_handle;
mod device;
mod device_description;
mod error;
mod event;
mod executable;
mod named_value;
mod options;
mod platform;
mod plugin;
mod search;
mod sys;
mod topology;

pub use buffer::{Buffer, HostBytes, HostTransfer};
pub use client::Client;
pub use device::{Device, MemoryStats};
pub use device_description::DeviceDescription;
pub use error::{ErrorCode, PjrtError};
pub use event::Event;
pub use executable::{CompiledMemoryStats, Executable, ExecuteOptions, Execution, LoadedExecutable, OptimizedProgram};
pub use named_value::{CreateOption, Value};
pub use options::{
    CUDA_MEMORY_FRACTION, CompileOptions, Effort, Override, client_options, options_among, recommended_overrides,
};
pub use platform::Platform;
pub use plugin::Plugin;
pub use search::{Environment, Found, PlatformChoice, Rejected};
pub use topology::Topology;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_table_holds() {
        fn send_and_sync<T: Send + Sync>() {}
        send_and_sync::<(Plugin, Topology, Executable)>();
        send_and_sync::<(Client, Device, LoadedExecutable)>();
        send_and_sync::<(Buffer, Event, HostTransfer)>();
    }
}
