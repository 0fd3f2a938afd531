//! The compilation cache: compiled programs on disk, so that the second start of a program loads what the first one compiled.
//!
//! [`identity`] hashes the program and what is known of its compiler: flags, plugin, devices, processor. Libraries that the plugin
//! loads later are known by `LD_LIBRARY_PATH` only. [`store`] keeps the files. Whatever prevents the use of the cache, the program
//! is compiled. A plugin that cannot serialize programs leaves the cache empty.

pub mod identity;
pub mod store;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use self::identity::CompilerIdentity;
use self::store::Store;
use crate::cache;
use crate::output::note;
use crate::pjrt::{Client, CompileOptions, ErrorCode, LoadedExecutable, PjrtError};

/// The origin of a compiled program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// This process compiled it.
    #[default]
    Compiler,
    /// An earlier process compiled it, and the compilation cache kept it.
    Cache,
    /// `lambert plan --save` compiled it.
    SavedSteps,
}

/// Returns the directory of the compilation cache: `lambert/compiled` in the user's cache directory, if there is one.
pub fn directory() -> Option<PathBuf> {
    Some(cache::directory()?.join("compiled"))
}

/// Compiled programs in a directory, for one client.
#[derive(Debug)]
pub struct CompilationCache {
    client: Client,
    store: Store,
    /// Computed at the first compilation; none if programs of this process cannot be identified.
    identity: OnceLock<Option<CompilerIdentity>>,
    /// The reason why programs are not saved was printed. It concerns all programs alike.
    noted: AtomicBool,
}

impl CompilationCache {
    /// Uses `directory` for the programs of `client`. Creates it when the first program is saved.
    pub fn new(directory: &Path, client: &Client) -> CompilationCache {
        CompilationCache {
            client: client.clone(),
            store: Store::new(directory),
            identity: OnceLock::new(),
            noted: AtomicBool::new(false),
        }
    }

    /// Loads the compiled form of a serialized HloModuleProto, or compiles and saves it. A message on standard error reports a
    /// file that cannot be used, and that programs cannot be saved.
    ///
    /// # Errors
    /// If the plugin fails to compile the program.
    pub fn load_or_compile(
        &self,
        program: &[u8],
        options: &CompileOptions,
    ) -> Result<(LoadedExecutable, Origin), PjrtError> {
        let Some(identity) = self.identity() else {
            return Ok((self.client.compile(program, options)?, Origin::Compiler));
        };
        let key = identity.key(&options.encode(), program);
        match self.load(&key) {
            Ok(Some(executable)) => return Ok((executable, Origin::Cache)),
            Ok(None) => {}
            Err(error) => note(format_args!("{error:#}; compiling the program again")),
        }
        let executable = self.client.compile(program, options)?;
        if let Err(error) = self.save(&key, &executable) {
            self.note_once(&error);
        }
        Ok((executable, Origin::Compiler))
    }

    fn identity(&self) -> Option<&CompilerIdentity> {
        let identify = || {
            CompilerIdentity::of(&self.client).unwrap_or_else(|error| {
                self.note_once(&error);
                None
            })
        };
        self.identity.get_or_init(identify).as_ref()
    }

    fn load(&self, key: &str) -> anyhow::Result<Option<LoadedExecutable>> {
        let Some(serialized) = self.store.read(key)? else { return Ok(None) };
        let loaded = self.client.deserialize(&serialized);
        loaded.map(Some).with_context(|| format!("cannot load the compiled program {}", self.store.path(key).display()))
    }

    fn save(&self, key: &str, executable: &LoadedExecutable) -> anyhow::Result<()> {
        match executable.serialize() {
            Ok(serialized) => self.store.write(key, &serialized),
            Err(PjrtError::Call { code: ErrorCode::Unimplemented, .. } | PjrtError::Absent { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn note_once(&self, error: &anyhow::Error) {
        if !self.noted.swap(true, Ordering::Relaxed) {
            note(format_args!("compilation cache: {error:#}"));
        }
    }
}
