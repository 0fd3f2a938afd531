//! The devices a run works on: one replica of the step on each.

use anyhow::{Context, bail};

use crate::pjrt::{Client, CompileOptions, Device, Environment, LoadedExecutable, PlatformChoice, client_options};

/// A client and the devices chosen of it, in the order of the replicas.
#[derive(Debug)]
pub struct Devices {
    pub client: Client,
    pub devices: Vec<Device>,
    /// Why each better platform was not used, a sentence each.
    pub passed_over: Vec<String>,
}

impl Devices {
    /// Opens the platform that `choice` means and takes `count` of its devices: all that it shows if none is given, and on
    /// the CPU one. The CPU shows as many as are asked for; they share its cores.
    ///
    /// # Errors
    /// If no plugin can be used, or it shows fewer devices.
    pub fn open(choice: &PlatformChoice, count: Option<usize>) -> anyhow::Result<Devices> {
        if count == Some(0) {
            bail!("--devices requires at least 1, got 0");
        }
        let options = |platform| client_options(platform, count);
        let found = Environment::of_process().open(choice, options)?;
        let client = found.item;
        let mut devices = client.addressable_devices();
        let shown = devices.len();
        if let Some(count) = count {
            if count > shown {
                bail!("--devices {count} requires {count} devices, {} shows {shown}", client.platform_name());
            }
            devices.truncate(count);
        }
        let passed_over = found.rejected.iter().map(ToString::to_string).collect();
        Ok(Devices { client, devices, passed_over })
    }

    /// Number of replicas.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Never: there is at least one device.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// As a person wants to read it: `2 × NVIDIA H200 (cuda)`.
    pub fn describe(&self) -> String {
        let kind = self.devices.first().map_or("", |device| device.kind());
        format!("{} × {kind} ({})", self.len(), self.client.platform_name())
    }

    /// Compiles a serialized HloModuleProto into one replica on each device, with the flags that are fastest there.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, hlo: &[u8]) -> anyhow::Result<LoadedExecutable> {
        let options = CompileOptions {
            device_assignment: Some(vec![self.devices.iter().map(|device| i64::from(device.id())).collect()]),
            ..CompileOptions::replicas(self.len())
        };
        let options = options.for_platform(self.client.platform_name());
        self.client.compile(hlo, &options).context("cannot compile the step")
    }
}
