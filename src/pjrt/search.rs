//! Which plugin to use, and why not a better one.
//!
//! A plugin is a file; a *place* is a directory laid out as Python's site-packages, where wheels put plugins at fixed
//! relative paths. The directory that `lambert plugin install` fills has the same layout, so one list of paths serves
//! all places. Order: the file that the user named; `LAMBERT_PLUGIN` (a platform or a file); the install directory;
//! the site-packages of the active `VIRTUAL_ENV` or `CONDA_PREFIX`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::client::Client;
use super::error::PjrtError;
use super::named_value::CreateOption;
use super::platform::Platform;
use super::plugin::Plugin;
use crate::cache;
use crate::key_value::KeyValueStore;

/// What the user asked for: `auto`, a platform, or a plugin file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlatformChoice {
    Auto,
    Platform(Platform),
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
        // A file is recognised by its form, so that a misspelt platform is not searched for on the disk.
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

/// A plugin or platform that was considered before the one used, and why it was not it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub candidate: String,
    pub reason: String,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.candidate, self.reason)
    }
}

/// A usable plugin (or client), where it lay, and what was passed over on the way.
#[derive(Debug)]
pub struct Found<T> {
    pub item: T,
    pub path: PathBuf,
    pub rejected: Vec<Rejected>,
}

/// What of this process's environment decides where to look.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub lambert_plugin: Option<OsString>,
    /// Where plugins are installed: one directory a platform.
    pub plugins: Option<PathBuf>,
    pub virtual_env: Option<OsString>,
    pub conda_prefix: Option<OsString>,
}

impl Environment {
    /// This process's. An empty variable counts as absent.
    pub fn of_process() -> Self {
        let read = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Environment {
            lambert_plugin: read("LAMBERT_PLUGIN"),
            plugins: cache::directory().map(|directory| directory.join("plugins")),
            virtual_env: read("VIRTUAL_ENV"),
            conda_prefix: read("CONDA_PREFIX"),
        }
    }

    /// Where `lambert plugin install` puts a platform's plugin, if there is a home or cache directory.
    pub fn install_dir(&self, platform: Platform) -> Option<PathBuf> {
        Some(self.plugins.as_ref()?.join(platform.name()))
    }

    /// Every place to look for a platform's plugin, whether or not it exists.
    fn places(&self, platform: Platform) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = self.install_dir(platform).into_iter().collect();
        for prefix in [&self.virtual_env, &self.conda_prefix].into_iter().flatten() {
            let lib = Path::new(prefix).join("lib");
            let mut pythons: Vec<PathBuf> =
                lib.read_dir().map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
            pythons.retain(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python3")));
            pythons.sort();
            places.extend(pythons.into_iter().map(|python| python.join("site-packages")));
        }
        places
    }

    /// The plugin files of a platform that exist, the preferred first.
    pub fn plugin_files(&self, platform: Platform) -> Vec<PathBuf> {
        let named = self.lambert_plugin.as_ref().map(PathBuf::from);
        let named = named.filter(|path| path.is_file() && Platform::of_file(path) == Some(platform));
        let in_places = self.places(platform).into_iter().flat_map(|place| {
            platform.plugin_paths().iter().map(move |path| place.join(path)).filter(|path| path.is_file())
        });
        named.into_iter().chain(in_places).collect()
    }

    /// Loads the plugin that `choice` means. Under `auto` that is the fastest platform whose hardware is here and whose
    /// plugin loads.
    pub fn find(&self, choice: &PlatformChoice) -> Result<Found<Plugin>, PjrtError> {
        self.first_usable(choice, |plugin, _| Ok(plugin))
    }

    /// Finds a plugin as [`Environment::find`] does and starts a client with at least one device; `options` gives the
    /// create-options of a platform (`None` if a file's name does not tell).
    pub fn open(
        &self,
        choice: &PlatformChoice,
        options: impl Fn(Option<Platform>) -> Vec<CreateOption>,
    ) -> Result<Found<Client>, PjrtError> {
        self.open_among(choice, options, None)
    }

    /// As [`Environment::open`]; if the process is one of several, `store` is where they find each other.
    pub fn open_among(
        &self,
        choice: &PlatformChoice,
        options: impl Fn(Option<Platform>) -> Vec<CreateOption>,
        store: Option<Arc<dyn KeyValueStore>>,
    ) -> Result<Found<Client>, PjrtError> {
        self.first_usable(choice, |plugin, platform| {
            let client = Client::new(&plugin, &options(platform), store.clone())?;
            if client.addressable_devices().is_empty() {
                return Err(PjrtError::NotFound("the plugin sees no device of this machine".to_owned()));
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
        match self.without_variable(choice)? {
            PlatformChoice::File(path) => {
                let platform = Platform::of_file(&path);
                use_file(path, platform, Vec::new())
            }
            PlatformChoice::Platform(platform) => {
                let path = self.plugin_files(platform).into_iter().next().ok_or_else(|| self.none_for(platform))?;
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
                        rejected.push(reject(self.none_for(platform).to_string()));
                        continue;
                    };
                    match use_file(path, Some(platform), Vec::new()) {
                        Ok(found) => return Ok(Found { rejected, ..found }),
                        Err(error) => rejected.push(reject(error.to_string())),
                    }
                }
                let reasons: Vec<String> = rejected.iter().map(Rejected::to_string).collect();
                Err(PjrtError::NotFound(format!("no platform can be used; {}", reasons.join("; "))))
            }
        }
    }

    /// `auto` gives way to what `LAMBERT_PLUGIN` says; a choice made by the user does not.
    fn without_variable(&self, choice: &PlatformChoice) -> Result<PlatformChoice, PjrtError> {
        match (choice, &self.lambert_plugin) {
            (PlatformChoice::Auto, Some(value)) => value
                .to_string_lossy()
                .parse()
                .map_err(|error| PjrtError::NotFound(format!("the environment variable LAMBERT_PLUGIN {error}"))),
            _ => Ok(choice.clone()),
        }
    }

    fn none_for(&self, platform: Platform) -> PjrtError {
        let places: Vec<String> = self.places(platform).iter().map(|place| place.display().to_string()).collect();
        PjrtError::NotFound(format!(
            "no PJRT plugin for {platform} in {}: run `lambert plugin install {platform}`, or give a plugin file with \
             --platform or LAMBERT_PLUGIN",
            if places.is_empty() { "any known place (HOME is not set)".to_owned() } else { places.join(", ") }
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
    fn a_choice_is_auto_a_platform_or_a_file() {
        assert_eq!("auto".parse(), Ok(PlatformChoice::Auto));
        assert_eq!("cuda".parse(), Ok(PlatformChoice::Platform(Platform::Cuda)));
        assert_eq!("/a/plugin.so".parse(), Ok(PlatformChoice::File("/a/plugin.so".into())));
        assert_eq!("plugin.so".parse(), Ok(PlatformChoice::File("plugin.so".into())));
        let error = "gpu".parse::<PlatformChoice>().expect_err("not a platform");
        assert!(error.contains("cuda") && error.contains("\"gpu\""), "{error}");
    }

    #[test]
    fn the_installed_plugin_comes_before_the_python_one_and_the_named_one_before_both() {
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
    fn a_missing_plugin_says_where_it_was_looked_for_and_what_to_run() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let environment = Environment { plugins: Some(dir.path().into()), ..Environment::default() };
        let error = environment.find(&PlatformChoice::Platform(Platform::Cpu)).expect_err("nothing there").to_string();
        assert!(error.contains("lambert plugin install cpu"), "{error}");
        assert!(error.contains(&dir.path().join("cpu").display().to_string()), "{error}");
        let error = environment.find(&PlatformChoice::Auto).expect_err("nothing there").to_string();
        assert!(
            error.contains("tpu: ") && error.contains("cuda: ") && error.contains("cpu: no PJRT plugin"),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_of_the_variable_is_named() {
        let environment = Environment { lambert_plugin: Some("gpu".into()), ..Environment::default() };
        let error = environment.find(&PlatformChoice::Auto).expect_err("no such platform").to_string();
        assert!(error.starts_with("the environment variable LAMBERT_PLUGIN requires auto, cpu"), "{error}");
    }
}
