//! The two options of every verb that works on devices.

use std::num::NonZeroUsize;

use clap::Args;

use crate::output::note;
use crate::pjrt::PlatformChoice;
use crate::runtime::devices::Devices;

#[derive(Debug, Args)]
pub struct DeviceArgs {
    /// auto, cpu, cuda, tpu, or the path of a PJRT plugin (a shared library)
    #[arg(long, default_value = "auto", value_name = "PLATFORM", help_heading = "Devices")]
    pub platform: PlatformChoice,
    /// Devices to work on, one replica on each [default: all, and one on the CPU]
    #[arg(long, value_name = "N", help_heading = "Devices")]
    pub devices: Option<NonZeroUsize>,
}

impl DeviceArgs {
    /// Opens the devices; says on standard error why each better platform was not used, if that was left to choose.
    ///
    /// # Errors
    /// As [`Devices::open`].
    pub fn open(&self) -> anyhow::Result<Devices> {
        let devices = Devices::open(&self.platform, self.devices.map(NonZeroUsize::get))?;
        devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
        Ok(devices)
    }
}
