//! Saves compiled steps and loads them in place of compiling. A compiled step is valid for one program, one plugin file, and
//! one kind and number of devices. `manifest.json` records these, and loading fails for any other. Steps for CUDA call a
//! library for their matrix products, because kernels that are compiled without a GPU are not tuned.
//!
//! ```text
//! DIR/manifest.json           plugin, topology and programs of the files, with their sha256; written last
//!     phase-1.executable      output of PJRT_Executable_Serialize
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::compiler::Compiled;
use super::hardware::Accelerator;
use super::profile::products::triton_products;
use super::profile::program as optimized;
use super::target::Target;
use crate::digest::sha256_hex;
use crate::files::{self, partial_path, replace_file};
use crate::hlo::HloModule;
use crate::pjrt::{Platform, Plugin};
use crate::runtime::compilation_cache::Origin;
use crate::runtime::compilation_cache::identity::plugin_identity;
use crate::runtime::compile::{self, CompileTimes};
use crate::runtime::devices::Devices;
use crate::step::program::Program;
use crate::units::counted;

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;

/// The file `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the file format.
    pub format: u32,
    /// The platform that the steps were compiled for.
    pub platform: String,
    /// The plugin by [`plugin_identity`].
    pub plugin: String,
    /// The topology as [`Target`] parses it.
    pub topology: String,
    /// The number of devices.
    pub devices: usize,
    /// The kernels of the matrix products on CUDA; none on other platforms. Manifests of older versions, whose steps have
    /// Triton kernels that are not tuned, lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_products: Option<MatrixProducts>,
    /// The saved steps.
    pub phases: Vec<SavedPhase>,
}

/// The kernels of the matrix products of a program for CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatrixProducts {
    /// Calls of cuBLASLt, which selects kernels by the shapes.
    CublasLt,
}

impl MatrixProducts {
    /// Returns the kernels of the programs that are saved for `platform`, a platform's name.
    fn of(platform: &str) -> Option<MatrixProducts> {
        (platform == Platform::Cuda.name()).then_some(MatrixProducts::CublasLt)
    }
}

/// The saved step of one phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPhase {
    /// The number of the phase, from 1 as in run files.
    pub phase: usize,
    /// Rows per device and micro-batch.
    pub micro_batch_size: usize,
    /// The sha256 of the HloModuleProto that was compiled.
    pub program_sha256: String,
    /// The name of the file in the directory.
    pub file: String,
    /// The size of the file.
    pub bytes: u64,
    /// The sha256 of the file.
    pub sha256: String,
}

/// Writes compiled steps into a directory.
#[derive(Debug)]
pub struct Saver {
    directory: PathBuf,
    manifest: Manifest,
}

impl Saver {
    /// Prepares `directory`, which may hold the compiled steps of an earlier plan.
    ///
    /// # Errors
    /// If the directory holds other files, or cannot be created.
    pub fn begin(directory: &Path, target: &Target, plugin: &Plugin) -> anyhow::Result<Saver> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create the directory {}", directory.display()))?;
        let ours = |name: &str| name == MANIFEST || (name.starts_with("phase-") && name.contains(".executable"));
        let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let name = entry.with_context(|| format!("cannot read {}", directory.display()))?.file_name();
            ensure!(
                ours(&name.to_string_lossy()),
                "cannot save compiled steps in {}: found {} there; use an empty directory or one of compiled steps",
                directory.display(),
                name.display()
            );
        }
        // The old steps stay valid until `add` removes their manifest before it writes the first file.
        let manifest = Manifest {
            format: FORMAT,
            platform: target.platform().name().to_owned(),
            plugin: plugin_identity(plugin)?,
            topology: target.to_string(),
            devices: target.devices(),
            matrix_products: MatrixProducts::of(target.platform().name()),
            phases: Vec::new(),
        };
        Ok(Saver { directory: directory.to_owned(), manifest })
    }

    /// Writes the step of `phase` (from 0).
    ///
    /// # Errors
    /// If the plugin cannot serialize the step, a file cannot be written, or the step has kernels that are not tuned.
    pub fn add(
        &mut self,
        phase: usize,
        micro_batch_size: usize,
        program: &HloModule,
        compiled: &Compiled,
    ) -> anyhow::Result<()> {
        if self.manifest.matrix_products == Some(MatrixProducts::CublasLt) {
            let triton = triton_products(&optimized::Program::decode(&compiled.optimized_program()?)?);
            ensure!(
                triton == 0,
                "cannot save the step of phase {}: its matrix products are required to be calls of cuBLASLt, but {triton} of them \
                 are Triton kernels, which are not tuned without a GPU; use the plugin of `lambert plugin install cuda`",
                phase + 1
            );
        }
        let serialized = compiled.serialize().context("the plugin cannot serialize a compiled program")?;
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
            micro_batch_size,
            program_sha256: sha256_hex(&program.bytes),
            file,
            bytes: serialized.len() as u64,
            sha256: sha256_hex(&serialized),
        });
        Ok(())
    }

    /// Writes the manifest, which makes the directory usable.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> anyhow::Result<Manifest> {
        write(&self.directory.join(MANIFEST), &serde_json::to_vec_pretty(&self.manifest)?)?;
        Ok(self.manifest)
    }
}

/// Writes a file completely or not at all.
fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    replace_file(path, &partial_path(path), content).with_context(|| format!("cannot write {}", path.display()))
}

/// A directory of compiled steps.
#[derive(Clone, Debug)]
pub struct SavedSteps {
    directory: PathBuf,
    manifest: Manifest,
}

impl SavedSteps {
    /// Reads the manifest in `directory`.
    ///
    /// # Errors
    /// If `directory` does not hold compiled steps of this format, or holds steps for CUDA that are not tuned.
    pub fn open(directory: &Path) -> anyhow::Result<SavedSteps> {
        let path = directory.join(MANIFEST);
        let text = files::read_to_string(&path)
            .with_context(|| format!("cannot read {}; save the compiled steps with `lambert plan`", path.display()))?;
        let manifest: Manifest = serde_json::from_str(&text).with_context(|| {
            format!("{} is not a manifest of compiled steps; save them again with `lambert plan`", path.display())
        })?;
        ensure!(
            manifest.format == FORMAT,
            "{}: expected format {FORMAT}, found {}; save the steps again with this version of lambert",
            path.display(),
            manifest.format
        );
        ensure!(
            manifest.matrix_products == MatrixProducts::of(&manifest.platform),
            "compiled steps in {}: their matrix products are required to be calls of cuBLASLt, but an older version of lambert \
             saved Triton kernels that are not tuned, which take several times as long; save the steps again with `lambert plan`",
            directory.display()
        );
        Ok(SavedSteps { directory: directory.to_owned(), manifest })
    }

    /// Checks that the steps were compiled with the same plugin for the same kind and number of devices.
    ///
    /// # Errors
    /// If platform, plugin or topology differ, with both values.
    pub fn check_devices(&self, devices: &Devices) -> anyhow::Result<()> {
        let (saved, client) = (&self.manifest, &devices.client);
        let refuse = |what: &str, saved: &str, here: &str| {
            bail!(
                "compiled steps in {}: {what} differs: saved for {saved:?}, found {here:?}; save the steps again with `lambert \
                 plan`, or run without them",
                self.directory.display()
            )
        };
        if saved.platform != client.platform_name() {
            return refuse("platform", &saved.platform, client.platform_name());
        }
        let plugin = plugin_identity(&client.plugin())?;
        if saved.plugin != plugin {
            return refuse("plugin", &saved.plugin, &plugin);
        }
        let target: Target =
            saved.topology.parse().with_context(|| self.directory.join(MANIFEST).display().to_string())?;
        let (kind, count) = (devices.devices[0].kind(), client.devices().len());
        let same_kind = target.accelerator.is_none_or(|accelerator| Accelerator::of_kind(kind) == Some(accelerator));
        if !same_kind || saved.devices != count {
            let here = format!("{} of kind {kind}", counted(count as u64, "device"));
            let saved = format!("{} ({})", saved.topology, counted(saved.devices as u64, "device"));
            return refuse("topology", &saved, &here);
        }
        Ok(())
    }

    /// Loads the step of `phase` (from 0), in place of [`compile::Compiled::new`].
    ///
    /// # Errors
    /// If the step was not saved, was compiled from another program, or is damaged.
    pub fn load(
        &self,
        phase: usize,
        devices: &Devices,
        build: impl FnOnce() -> anyhow::Result<Program>,
    ) -> anyhow::Result<compile::Compiled> {
        let directory = self.directory.display();
        let saved = self.manifest.phases.iter().find(|saved| saved.phase == phase + 1).with_context(|| {
            format!("compiled steps in {directory}: phase {} is missing; save it with `lambert plan`", phase + 1)
        })?;
        let begin = Instant::now();
        let program = build()?;
        let built = begin.elapsed();
        let module = devices.lower(&program)?;
        let lowered = begin.elapsed() - built;
        ensure!(
            sha256_hex(&module.bytes) == saved.program_sha256,
            "compiled steps in {directory}: the step of phase {} was compiled from another program (micro_batch_size {}, {} \
             devices); use the same settings in the run, or save the steps again with `lambert plan`",
            phase + 1,
            saved.micro_batch_size,
            self.manifest.devices,
        );
        let path = self.directory.join(&saved.file);
        let serialized = files::read(&path).with_context(|| {
            format!("cannot read {}, which {MANIFEST} lists; save the steps again with `lambert plan`", path.display())
        })?;
        ensure!(
            sha256_hex(&serialized) == saved.sha256,
            "{} is damaged (sha256 differs from {MANIFEST}); save the steps again with `lambert plan`",
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
            times: CompileTimes { build: built, lower: lowered, compile: loaded, origin: Origin::SavedSteps },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_for_cuda_require_the_record_of_their_matrix_products() {
        let folder = tempfile::tempdir().unwrap();
        let open = |platform: &str, products: &str| {
            let manifest = format!(
                r#"{{"format": 1, "platform": "{platform}", "plugin": "", "topology": "", "devices": 1,{products} "phases": []}}"#
            );
            fs::write(folder.path().join(MANIFEST), manifest).unwrap();
            SavedSteps::open(folder.path()).map(|steps| steps.manifest.matrix_products)
        };
        assert_eq!(open("tpu", "").unwrap(), None);
        assert_eq!(open("cuda", r#" "matrix_products": "cublaslt","#).unwrap(), Some(MatrixProducts::CublasLt));
        let error = open("cuda", "").unwrap_err().to_string();
        assert!(
            error.contains("required to be calls of cuBLASLt") && error.contains("save the steps again"),
            "{error}"
        );
        let error = format!("{:#}", open("cuda", r#" "matrix_products": "triton","#).unwrap_err());
        assert!(error.contains("unknown variant `triton`, expected `cublaslt`"), "{error}");
    }
}
