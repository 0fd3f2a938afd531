//! `lambert plugin`: PJRT plugins on this machine, and fetching them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use comfy_table::Table;

use crate::output::print;
use crate::pjrt::{Environment, Platform, Plugin};
use crate::plugins::pins::{PACKAGES, Package};
use crate::plugins::wheels::{Installed, distribution, install};

/// Fetch the plugins that programs are compiled and run with, or list them.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    Install(Install),
    /// List the plugins found here and those that can be installed.
    #[command(after_help = "Examples:\n  lambert plugin list")]
    List,
}

/// Put a plugin into the user's cache directory, where every verb finds it. Needs Python 3 with pip, once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert plugin install cpu
  lambert plugin install tpu")]
pub struct Install {
    /// cpu, cuda (about 2.5 GB with NVIDIA's libraries) or tpu.
    #[arg(value_parser = platform)]
    platform: Platform,
    /// Another package than the platform's default; `lambert plugin list` shows them.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
    /// Take this wheel from the disk instead of fetching it. May be given several times.
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
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the pinned plugins are for Linux on x86-64, and this is {} on {}: install a plugin in a Python environment, or \
         give its file with --platform",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let package = choose(&args)?;
    let directory = Environment::of_process().install_dir(args.platform);
    let directory = directory.context("there is no cache directory: set HOME or XDG_CACHE_HOME to an absolute path")?;
    let already = Installed::read(&directory).is_some_and(|installed| installed.is(package));
    let path = install(package, &directory, &args.wheel)?;
    let said = if already { "is installed already" } else { "is installed" };
    // Loading shows what a check of bytes cannot: that the machine's own libraries suffice.
    let plugin = Plugin::load(&path).with_context(|| {
        format!("{} {} {said}, but does not load on this machine", package.name(), package.version())
    })?;
    let (major, minor) = plugin.api_version();
    print(format_args!(
        "{} {} {said}: {} (PJRT C API {major}.{minor})",
        package.name(),
        package.version(),
        path.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// The package named, or that the wheel given is of, or the platform's default.
fn choose(args: &Install) -> anyhow::Result<&'static Package> {
    let of_platform: Vec<&Package> = PACKAGES.iter().filter(|p| p.platform == args.platform).collect();
    if let Some(name) = &args.package {
        let named = of_platform.iter().find(|package| package.name() == name);
        let names: Vec<&str> = of_platform.iter().map(|package| package.name()).collect();
        return match named {
            Some(package) => Ok(package),
            None => bail!("--package requires one of {} for {}, got {name:?}", names.join(", "), args.platform),
        };
    }
    let wheels: Vec<_> = args.wheel.iter().filter_map(|path| distribution(path)).collect();
    let holds = |package: &&&Package| package.wheels.iter().any(|wheel| wheels.iter().any(|name| name == wheel.name));
    let package = of_platform.iter().find(holds).or(of_platform.first());
    package.copied().with_context(|| format!("there is no pinned package for {}", args.platform))
}

fn list() -> anyhow::Result<ExitCode> {
    let environment = Environment::of_process();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["platform", "package", "version", "state"]);
    for platform in Platform::ALL {
        let directory = environment.install_dir(platform);
        let installed = directory.as_deref().and_then(Installed::read);
        for package in PACKAGES.iter().filter(|package| package.platform == platform) {
            let state = match (&installed, &directory) {
                (Some(installed), Some(directory)) if installed.is(package) => {
                    format!("installed: {}", directory.join(&installed.plugin).display())
                }
                _ => format!("can be installed ({} MB)", package.wheels.iter().map(|w| w.megabytes).sum::<u64>()),
            };
            table.add_row([platform.name(), package.name(), package.version(), &state]);
        }
        for path in environment.plugin_files(platform) {
            if !directory.as_ref().is_some_and(|directory| path.starts_with(directory)) {
                table.add_row([platform.name(), "", "", &format!("found: {}", path.display())]);
            }
        }
    }
    print(format_args!("{table}\ninstall one with  lambert plugin install cpu|cuda|tpu [--package NAME]"))?;
    Ok(ExitCode::SUCCESS)
}
