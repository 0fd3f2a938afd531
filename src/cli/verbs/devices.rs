//! `lambert devices`: lists the platforms of this machine with their devices, and why others cannot be used.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::args::device::DeviceChoice;
use crate::output::{print_text, table};
use crate::pjrt::{Client, Device, Environment, Found, Platform, PlatformChoice, client_options};
use crate::runtime::limits;
use crate::units::byte_size;

/// List the platforms and devices of this machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert devices
  lambert devices --platform cpu --devices 8 --json")]
pub struct Devices {
    #[command(flatten)]
    devices: DeviceChoice,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    platforms: Vec<PlatformReport>,
}

/// One platform: its plugin and devices, or the reason why it cannot be used.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum PlatformReport {
    Usable {
        platform: String,
        plugin: PathBuf,
        pjrt_c_api: String,
        platform_version: String,
        devices: Vec<DeviceReport>,
    },
    Unusable {
        platform: String,
        reason: String,
    },
}

#[derive(Debug, Serialize)]
struct DeviceReport {
    id: i32,
    kind: String,
    process_index: i32,
    addressable: bool,
    /// The memory of the allocator, if the plugin reports it.
    memory_bytes: Option<i64>,
    memory_in_use_bytes: Option<i64>,
    description: String,
}

pub fn run(args: Devices) -> anyhow::Result<ExitCode> {
    limits::check()?;
    let environment = Environment::of_process();
    let count = args.devices.devices.map(NonZeroUsize::get);
    let open = |choice: &PlatformChoice| environment.open(choice, |platform| client_options(platform, count));
    let platforms: Vec<PlatformReport> = match &args.devices.platform {
        // All platforms, not only the one that auto chooses.
        PlatformChoice::Auto => Platform::ALL
            .into_iter()
            .map(|platform| {
                let found = match platform.hardware() {
                    Ok(()) => open(&PlatformChoice::Platform(platform)).map_err(|error| error.to_string()),
                    Err(reason) => Err(reason),
                };
                describe(platform.name(), found)
            })
            .collect(),
        choice => vec![describe(&choice.to_string(), open(choice).map_err(|error| error.to_string()))],
    };
    let usable = platforms.iter().any(|platform| matches!(platform, PlatformReport::Usable { .. }));
    let report = Report { platforms };
    let text = if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { table(&report) };
    print_text(text)?;
    if !usable {
        bail!("no platform can be used; install the CPU plugin with `lambert plugin install cpu`");
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(name: &str, found: Result<Found<Client>, String>) -> PlatformReport {
    let found = match found {
        Ok(found) => found,
        Err(reason) => return PlatformReport::Unusable { platform: name.to_owned(), reason },
    };
    let client = found.item;
    let (major, minor) = client.plugin().api_version();
    PlatformReport::Usable {
        platform: client.platform_name().to_owned(),
        plugin: found.path,
        pjrt_c_api: format!("{major}.{minor}"),
        platform_version: client.platform_version().to_owned(),
        devices: client.devices().iter().map(describe_device).collect(),
    }
}

fn describe_device(device: &Device) -> DeviceReport {
    let memory = device.memory_stats().ok();
    DeviceReport {
        id: device.id(),
        kind: device.kind().to_owned(),
        process_index: device.description().process_index,
        addressable: device.is_addressable().unwrap_or(false),
        memory_bytes: memory.and_then(|memory| memory.bytes_limit),
        memory_in_use_bytes: memory.map(|memory| memory.bytes_in_use),
        description: device.description().text.clone(),
    }
}

/// Formats the report as text.
fn table(report: &Report) -> String {
    let mut text = String::new();
    for platform in &report.platforms {
        match platform {
            PlatformReport::Unusable { platform, reason } => text += &format!("{platform}: not usable: {reason}\n"),
            PlatformReport::Usable { platform, plugin, pjrt_c_api, platform_version, devices } => {
                text += &format!("{platform}: {} (PJRT C API {pjrt_c_api})\n", plugin.display());
                // The version of some platforms is only their name.
                for line in platform_version.lines().map(str::trim).filter(|line| !line.is_empty() && line != platform)
                {
                    text += &format!("  {line}\n");
                }
                let mut table = table::bordered();
                table.set_header(["id", "kind", "memory", "in use", "process"]);
                for device in devices {
                    table.add_row([
                        device.id.to_string(),
                        device.kind.clone(),
                        device.memory_bytes.map_or("the host's".to_owned(), |bytes| byte_size(bytes as f64)),
                        device.memory_in_use_bytes.map_or(String::new(), |bytes| byte_size(bytes as f64)),
                        if device.addressable { "this".to_owned() } else { device.process_index.to_string() },
                    ]);
                }
                text += &format!("{table}\n");
            }
        }
    }
    text
}
