//! Platforms (TPU, CUDA, CPU): the path of the plugin in its wheel, and the detection of hardware without a plugin.

use std::fmt;
use std::path::Path;

/// A kind of hardware that has a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Google TPU, through libtpu.
    Tpu,
    /// NVIDIA GPU.
    Cuda,
    /// The processor, with any number of virtual devices.
    Cpu,
}

impl Platform {
    /// All platforms, fastest first: the order of `auto`.
    pub const ALL: [Platform; 3] = [Platform::Tpu, Platform::Cuda, Platform::Cpu];

    /// Returns the name in settings: `tpu`, `cuda` or `cpu`.
    pub const fn name(self) -> &'static str {
        match self {
            Platform::Tpu => "tpu",
            Platform::Cuda => "cuda",
            Platform::Cpu => "cpu",
        }
    }

    /// Returns the paths of the plugin in the platform's wheels, relative to site-packages, in order of preference.
    pub const fn plugin_paths(self) -> &'static [&'static str] {
        match self {
            Platform::Tpu => &["libtpu/libtpu.so"],
            Platform::Cuda => {
                &["jax_plugins/xla_cuda13/xla_cuda_plugin.so", "jax_plugins/xla_cuda12/xla_cuda_plugin.so"]
            }
            Platform::Cpu => &[
                "lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so",
                "fastatomstruct_xla_cpu/libpjrt_cpu.so",
                "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so",
            ],
        }
    }

    /// Infers the platform from the file name of a plugin.
    pub fn of_file(path: &Path) -> Option<Platform> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let contains = |words: &[&str]| words.iter().any(|word| name.contains(word));
        match () {
            () if contains(&["tpu"]) => Some(Platform::Tpu),
            () if contains(&["cuda", "gpu"]) => Some(Platform::Cuda),
            () if contains(&["cpu"]) => Some(Platform::Cpu),
            () => None,
        }
    }

    /// Checks whether this machine has the hardware, before `auto` loads a plugin: some plugins wait for minutes or end the
    /// process if their hardware is absent.
    ///
    /// # Errors
    /// The reason why the hardware seems to be absent.
    pub fn hardware(self) -> Result<(), String> {
        match self {
            Platform::Cpu => Ok(()),
            Platform::Cuda => {
                let files = ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"];
                if files.iter().any(|file| Path::new(file).exists()) {
                    return Ok(());
                }
                Err(format!("no NVIDIA GPU on this machine (none of {} exists)", files.join(", ")))
            }
            Platform::Tpu => {
                if Path::new("/dev/accel0").exists() || has_tpu_on_pci(Path::new("/sys/bus/pci/devices")) {
                    return Ok(());
                }
                Err("no TPU on this machine (neither /dev/accel0 nor a TPU on the PCI bus)".to_owned())
            }
        }
    }
}

/// Looks for the vendor and device ids of TPUs v2 to v7 (jax-ml/jax, `jax/_src/hardware_utils.py`). The vendor id alone is
/// ambiguous: Google's virtual network card has it too.
fn has_tpu_on_pci(devices: &Path) -> bool {
    const GOOGLE: &str = "0x1ae0";
    const TPUS: [&str; 7] = ["0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076"];
    let Ok(entries) = devices.read_dir() else { return false };
    entries.flatten().any(|entry| {
        let number = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        number("vendor").trim() == GOOGLE && TPUS.contains(&number("device").trim())
    })
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_card_of_the_same_vendor_is_not_a_tpu() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pci = |slot: &str, device: &str| {
            let slot = dir.path().join(slot);
            std::fs::create_dir(&slot).expect("temporary directory");
            std::fs::write(slot.join("vendor"), "0x1ae0\n").expect("temporary directory");
            std::fs::write(slot.join("device"), device).expect("temporary directory");
        };
        pci("00:04.0", "0x0042\n");
        assert!(!has_tpu_on_pci(dir.path()));
        pci("00:05.0", "0x005e\n");
        assert!(has_tpu_on_pci(dir.path()));
    }
}
