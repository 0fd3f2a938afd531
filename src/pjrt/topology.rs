//! Topologies: descriptions of devices that may be absent. Compiling for a topology gives an [`Executable`] that can be
//! serialized and inspected for memory and cost on a machine without the hardware.

use std::sync::Arc;

use super::api::{Api, slice, text};
use super::device_description::DeviceDescription;
use super::error::PjrtError;
use super::executable::Executable;
use super::named_value::CreateOption;
use super::options::CompileOptions;
use super::plugin::Plugin;
use super::sys::{self, Struct};

/// A description of the devices to compile for.
pub struct Topology {
    api: Arc<Api>,
    raw: *mut sys::PJRT_TopologyDescription,
}

// SAFETY: the C API's functions on a topology only read, from any thread.
unsafe impl Send for Topology {}
// SAFETY: as above.
unsafe impl Sync for Topology {}

impl Topology {
    /// Creates a topology by the plugin's name for it: `v3:32x32` on libtpu, or an empty name with the option `topology` on
    /// CUDA.
    ///
    /// # Errors
    /// If the plugin does not support the topology.
    pub fn new(plugin: &Plugin, name: &str, options: &[CreateOption]) -> Result<Self, PjrtError> {
        let options: Vec<_> = options.iter().map(CreateOption::as_named_value).collect();
        let mut args = sys::PJRT_TopologyDescription_Create {
            topology_name: name.as_ptr().cast(),
            topology_name_size: name.len(),
            create_options: options.as_ptr(),
            num_options: options.len(),
            ..Struct::new()
        };
        // SAFETY: name and options are alive during the call; the topology is then ours.
        unsafe { plugin.api.call(&mut args)? };
        Ok(Topology { api: plugin.api.clone(), raw: args.topology })
    }

    /// Returns the plugin's platform name.
    ///
    /// # Errors
    /// If the call fails.
    pub fn platform_name(&self) -> Result<String, PjrtError> {
        let mut args = sys::PJRT_TopologyDescription_PlatformName { topology: self.raw, ..Struct::new() };
        // SAFETY: the topology is alive and owns the text.
        unsafe {
            self.api.call(&mut args)?;
            Ok(text(args.platform_name, args.platform_name_size))
        }
    }

    /// Returns the versions of the underlying software.
    ///
    /// # Errors
    /// If the call fails.
    pub fn platform_version(&self) -> Result<String, PjrtError> {
        let mut args = sys::PJRT_TopologyDescription_PlatformVersion { topology: self.raw, ..Struct::new() };
        // SAFETY: the topology is alive and owns the text.
        unsafe {
            self.api.call(&mut args)?;
            Ok(text(args.platform_version, args.platform_version_size))
        }
    }

    /// Returns the descriptions of the devices.
    ///
    /// # Errors
    /// If a call fails.
    pub fn device_descriptions(&self) -> Result<Vec<DeviceDescription>, PjrtError> {
        let mut args = sys::PJRT_TopologyDescription_GetDeviceDescriptions { topology: self.raw, ..Struct::new() };
        // SAFETY: the topology is alive and owns the descriptions.
        unsafe {
            self.api.call(&mut args)?;
            slice(args.descriptions, args.num_descriptions)
                .iter()
                .map(|&description| DeviceDescription::read(&self.api, description))
                .collect()
        }
    }

    /// Compiles a serialized HloModuleProto for these devices.
    ///
    /// # Errors
    /// If the plugin fails to compile the program.
    pub fn compile(&self, hlo: &[u8], options: &CompileOptions) -> Result<Executable, PjrtError> {
        let (program, options) = (sys::PJRT_Program::hlo(hlo), options.encode());
        let mut args = sys::PJRT_Compile {
            topology: self.raw,
            program: &program,
            compile_options: options.as_ptr().cast(),
            compile_options_size: options.len(),
            ..Struct::new()
        };
        // SAFETY: topology, program and options are alive during the call; no client is meant; the executable is ours.
        unsafe {
            self.api.call(&mut args)?;
            Ok(Executable::from_raw(&self.api, None, args.executable))
        }
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        let mut args = sys::PJRT_TopologyDescription_Destroy { topology: self.raw, ..Struct::new() };
        // SAFETY: ours and alive.
        let _ = unsafe { self.api.call(&mut args) };
    }
}
