//! The device options, shared by every verb that runs programs.

use std::num::NonZeroUsize;

use clap::Args;

use super::shell::quoted;
use crate::output::note;
use crate::pjrt::PlatformChoice;
use crate::runtime::devices::Devices;

#[derive(Debug, Args)]
pub struct DeviceArgs {
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

impl DeviceArgs {
    /// Returns the options that differ from their defaults, as words of a command line, each after a space.
    pub fn to_command_line(&self) -> String {
        let platform = match self.platform.to_string() {
            auto if auto == "auto" => String::new(),
            platform => format!(" --platform {}", quoted(&platform)),
        };
        let devices = self.devices.map_or(String::new(), |devices| format!(" --devices {devices}"));
        platform + &devices
    }

    /// Opens the devices; prints on standard error why each better platform was not used.
    ///
    /// # Errors
    /// As [`Devices::open`].
    pub fn open(&self) -> anyhow::Result<Devices> {
        let devices = Devices::open(&self.platform, self.devices.map(NonZeroUsize::get))?;
        devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
        Ok(devices)
    }
}
