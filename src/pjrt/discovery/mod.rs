//! Plugin discovery: finds the plugin file to use, and reports why better platforms were rejected.
//!
//! The order is: the plugin file that the user chose; `LAMBERT_PLUGIN` (a platform or a file); the install directory of
//! `lambert plugin install`; the site-packages of the active `VIRTUAL_ENV` or `CONDA_PREFIX`. Wheels put plugins at fixed
//! paths relative to site-packages, and the install directory has the same layout.

mod platform;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

pub use platform::Platform;

use super::client::Client;
use super::error::PjrtError;
use super::named_value::CreateOption;
use super::plugin::Plugin;
use crate::cache;
use crate::key_value::KeyValueStore;

/// The platform setting: `auto`, a platform, or a plugin file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlatformChoice {
    /// The fastest platform that can be used.
    Auto,
    /// A platform.
    Platform(Platform),
    /// A plugin file.
    File(PathBuf),
}

impl FromStr for PlatformChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(PlatformChoice::Auto);
        }
        if let Some(&platform) = Platform::ALL.iter().find(|platform| platform.name() == text) {
            return Ok(PlatformChoice::Platform(platform));
        }
        // A file must look like a path, so that a misspelt platform is not taken for a file.
        if text.contains(std::path::MAIN_SEPARATOR) || Path::new(text).extension().is_some() {
            return Ok(PlatformChoice::File(text.into()));
        }
        Err(format!("requires auto, cpu, cuda, tpu or the path of a plugin file, got {text:?}"))
    }
}

impl fmt::Display for PlatformChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PlatformChoice::Auto => f.write_str("auto"),
            PlatformChoice::Platform(platform) => f.write_str(platform.name()),
            PlatformChoice::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A platform that was rejected before the one that is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The platform's name.
    pub candidate: String,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.candidate, self.reason)
    }
}

/// A usable plugin or client, its file, and the platforms that were rejected before it.
#[derive(Debug)]
pub struct Found<T> {
    /// The plugin or client.
    pub item: T,
    /// The plugin file.
    pub path: PathBuf,
    /// The rejected platforms, fastest first.
    pub rejected: Vec<Rejected>,
}

/// The environment of the process, which determines where plugins are searched for.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `LAMBERT_PLUGIN`: a platform or a plugin file.
    pub lambert_plugin: Option<OsString>,
    /// The install directory, with a subdirectory for each platform.
    pub plugins: Option<PathBuf>,
    /// `VIRTUAL_ENV`.
    pub virtual_env: Option<OsString>,
    /// `CONDA_PREFIX`.
    pub conda_prefix: Option<OsString>,
}

impl Environment {
    /// Reads the environment of this process. An empty variable counts as unset.
    pub fn of_process() -> Self {
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Environment {
            lambert_plugin: read("LAMBERT_PLUGIN"),
            plugins: cache::directory().map(|directory| directory.join("plugins")),
            virtual_env: read("VIRTUAL_ENV"),
            conda_prefix: read("CONDA_PREFIX"),
        }
    }

    /// Returns the install directory of a platform's plugin, if there is a home or cache directory.
    pub fn install_dir(&self, platform: Platform) -> Option<PathBuf> {
        Some(self.plugins.as_ref()?.join(platform.name()))
    }

    /// Returns the directories to search for a platform's plugin, existing or not.
    fn search_path(&self, platform: Platform) -> Vec<PathBuf> {
        let mut directories: Vec<PathBuf> = self.install_dir(platform).into_iter().collect();
        for prefix in [&self.virtual_env, &self.conda_prefix].into_iter().flatten() {
            let lib = Path::new(prefix).join("lib");
            let mut pythons: Vec<PathBuf> =
                lib.read_dir().map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
            pythons.retain(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3")));
            pythons.sort();
            directories.extend(pythons.into_iter().map(|python| python.join("site-packages")));
        }
        directories
    }

    /// Returns the existing plugin files of a platform, in order of preference.
    pub fn plugin_files(&self, platform: Platform) -> Vec<PathBuf> {
        let named = self.lambert_plugin.as_ref().map(PathBuf::from);
        let named = named.filter(|path| path.is_file() && Platform::of_file(path) == Some(platform));
        let found = self.search_path(platform).into_iter().flat_map(|directory| {
            platform.plugin_paths().iter().map(move |path| directory.join(path)).filter(|path| path.is_file())
        });
        named.into_iter().chain(found).collect()
    }

    /// Loads the plugin of `choice`. For `auto`, that is the plugin of the fastest platform whose hardware is present and
    /// whose plugin loads.
    ///
    /// # Errors
    /// If no plugin is found or the plugin cannot be loaded.
    pub fn find(&self, choice: &PlatformChoice) -> Result<Found<Plugin>, PjrtError> {
        self.first_usable(choice, |plugin, _| Ok(plugin))
    }

    /// Finds a plugin as [`Environment::find`] does, and creates a client with at least one device. `options` returns the
    /// create-options of a platform, which is `None` if the file name does not contain one.
    ///
    /// # Errors
    /// If no plugin is found, or the plugin cannot be loaded or cannot create a client with devices.
    pub fn open(
        &self,
        choice: &PlatformChoice,
        options: impl Fn(Option<Platform>) -> Vec<CreateOption>,
    ) -> Result<Found<Client>, PjrtError> {
        self.open_with_store(choice, options, None)
    }

    /// Creates a client like [`Environment::open`], in one of several processes that exchange their topology through `store`.
    ///
    /// # Errors
    /// As [`Environment::open`].
    pub fn open_with_store(
        &self,
        choice: &PlatformChoice,
        options: impl Fn(Option<Platform>) -> Vec<CreateOption>,
        store: Option<Arc<dyn KeyValueStore>>,
    ) -> Result<Found<Client>, PjrtError> {
        self.first_usable(choice, |plugin, platform| {
            let client = Client::new(&plugin, &options(platform), store.clone())?;
            if client.addressable_devices().is_empty() {
                return Err(PjrtError::NotFound("the plugin finds no device on this machine".to_owned()));
            }
            Ok(client)
        })
    }

    fn first_usable<T>(
        &self,
        choice: &PlatformChoice,
        use_plugin: impl Fn(Plugin, Option<Platform>) -> Result<T, PjrtError>,
    ) -> Result<Found<T>, PjrtError> {
        let use_file = |path: PathBuf, platform, rejected| {
            let item = use_plugin(Plugin::load(&path)?, platform)?;
            Ok(Found { item, path, rejected })
        };
        match self.resolve(choice)? {
            PlatformChoice::File(path) => {
                let platform = Platform::of_file(&path);
                use_file(path, platform, Vec::new())
            }
            PlatformChoice::Platform(platform) => {
                let path = self.plugin_files(platform).into_iter().next().ok_or_else(|| self.missing(platform))?;
                use_file(path, Some(platform), Vec::new())
            }
            PlatformChoice::Auto => {
                let mut rejected = Vec::new();
                for platform in Platform::ALL {
                    let reject = |reason: String| Rejected { candidate: platform.name().to_owned(), reason };
                    if let Err(reason) = platform.hardware() {
                        rejected.push(reject(reason));
                        continue;
                    }
                    let Some(path) = self.plugin_files(platform).into_iter().next() else {
                        rejected.push(reject(self.missing(platform).to_string()));
                        continue;
                    };
                    match use_file(path, Some(platform), Vec::new()) {
                        Ok(found) => return Ok(Found { rejected, ..found }),
                        Err(error) => rejected.push(reject(error.to_string())),
                    }
                }
                let reasons: Vec<String> = rejected.iter().map(Rejected::to_string).collect();
                Err(PjrtError::NotFound(format!("no platform can be used: {}", reasons.join("; "))))
            }
        }
    }

    /// Replaces `auto` by `LAMBERT_PLUGIN` if that is set.
    ///
    /// # Errors
    /// If the variable names no platform or plugin.
    pub fn resolve(&self, choice: &PlatformChoice) -> Result<PlatformChoice, PjrtError> {
        match (choice, &self.lambert_plugin) {
            (PlatformChoice::Auto, Some(value)) => value
                .to_string_lossy()
                .parse()
                .map_err(|error| PjrtError::NotFound(format!("the environment variable LAMBERT_PLUGIN {error}"))),
            _ => Ok(choice.clone()),
        }
    }

    fn missing(&self, platform: Platform) -> PjrtError {
        let directories: Vec<String> =
            self.search_path(platform).iter().map(|directory| directory.display().to_string()).collect();
        PjrtError::NotFound(format!(
            "no PJRT plugin for {platform} in {}: run `lambert plugin install {platform}`, or set the platform or \
             LAMBERT_PLUGIN to a plugin file",
            if directories.is_empty() { "any directory (HOME is not set)".to_owned() } else { directories.join(", ") }
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().expect("has a parent")).expect("temporary directory");
        std::fs::write(path, b"").expect("temporary directory");
    }

    #[test]
    fn platform_choice_is_auto_a_platform_or_a_file() {
        assert_eq!("auto".parse(), Ok(PlatformChoice::Auto));
        assert_eq!("cuda".parse(), Ok(PlatformChoice::Platform(Platform::Cuda)));
        assert_eq!("/a/plugin.so".parse(), Ok(PlatformChoice::File("/a/plugin.so".into())));
        assert_eq!("plugin.so".parse(), Ok(PlatformChoice::File("plugin.so".into())));
        let error = "gpu".parse::<PlatformChoice>().expect_err("not a platform");
        assert!(error.contains("cuda") && error.contains("\"gpu\""), "{error}");
    }

    #[test]
    fn named_plugin_precedes_installed_plugin_precedes_python_plugin() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (plugins, venv) = (dir.path().join("plugins"), dir.path().join("venv"));
        let named = dir.path().join("my_cpu_plugin.so");
        let installed = plugins.join("cpu/fastatomstruct_xla_cpu/libpjrt_cpu.so");
        let python = venv.join("lib/python3.12/site-packages/lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so");
        for file in [&named, &installed, &python] {
            touch(file);
        }
        let mut environment =
            Environment { plugins: Some(plugins), virtual_env: Some(venv.into()), ..Environment::default() };
        assert_eq!(environment.plugin_files(Platform::Cpu), [installed.clone(), python.clone()]);
        environment.lambert_plugin = Some(named.clone().into());
        assert_eq!(environment.plugin_files(Platform::Cpu), [named, installed, python]);
        assert_eq!(environment.plugin_files(Platform::Cuda), Vec::<PathBuf>::new());
    }

    #[test]
    fn missing_plugin_error_names_directories_and_install_command() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let environment = Environment { plugins: Some(dir.path().into()), ..Environment::default() };
        let error = environment.find(&PlatformChoice::Platform(Platform::Cpu)).expect_err("no plugin").to_string();
        assert!(error.contains("lambert plugin install cpu"), "{error}");
        assert!(error.contains(&dir.path().join("cpu").display().to_string()), "{error}");
        let error = environment.find(&PlatformChoice::Auto).expect_err("no plugin").to_string();
        assert!(
            error.contains("tpu: ") && error.contains("cuda: ") && error.contains("cpu: no PJRT plugin"),
            "{error}"
        );
    }

    #[test]
    fn invalid_lambert_plugin_variable_is_named() {
        let environment = Environment { lambert_plugin: Some("gpu".into()), ..Environment::default() };
        let error = environment.find(&PlatformChoice::Auto).expect_err("no such platform").to_string();
        assert!(error.starts_with("the environment variable LAMBERT_PLUGIN requires auto, cpu"), "{error}");
    }
}
