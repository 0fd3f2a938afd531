//! The identity of a compilation: a hash of the program, its options, and what is known of the compiler and its machine.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Context;

use crate::digest::{Sha256Hasher, sha256_of_file};
use crate::pjrt::{Client, Plugin};

/// The version of this list of parts.
const FORMAT: &str = "1";
/// Variables that compilers read have these beginnings.
const COMPILER_VARIABLES: [&str; 9] =
    ["XLA_", "TF_XLA_", "LIBTPU_", "TPU_", "NVIDIA_TF32_", "CUDA_", "CUDNN_", "CUBLAS_", "LD_LIBRARY_PATH"];
/// Lines of `/proc/cpuinfo` that describe the instructions of a processor, on x86-64 and on ARM.
const PROCESSOR_LINES: [&str; 10] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "flags",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "Features",
];

/// A hash of the compiler: plugin, flags, devices and processor.
#[derive(Clone, Debug)]
pub struct CompilerIdentity(Sha256Hasher);

impl CompilerIdentity {
    /// Identifies the plugin, the devices of `client`, and the processor, whose instructions are part of programs for the CPU.
    /// Returns none if the processor is unknown, or if the user's flags are in a file or ask for dumps, which only a compilation
    /// writes.
    ///
    /// # Errors
    /// If the file of the plugin cannot be read.
    pub fn of(client: &Client) -> anyhow::Result<Option<CompilerIdentity>> {
        let flags = env::var("XLA_FLAGS").unwrap_or_default();
        let must_compile = flags.contains("dump") || !(flags.is_empty() || flags.trim_start().starts_with("--"));
        let Some(processor) = processor().filter(|_| !must_compile) else { return Ok(None) };
        let mut hasher = Sha256Hasher::default();
        let mut add = |part: &str| update(&mut hasher, part.as_bytes());
        add(FORMAT);
        add(&plugin_identity(&client.plugin())?);
        add(client.platform_name());
        add(client.platform_version());
        for device in client.devices() {
            let description = device.description();
            add(&format!("{:?}", (&description.kind, description.id, &description.attributes)));
        }
        add(&processor);
        for (name, value) in compiler_variables() {
            add(&format!("{name}={value}"));
        }
        Ok(Some(CompilerIdentity(hasher)))
    }

    /// Returns the identity of the compilation of `program` with `options`: 64 hexadecimal digits.
    pub fn key(&self, options: &[u8], program: &[u8]) -> String {
        let mut hasher = self.0.clone();
        update(&mut hasher, options);
        update(&mut hasher, program);
        hasher.finish()
    }
}

/// Identifies a plugin by the version of its C API and the sha256 of its file. (Its version string differs with and without
/// devices.)
///
/// # Errors
/// If the file cannot be read.
pub fn plugin_identity(plugin: &Plugin) -> anyhow::Result<String> {
    // A plugin has hundreds of megabytes, so a process reads it once.
    static DIGESTS: Mutex<BTreeMap<PathBuf, String>> = Mutex::new(BTreeMap::new());
    let mut digests = DIGESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let digest = match digests.get(plugin.path()) {
        Some(digest) => digest.clone(),
        None => {
            let digest = sha256_of_file(plugin.path(), &|_| ());
            let digest = digest.with_context(|| format!("cannot read the plugin {}", plugin.path().display()))?;
            digests.insert(plugin.path().to_path_buf(), digest.clone());
            digest
        }
    };
    let (major, minor) = plugin.api_version();
    Ok(format!("PJRT C API {major}.{minor}, sha256 {digest}"))
}

/// Hashes `part` behind its size, so that no two lists of parts give the same bytes.
fn update(hasher: &mut Sha256Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}

/// Returns the variables of this process that compilers read, sorted.
fn compiler_variables() -> Vec<(String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    let is_read = |(name, _): &(String, String)| COMPILER_VARIABLES.iter().any(|beginning| name.starts_with(beginning));
    let mut variables: Vec<_> = env::vars_os().map(text).filter(is_read).collect();
    variables.sort();
    variables
}

/// Describes the processor by its instructions and the number of threads, into which the compiler divides loops. Returns none
/// on systems without `/proc/cpuinfo`.
fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let threads = thread::available_parallelism().ok()?;
    Some(format!("{threads} × {}", of_first_processor(&text)?))
}

/// Returns the lines of the first processor that describe its instructions.
fn of_first_processor(cpuinfo: &str) -> Option<String> {
    let first = cpuinfo.split("\n\n").next()?;
    let describes = |line: &&str| line.split_once(':').is_some_and(|(name, _)| PROCESSOR_LINES.contains(&name.trim()));
    let lines: Vec<&str> = first.lines().filter(describes).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_is_described_by_its_instructions() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A\ncpu MHz\t\t: 2000.1\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n";
        assert_eq!(of_first_processor(cpuinfo).unwrap(), "model name\t: A\nflags\t\t: fpu avx2");
        assert_eq!(of_first_processor("processor : 0\n"), None);
    }

    #[test]
    fn key_depends_on_each_part_and_on_their_bounds() {
        let identity = CompilerIdentity(Sha256Hasher::default());
        let mut other = Sha256Hasher::default();
        update(&mut other, b"x");
        let keys = [
            identity.key(b"ab", b"c"),
            identity.key(b"a", b"bc"),
            identity.key(b"ab", b"d"),
            CompilerIdentity(other).key(b"ab", b"c"),
        ];
        assert_eq!(keys[0], identity.key(b"ab", b"c"));
        assert!((0..4).all(|i| !keys[..i].contains(&keys[i])), "{keys:?}");
    }
}
