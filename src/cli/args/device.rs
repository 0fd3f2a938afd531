//! The device options, shared by every verb that runs programs.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::shell::quoted;
use crate::output::note;
use crate::pjrt::PlatformChoice;
use crate::runtime::compilation_cache;
use crate::runtime::devices::Devices;

#[derive(Debug, Args)]
pub struct DeviceChoice {
    /// Platform to use: auto, cpu, cuda, tpu, or the path of a PJRT plugin
    ///
    /// auto uses the fastest platform of this machine and prints why faster ones cannot be used. A path names the shared
    /// library of a PJRT plugin.
    #[arg(long, default_value = "auto", value_name = "PLATFORM", help_heading = "Devices")]
    pub platform: PlatformChoice,
    /// Number of devices, with one replica on each [default: all; 1 on the CPU]
    #[arg(long, value_name = "N", help_heading = "Devices")]
    pub devices: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
pub struct DeviceArgs {
    #[command(flatten)]
    choice: DeviceChoice,
    /// Compile all programs anew, and save none
    ///
    /// By default compiled programs are kept in ~/.cache/lambert/compiled ($XDG_CACHE_HOME/lambert/compiled), at most 2 GB, and
    /// loaded if program, plugin, devices and processor are the same. The directory can be removed at any time.
    #[arg(long, env = "LAMBERT_NO_CACHE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    #[arg(help_heading = "Devices")]
    no_cache: bool,
}

impl DeviceArgs {
    /// Returns the platform.
    pub fn platform(&self) -> &PlatformChoice {
        &self.choice.platform
    }

    /// Returns the number of devices, if one is given.
    pub fn count(&self) -> Option<usize> {
        self.choice.devices.map(NonZeroUsize::get)
    }

    /// Returns the directory of the compilation cache, if one is to be used.
    pub fn cache(&self) -> Option<PathBuf> {
        compilation_cache::directory().filter(|_| !self.no_cache)
    }

    /// Returns the options that differ from their defaults, as arguments of another process.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let platform = self.platform().to_string();
        if platform != "auto" {
            arguments.extend(["--platform".to_owned(), platform]);
        }
        if let Some(devices) = self.count() {
            arguments.extend(["--devices".to_owned(), devices.to_string()]);
        }
        arguments.extend(self.no_cache.then(|| "--no-cache".to_owned()));
        arguments
    }

    /// Returns [`DeviceArgs::arguments`] as words of a command line, each after a space.
    pub fn to_command_line(&self) -> String {
        self.arguments().iter().map(|argument| format!(" {}", quoted(argument))).collect()
    }

    /// Opens the devices; prints on standard error why each better platform was not used.
    ///
    /// # Errors
    /// As [`Devices::open`].
    pub fn open(&self) -> anyhow::Result<Devices> {
        let devices = Devices::open(self.platform(), self.count())?.with_cache(self.cache().as_deref());
        devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
        Ok(devices)
    }
}
