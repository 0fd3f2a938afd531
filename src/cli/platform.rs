//! `--platform` and `--devices`, for every verb that runs programs.

use anyhow::ensure;
use clap::Args;

use crate::pjrt::{Client, CreateOption, Device, Environment, Platform, PlatformChoice};

/// Where a verb runs.
#[derive(Debug, Clone, Args)]
pub struct PlatformArgs {
    /// Where to run: auto (the first of tpu, cuda, cpu that works), one of these, or the path of a PJRT plugin.
    #[arg(long, default_value = "auto", value_name = "PLATFORM")]
    pub platform: PlatformChoice,
    /// How many devices to use. On CPU that many virtual ones are made (default 1); elsewhere the first N of those
    /// here (default all).
    #[arg(long, value_name = "N")]
    pub devices: Option<usize>,
}

/// A client and those of its devices that the verb is to use.
#[derive(Debug)]
pub struct Runtime {
    pub client: Client,
    pub devices: Vec<Device>,
}

impl PlatformArgs {
    /// Starts the runtime. Why a better platform was not used is said on standard error.
    pub fn open(&self) -> anyhow::Result<Runtime> {
        ensure!(self.devices != Some(0), "--devices requires at least 1, got 0");
        let found =
            Environment::of_process().open(&self.platform, |platform| create_options(platform, self.devices))?;
        for rejected in &found.rejected {
            eprintln!("not on {rejected}");
        }
        let client = found.item;
        let mut devices = client.addressable_devices();
        let n = self.devices.unwrap_or(devices.len());
        ensure!(devices.len() >= n, "--devices {n}: {} has {} devices", client.platform_name(), devices.len());
        devices.truncate(n);
        Ok(Runtime { client, devices })
    }
}

/// How the client of a platform is made.
pub fn create_options(platform: Option<Platform>, devices: Option<usize>) -> Vec<CreateOption> {
    match platform {
        Some(Platform::Cpu) => vec![CreateOption::new("cpu_device_count", devices.unwrap_or(1) as i64)],
        Some(Platform::Cuda) => {
            // The plugin's own 0.75 leaves a quarter of the card idle; the rest is for CUDA's context and libraries.
            let mut options = vec![CreateOption::new("memory_fraction", 0.92_f32)];
            if let Some(n) = devices {
                options.push(CreateOption::new("visible_devices", (0..n as i64).collect::<Vec<_>>()));
            }
            options
        }
        Some(Platform::Tpu) | None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Verb {
        #[command(flatten)]
        platform: PlatformArgs,
    }

    #[test]
    fn the_arguments_are_read() {
        let verb = Verb::parse_from(["verb"]);
        assert_eq!((verb.platform.platform, verb.platform.devices), (PlatformChoice::Auto, None));
        let verb = Verb::parse_from(["verb", "--platform", "/a/b.so", "--devices", "4"]);
        assert_eq!(verb.platform.platform, PlatformChoice::File("/a/b.so".into()));
        assert_eq!(verb.platform.devices, Some(4));
        let error = Verb::try_parse_from(["verb", "--platform", "gpu"]).err().expect("no such platform").to_string();
        assert!(error.contains("requires auto, cpu, cuda, tpu"), "{error}");
    }

    #[test]
    fn no_devices_is_refused() {
        let args = PlatformArgs { platform: PlatformChoice::Auto, devices: Some(0) };
        assert!(args.open().expect_err("nothing to run on").to_string().contains("at least 1"));
    }
}
