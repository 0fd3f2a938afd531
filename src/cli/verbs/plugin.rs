//! `lambert plugin`: lists and installs PJRT plugins.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{Args, Subcommand};

use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print, table};
use crate::pjrt::Platform;
use crate::plugins::catalog::{
    InstallRequest, InstalledPlugin, ListedPlugin, PluginStatus, install_plugin, list_plugins,
};
use crate::plugins::wheels::InstallEvent;

/// List and install PJRT plugins, which compile and run programs
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    Install(Install),
    /// List the plugins of this machine and those that can be installed
    #[command(after_help = "Examples:\n  lambert plugin list")]
    List,
}

/// Install a plugin into the cache directory of the user, where every verb finds it
///
/// Installing requires Python 3 with pip; running does not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert plugin install cpu
  lambert plugin install tpu")]
pub struct Install {
    /// Platform: cpu, cuda (about 2.5 GB with the NVIDIA libraries) or tpu
    #[arg(value_parser = platform)]
    platform: Platform,
    /// Package to install, from `lambert plugin list` [default: the first of the platform]
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Install from this wheel file instead of downloading it; repeatable
    #[arg(long, value_name = "FILE")]
    wheel: Vec<PathBuf>,
}

fn platform(name: &str) -> Result<Platform, String> {
    let known = Platform::ALL.into_iter().find(|platform| platform.name() == name);
    known.ok_or_else(|| format!("requires cpu, cuda or tpu, got {name:?}"))
}

pub fn run(command: PluginCommand) -> anyhow::Result<ExitCode> {
    match command {
        PluginCommand::Install(args) => run_install(args),
        PluginCommand::List => list(),
    }
}

fn run_install(args: Install) -> anyhow::Result<ExitCode> {
    let Install { platform, package, wheel } = args;
    let bar = Mutex::new(None::<ByteProgress>);
    let request = InstallRequest { platform, package, wheels: wheel };
    let installed = install_plugin(&request, &|event| {
        let Ok(mut bar) = bar.lock() else { return };
        match event {
            InstallEvent::Processed(bytes) => bar.iter().for_each(|bar| bar.add(bytes)),
            InstallEvent::Download(wheel) => {
                bar.take().iter().for_each(ByteProgress::finish);
                note(format_args!("downloading {} {} ({} MB) with pip", wheel.name, wheel.version, wheel.megabytes));
            }
            InstallEvent::Stage { label, bytes } => {
                bar.take().iter().for_each(ByteProgress::finish);
                *bar = Some(ByteProgress::new(label, bytes));
            }
        }
    });
    bar.lock().iter().flat_map(|bar| bar.iter()).for_each(ByteProgress::finish);
    let InstalledPlugin { package, path, already, api_version: (major, minor) } = installed?;
    print(format_args!(
        "{} {} {}: {} (PJRT C API {major}.{minor})",
        package.name(),
        package.version(),
        if already { "is installed already" } else { "is installed" },
        path.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<ExitCode> {
    let mut table = table::bordered();
    table.set_header(["platform", "package", "version", "state"]);
    for ListedPlugin { platform, package, status } in list_plugins() {
        let status = match status {
            PluginStatus::Installed(path) => format!("installed: {}", path.display()),
            PluginStatus::Available { megabytes } => format!("can be installed ({megabytes} MB)"),
            PluginStatus::Found(path) => format!("found: {}", path.display()),
        };
        let (name, version) = package.unwrap_or_default();
        table.add_row([platform.name(), name, version, &status]);
    }
    print(format_args!("{table}\nto install one: lambert plugin install cpu|cuda|tpu [--package NAME]"))?;
    Ok(ExitCode::SUCCESS)
}
