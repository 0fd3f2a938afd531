//! The host memory of a run, by the figures of its compiled programs, and the refusal of a run for which there is not enough.

use std::fmt;

use anyhow::anyhow;

use crate::pjrt::Platform;
use crate::runtime::devices::Devices;
use crate::runtime::limits::AvailableMemory;
use crate::units::byte_size;

/// The memory of this host that a run requires beyond what the process uses when its programs are compiled, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemory {
    /// State, batches and temporaries of the largest program, on all devices that use the host's memory; 0 for accelerators.
    programs: u64,
    /// A copy of weights and optimizer state: a checkpoint that is written beside the training.
    checkpoint: u64,
    available: Option<AvailableMemory>,
}

/// The error of a run that requires more memory than is available.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "the run requires {required}, found {} ({}); lower micro_batch_size, train on fewer devices or end other programs",
    byte_size(found.bytes as f64), found.limit
)]
pub struct TooLittleMemory {
    required: HostMemory,
    found: AvailableMemory,
}

impl HostMemory {
    /// Returns the memory of programs that use `peak_bytes` on each of `devices`, if the compiler counts them, with checkpoints of
    /// `checkpoint` bytes.
    pub fn of(peak_bytes: Option<u64>, devices: &Devices, checkpoint: u64) -> HostMemory {
        let uses_host = devices.client.platform_name() == Platform::Cpu.name();
        let peak = peak_bytes.filter(|_| uses_host).unwrap_or(0);
        let programs = peak * devices.devices.len() as u64;
        HostMemory { programs, checkpoint, available: AvailableMemory::of_process() }
    }

    fn required(&self) -> u64 {
        self.programs + self.checkpoint
    }

    /// Checks that the memory is available.
    ///
    /// # Errors
    /// If less is available.
    pub fn check(&self) -> Result<(), TooLittleMemory> {
        match self.available.filter(|available| available.bytes < self.required()) {
            None => Ok(()),
            Some(found) => Err(TooLittleMemory { required: *self, found }),
        }
    }

    /// Checks the memory unless `ignore`, the user's setting, is true.
    ///
    /// # Errors
    /// If less is available; the message names the setting.
    pub fn check_unless(&self, ignore: bool) -> anyhow::Result<()> {
        let checked = if ignore { Ok(()) } else { self.check() };
        checked.map_err(|error| anyhow!("{error}; set ignore_memory to start nevertheless"))
    }
}

/// Formats the memory as `1.3 GB of host memory (1.1 GB for the program, 0.2 GB for a checkpoint)`.
impl fmt::Display for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: u64| byte_size(bytes as f64);
        let (required, checkpoint) = (size(self.required()), size(self.checkpoint));
        match self.programs {
            0 => write!(f, "{required} of host memory for a checkpoint that is written"),
            programs => write!(
                f,
                "{required} of host memory ({} for the program, {checkpoint} for a checkpoint that is written)",
                size(programs)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_does_not_fit_is_refused_unless_the_user_ignores_it() {
        let available = |bytes| Some(AvailableMemory { bytes, limit: "the free memory of this machine" });
        let memory =
            HostMemory { programs: 3_000_000_000, checkpoint: 1_000_000_000, available: available(4_000_000_000) };
        memory.check().unwrap();
        HostMemory { available: None, ..memory }.check().unwrap();
        let short = HostMemory { available: available(3_500_000_000), ..memory };
        short.check_unless(true).unwrap();
        let message = short.check_unless(false).unwrap_err().to_string();
        let expected = "the run requires 4.00 GB of host memory (3.00 GB for the program, 1.00 GB for a checkpoint that is written), found \
                        3.50 GB (the free memory of this machine); lower micro_batch_size";
        assert!(
            message.starts_with(expected) && message.ends_with("; set ignore_memory to start nevertheless"),
            "{message}"
        );
    }
}
