//! Plugins: shared libraries that export `GetPjrtApi`. A plugin is loaded once and never unloaded, because XLA keeps
//! threads and global state. Loading the same file again returns the same [`Plugin`].

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use libloading::Library;

use super::api::Api;
use super::discovery::Platform;
use super::error::PjrtError;
use super::named_value::{Value, named_values};
use super::sys::{self, Struct};
use crate::library_file;

/// A loaded and initialized PJRT plugin. Clones share it.
#[derive(Clone)]
pub struct Plugin {
    pub(super) api: Arc<Api>,
}

/// The loaded plugins by canonical path.
static LOADED: LazyLock<Mutex<HashMap<PathBuf, Plugin>>> = LazyLock::new(Mutex::default);

impl Plugin {
    /// Opens the shared library at `path`, checks its version and initializes it.
    ///
    /// # Errors
    /// If the file is missing, cut short, changed since it was installed, is not a shared library, does not export `GetPjrtApi`, has an unsupported version of the C
    /// API, or fails to initialize.
    pub fn load(path: &Path) -> Result<Self, PjrtError> {
        let open_error = |reason: String| PjrtError::Open { path: path.to_owned(), reason };
        let path = path.canonicalize().map_err(|e| open_error(e.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = loaded.get(&path) {
            return Ok(plugin.clone());
        }
        library_file::check(&path).map_err(open_error)?;
        if loaded.is_empty() {
            prepare_environment();
        }
        // SAFETY: opening a library runs its constructors. The user named this file as a plugin, which is trusted code.
        let library = unsafe { Library::new(&path) }.map_err(|error| open_error(reason(&error, &path)))?;
        let table = {
            type GetPjrtApi = unsafe extern "C" fn() -> *const sys::PJRT_Api;
            // SAFETY: the type is the one that the API gives this symbol.
            let get = unsafe { library.get::<GetPjrtApi>(b"GetPjrtApi\0") }
                .map_err(|_| PjrtError::NotAPlugin { path: path.clone() })?;
            // SAFETY: the function takes nothing and returns a table of static lifetime.
            unsafe { get() }
        };
        if table.is_null() {
            return Err(open_error("its GetPjrtApi returned null".to_owned()));
        }
        // The library contains the table and the code of XLA's threads, so it must stay loaded.
        std::mem::forget(library);
        // SAFETY: a table from GetPjrtApi, in a library that is never unloaded.
        let api = unsafe { Api::new(table, path.clone()) }?;
        // SAFETY: no argument but the struct itself. libtpu's other functions fail unless this was called first.
        unsafe { api.call(&mut sys::PJRT_Plugin_Initialize::new()) }?;
        let plugin = Plugin { api: Arc::new(api) };
        loaded.insert(path, plugin.clone());
        Ok(plugin)
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.api.path
    }

    /// Returns the version of the C API that the plugin was built with: major, minor.
    pub fn api_version(&self) -> (i32, i32) {
        self.api.version()
    }

    /// Returns the plugin's attributes, such as `xla_version`.
    ///
    /// # Errors
    /// If the call fails.
    pub fn attributes(&self) -> Result<BTreeMap<String, Value>, PjrtError> {
        let mut args = sys::PJRT_Plugin_Attributes::new();
        // SAFETY: no argument; the attributes live as long as the process.
        unsafe {
            self.api.call(&mut args)?;
            Ok(named_values(args.attributes, args.num_attributes))
        }
    }
}

/// Returns the loader's message without the path, with which it begins. The message of `error` itself does not contain it.
fn reason(error: &libloading::Error, path: &Path) -> String {
    let message = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match message.strip_prefix(&format!("{}: ", path.display())) {
        Some(reason) => reason.to_owned(),
        None => message,
    }
}

/// Whether the messages of plugins are shown.
static SHOWS_MESSAGES: AtomicBool = AtomicBool::new(false);

/// Shows all messages of plugins that are loaded from now on.
pub fn show_plugin_messages() {
    SHOWS_MESSAGES.store(true, Ordering::Relaxed);
}

/// Sets the environment variables that plugins read while they are loaded, unless the user has set them.
///
/// XLA's messages below errors are suppressed; errors of a compilation are results of the call. On a machine without a TPU,
/// libtpu can only compile, for a topology that the call gives. It must then neither query the metadata server, which is absent
/// and takes minutes to time out, nor lock out other processes that compile. Its log is suppressed too, and an accelerator type
/// and a worker's name are set, because libtpu reports their absence as errors. If the user sets `TF_CPP_MIN_LOG_LEVEL`, or asks
/// for messages ([`show_plugin_messages`]), all of them are shown.
fn prepare_environment() {
    let shows_messages = SHOWS_MESSAGES.load(Ordering::Relaxed);
    let quiet = !shows_messages && std::env::var_os("TF_CPP_MIN_LOG_LEVEL").is_none();
    let mut variables = vec![("TF_CPP_MIN_LOG_LEVEL", if shows_messages { "0" } else { "2" })];
    if Platform::Tpu.hardware().is_err() {
        variables.extend([("TPU_SKIP_MDS_QUERY", "1"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")]);
        if quiet {
            variables.extend([
                ("TPU_MIN_LOG_LEVEL", "3"),
                ("TPU_ACCELERATOR_TYPE", "v5litepod-1"),
                ("TPU_WORKER_HOSTNAMES", "localhost"),
            ]);
        }
    }
    for (name, value) in variables {
        if std::env::var_os(name).is_none() {
            // SAFETY: the hazard is C code reading the environment on another thread meanwhile, and no plugin, the
            // only such code here, has been loaded yet.
            unsafe { std::env::set_var(name, value) };
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.api_version();
        write!(f, "Plugin({}, PJRT C API {major}.{minor})", self.path().display())
    }
}
