//! Compiled steps on the disk. A saved program is machine code for one program, one version of one plugin and one kind and
//! number of devices; what it is for stands beside it in `manifest.json`, and anything else is refused before it is loaded.
//!
//! ```text
//! DIR/manifest.json           what the files are for, with their sha256; written last
//!     phase-1.executable      what PJRT_Executable_Serialize gave
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::hardware::Chip;
use super::target::{Compiled, Target};
use crate::digest::{sha256_hex, sha256_of_file};
use crate::files::{partial_path, replace_file};
use crate::hlo::HloModule;
use crate::pjrt::Plugin;
use crate::runtime::compile::{self, CompileTimes};
use crate::runtime::devices::Devices;
use crate::step::program::Program;

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;

/// The file `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub platform: String,
    /// The plugin: its file by content, for what it says of its version is not the same with devices and without.
    pub plugin: String,
    /// As `lambert plan --topology` takes it.
    pub topology: String,
    pub devices: usize,
    pub phases: Vec<SavedPhase>,
}

/// One phase's step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPhase {
    /// From 1, as in run files.
    pub phase: usize,
    pub micro_batch: usize,
    /// Of the HloModuleProto that was compiled.
    pub program_sha256: String,
    pub file: String,
    pub bytes: u64,
    pub sha256: String,
}

/// A directory that compiled steps are written into.
#[derive(Debug)]
pub struct Saver {
    directory: PathBuf,
    manifest: Manifest,
}

impl Saver {
    /// Begins (or, over what an earlier plan saved there, begins anew).
    ///
    /// # Errors
    /// If the directory holds anything that no plan put there, or cannot be made.
    pub fn begin(directory: &Path, target: &Target, plugin: &Plugin) -> anyhow::Result<Saver> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
        let ours = |name: &str| name == MANIFEST || (name.starts_with("phase-") && name.contains(".executable"));
        let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let name = entry.with_context(|| format!("cannot read {}", directory.display()))?.file_name();
            ensure!(
                ours(&name.to_string_lossy()),
                "--save {}: requires an empty directory or one of compiled steps, found {name:?} there; name another",
                directory.display()
            );
        }
        // What is there stays valid until the first new file replaces one; from then on nothing may be taken for whole.
        let manifest = Manifest {
            format: FORMAT,
            platform: target.platform().name().to_owned(),
            plugin: identity(plugin)?,
            topology: target.to_string(),
            devices: target.devices(),
            phases: Vec::new(),
        };
        Ok(Saver { directory: directory.to_owned(), manifest })
    }

    /// Writes the step of `phase` (from 0).
    ///
    /// # Errors
    /// If the plugin cannot serialize, or the disk fails.
    pub fn add(
        &mut self,
        phase: usize,
        micro_batch: usize,
        program: &HloModule,
        compiled: &Compiled,
    ) -> anyhow::Result<()> {
        let serialized = compiled.serialize().context("the plugin cannot write down what it compiled")?;
        if self.manifest.phases.is_empty() {
            let old = self.directory.join(MANIFEST);
            if old.exists() {
                fs::remove_file(&old).with_context(|| format!("cannot replace {}", old.display()))?;
            }
        }
        let file = format!("phase-{}.executable", phase + 1);
        write(&self.directory.join(&file), &serialized)?;
        self.manifest.phases.push(SavedPhase {
            phase: phase + 1,
            micro_batch,
            program_sha256: sha256_hex(&program.bytes),
            file,
            bytes: serialized.len() as u64,
            sha256: sha256_hex(&serialized),
        });
        Ok(())
    }

    /// Writes the manifest: from now on the directory can be used.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn finish(self) -> anyhow::Result<Manifest> {
        write(&self.directory.join(MANIFEST), &serde_json::to_vec_pretty(&self.manifest)?)?;
        Ok(self.manifest)
    }
}

/// A plugin's version: that of its C API, and the sha256 of its file.
fn identity(plugin: &Plugin) -> anyhow::Result<String> {
    let digest = sha256_of_file(plugin.path(), &|_| ());
    let digest = digest.with_context(|| format!("cannot read the plugin {}", plugin.path().display()))?;
    let (major, minor) = plugin.api_version();
    Ok(format!("PJRT C API {major}.{minor}, sha256 {digest}"))
}

/// Writes a file completely or not at all.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace_file(path, &partial_path(path), content).with_context(|| format!("cannot write {}", path.display()))
}

/// A directory of compiled steps, to be loaded instead of compiling.
#[derive(Clone, Debug)]
pub struct SavedSteps {
    directory: PathBuf,
    manifest: Manifest,
}

impl SavedSteps {
    /// # Errors
    /// If `directory` holds no compiled steps of this format.
    pub fn open(directory: &Path) -> anyhow::Result<SavedSteps> {
        let path = directory.join(MANIFEST);
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}; `lambert plan RUN.toml --topology … --save {}` makes it",
                path.display(),
                directory.display()
            )
        })?;
        let manifest: Manifest = serde_json::from_str(&text)
            .with_context(|| format!("{} is no manifest of compiled steps; compile them again", path.display()))?;
        ensure!(
            manifest.format == FORMAT,
            "{}: requires format {FORMAT}, found {}; save the steps again with this version of lambert",
            path.display(),
            manifest.format
        );
        Ok(SavedSteps { directory: directory.to_owned(), manifest })
    }

    /// Checks that the steps were compiled by this plugin for devices like these.
    ///
    /// # Errors
    /// What differs, with both values.
    pub fn check_devices(&self, devices: &Devices) -> anyhow::Result<()> {
        let (saved, client) = (&self.manifest, &devices.client);
        let refuse = |what: &str, saved: &str, here: &str| {
            bail!(
                "--compiled {}: the steps were compiled for {what} {saved:?}, and this is {here:?}; compile them again with \
                 `lambert plan … --save`, or leave --compiled out",
                self.directory.display()
            )
        };
        if saved.platform != client.platform_name() {
            return refuse("the platform", &saved.platform, client.platform_name());
        }
        let plugin = identity(&client.plugin())?;
        if saved.plugin != plugin {
            return refuse("the plugin", &saved.plugin, &plugin);
        }
        let target: Target =
            saved.topology.parse().with_context(|| self.directory.join(MANIFEST).display().to_string())?;
        let (kind, count) = (devices.devices[0].kind(), client.devices().len());
        let same_kind = target.chip.is_none_or(|chip| Chip::of_kind(kind) == Some(chip));
        if !same_kind || saved.devices != count {
            let here = format!("{count} devices {kind}");
            return refuse("the topology", &format!("{} ({} devices)", saved.topology, saved.devices), &here);
        }
        Ok(())
    }

    /// The step of `phase` (from 0), in the place of [`compile::Compiled::new`].
    ///
    /// # Errors
    /// If it was not saved, is of another program, or is damaged.
    pub fn load(
        &self,
        phase: usize,
        devices: &Devices,
        build: impl FnOnce() -> anyhow::Result<Program>,
    ) -> anyhow::Result<compile::Compiled> {
        let directory = self.directory.display();
        let saved = self.manifest.phases.iter().find(|saved| saved.phase == phase + 1).with_context(|| {
            format!(
                "--compiled {directory}: holds no step of phase {}; save it with `lambert plan … --save`",
                phase + 1
            )
        })?;
        let begin = Instant::now();
        let program = build()?;
        let built = begin.elapsed();
        let module = program.lower();
        let lowered = begin.elapsed() - built;
        ensure!(
            sha256_hex(&module.bytes) == saved.program_sha256,
            "--compiled {directory}: the step of phase {number} was compiled from another program (micro-batches of {}, on {} \
             devices); give the run the same settings (--set phase.{number}.micro_batch_size={} sets that one), or compile again",
            saved.micro_batch,
            self.manifest.devices,
            saved.micro_batch,
            number = phase + 1,
        );
        let path = self.directory.join(&saved.file);
        let serialized = fs::read(&path).with_context(|| {
            format!("cannot read {}, which {MANIFEST} lists; compile the steps again", path.display())
        })?;
        ensure!(
            sha256_hex(&serialized) == saved.sha256,
            "{} is damaged: its sha256 is not the one in {MANIFEST}; compile the steps again",
            path.display()
        );
        let executable = devices
            .client
            .deserialize(&serialized)
            .with_context(|| format!("the plugin cannot load {}", path.display()))?;
        let loaded = begin.elapsed() - built - lowered;
        Ok(compile::Compiled {
            inputs: program.inputs,
            outputs: program.outputs,
            executable,
            times: CompileTimes { build: built, lower: lowered, compile: loaded },
        })
    }
}
