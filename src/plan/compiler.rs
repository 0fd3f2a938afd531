//! Compiles programs for a [`Target`], through the plugin of its platform.

use anyhow::ensure;

use super::hardware::Accelerator;
use super::target::Target;
use crate::pjrt::{
    CompileOptions, CreateOption, Environment, ErrorCode, Executable, LoadedExecutable, PjrtError, PlatformChoice,
    Plugin, Topology,
};
use crate::runtime::devices::Devices;
use crate::runtime::limits;

/// The use of compiled programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read their memory, costs and kernels.
    Inspect,
    /// To save them and run them later.
    Run,
}

/// A plugin that compiles for a [`Target`].
pub struct Compiler {
    /// The loaded plugin.
    pub plugin: Plugin,
    /// The version string of the plugin.
    pub platform_version: String,
    backend: Backend,
}

/// The means of compilation: a description of absent devices, or devices of this machine.
enum Backend {
    Absent(Topology, CompileOptions),
    Present(Devices),
}

/// A program compiled for absent or for present devices.
pub enum Compiled {
    /// Compiled for a topology.
    Absent(Executable),
    /// Compiled and loaded on devices.
    Present(LoadedExecutable),
}

impl std::ops::Deref for Compiled {
    type Target = Executable;

    fn deref(&self) -> &Executable {
        match self {
            Compiled::Absent(executable) => executable,
            Compiled::Present(loaded) => loaded,
        }
    }
}

impl Compiler {
    /// Loads the plugin selected by `choice` (`auto` selects the target's platform) and describes the target to it. Programs
    /// that will run are compiled with [`deviceless_overrides`](crate::pjrt::deviceless_overrides).
    ///
    /// # Errors
    /// If the plugin is not found, cannot compile for absent hardware, or does not support the target.
    pub fn open(target: &Target, choice: &PlatformChoice, purpose: Purpose) -> anyhow::Result<Compiler> {
        let platform = target.platform();
        let choice = match choice {
            PlatformChoice::Auto => &PlatformChoice::Platform(platform),
            choice => choice,
        };
        let Some(accelerator) = target.accelerator else {
            let devices = Devices::open(choice, Some(target.devices()))?;
            let platform_version = devices.client.platform_version().to_owned();
            let plugin = devices.client.plugin();
            return Ok(Compiler { plugin, platform_version, backend: Backend::Present(devices) });
        };
        limits::check()?;
        let plugin = Environment::of_process().find(choice)?.item;
        let (name, options) = description(accelerator, target);
        let topology = Topology::new(&plugin, &name, &options).map_err(|error| match &error {
            PjrtError::Call { code: ErrorCode::Unimplemented, .. } | PjrtError::Absent { .. } => anyhow::Error::from(
                error,
            )
            .context(format!(
                "the plugin {} cannot compile for absent hardware; {target} needs the {platform} plugin: run `lambert \
                 plugin install {platform}`",
                plugin.path().display()
            )),
            _ => anyhow::Error::from(error)
                .context(format!("the plugin {} does not support {target}", plugin.path().display())),
        })?;
        let described = topology.device_descriptions()?;
        ensure!(
            described.len() == target.devices()
                && described.iter().all(|device| Accelerator::of_kind(&device.kind) == Some(accelerator)),
            "the plugin {} describes {target} as {} devices of kind {:?}, expected {} devices of kind {:?}; use the {platform} \
             plugin: run `lambert plugin install {platform}`",
            plugin.path().display(),
            described.len(),
            described.first().map_or("", |device| &device.kind),
            target.devices(),
            accelerator.kind,
        );
        let platform_version = topology.platform_version()?;
        let options = CompileOptions::replicas(target.devices()).for_platform(platform.name());
        let options = match purpose {
            Purpose::Inspect => options,
            Purpose::Run => options.deviceless(platform.name()),
        };
        Ok(Compiler { plugin, platform_version, backend: Backend::Absent(topology, options) })
    }

    /// Compiles a serialized HloModuleProto with one replica on each device.
    ///
    /// # Errors
    /// If the compiler fails.
    pub fn compile(&self, hlo: &[u8]) -> Result<Compiled, anyhow::Error> {
        match &self.backend {
            Backend::Absent(topology, options) => Ok(Compiled::Absent(topology.compile(hlo, options)?)),
            Backend::Present(devices) => Ok(Compiled::Present(devices.compile(hlo)?)),
        }
    }
}

/// Returns the name and the options of a PJRT topology description of `target`.
fn description(accelerator: &Accelerator, target: &Target) -> (String, Vec<CreateOption>) {
    let shape = target.shape();
    if let Some(gpu) = accelerator.gpu {
        let config = gpu.target_config(accelerator.memory_bandwidth);
        return (String::new(), vec![CreateOption::new("topology", shape), CreateOption::new("target_config", config)]);
    }
    // Without "megacore", libtpu shows the two cores of a v4 chip as two devices; JAX and lambert use them as one.
    let megacore = (accelerator.name == "v4").then(|| CreateOption::new("chip_config_name", "megacore"));
    (format!("{}:{shape}", accelerator.name), megacore.into_iter().collect())
}
