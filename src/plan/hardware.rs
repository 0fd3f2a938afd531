//! What chips are said to do: a table of vendors' numbers, each with its source. A *chip* is what is bought or rented; a
//! plugin shows one or more *devices* on it (a TPU v3 chip shows its two cores). All numbers are of a chip.
//!
//! Bandwidths are in one direction. Sources that several lines share:
//!
//! * Cloud TPU documentation, docs.cloud.google.com/tpu/docs/v3, v4, v5e, v5p-training, v6e, for peak, memory, slices; the
//!   rate of an all-reduce is that page's "all-reduce bandwidth per Pod" over its chips, which is half of "bidirectional
//!   inter-chip interconnect bandwidth per chip" where a page gives both or only the latter.
//! * JAX's documentation of `jax.lax.DotAlgorithmPreset` (`BF16_BF16_F32_X6`) for products in f32 on a TPU, each of which is
//!   six in bf16.
//! * NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM, for peaks (in f32 that of the cores without TF32), memory
//!   and NVLink (600, 900 and 900 GB/s in both directions), and of DGX A100, DGX H100 and DGX H200 for the network (an
//!   InfiniBand adapter of 200, 400 and 400 Gb/s a GPU).
//! * openxla/xla `xla/backends/gpu/target_config/specs/*.txtpb` for what the compiler must know of a GPU ([`Gpu`]).

use crate::pjrt::Platform;
use crate::task::Precision;

/// One kind of chip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// As `--topology` spells it: `v5e`, `h200`.
    pub name: &'static str,
    pub platform: Platform,
    /// What a plugin calls the kind of its devices; they say more behind it.
    pub kind: &'static str,
    /// Devices that the plugin shows on a chip.
    pub devices: usize,
    /// FLOP/s of dense bf16 matrix products.
    pub peak_flops: f64,
    /// FLOP/s of matrix products in f32, with all bits of their operands, as the step asks for them.
    pub peak_flops_f32: f64,
    /// Bytes of high-bandwidth memory.
    pub memory: u64,
    /// Bytes a second between that memory and the chip.
    pub memory_bandwidth: f64,
    /// Bytes a second that a chip sends over the links to its neighbours: TPU's inter-chip interconnect, NVLink.
    pub link_bandwidth: f64,
    /// Bytes a second that a chip sends out of its host, where links end there.
    pub network_bandwidth: Option<f64>,
    /// The slices that are listed, smallest first; none where any number of hosts is offered.
    pub slices: &'static [&'static str],
    pub gpu: Option<Gpu>,
}

/// What XLA's compiler must know of a GPU that is not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    pub description: &'static str,
    /// Major, minor.
    pub compute_capability: (u32, u32),
    /// Whether instructions of this capability alone (`sm_90a`) may be used.
    pub accelerated_features: bool,
    pub cores: u32,
    pub fpus_per_core: u32,
    pub clock_ghz: f64,
    pub l2_cache: u64,
    pub shared_memory_per_block: u32,
    pub shared_memory_per_block_optin: u32,
    pub shared_memory_per_core: u32,
    /// Bytes that the driver reports, more than the name says.
    pub memory: u64,
}

const GIB: u64 = 1 << 30;

const SQUARES: &[&str] = &["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"];
const CUBES: &[&str] =
    &["2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"];
const CUBES_OF_V5P: &[&str] = &[
    "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16", "16x16x24",
];

const HOPPER: Gpu = Gpu {
    description: "NVIDIA H200 141GB HBM3e",
    compute_capability: (9, 0),
    accelerated_features: true,
    cores: 132,
    fpus_per_core: 128,
    clock_ghz: 1.98,
    l2_cache: 52_428_800,
    shared_memory_per_block: 49_152,
    shared_memory_per_block_optin: 232_448,
    shared_memory_per_core: 233_472,
    memory: 151_397_597_184,
};

const AMPERE: Gpu = Gpu {
    description: "NVIDIA A100-SXM4-80GB",
    compute_capability: (8, 0),
    accelerated_features: false,
    cores: 108,
    fpus_per_core: 64,
    clock_ghz: 1.41,
    l2_cache: 41_943_040,
    shared_memory_per_block: 49_152,
    shared_memory_per_block_optin: 166_912,
    shared_memory_per_core: 167_936,
    memory: 85_100_068_864,
};

impl Chip {
    /// Every chip that can be planned for.
    pub const ALL: [Chip; 8] = [
        Chip {
            name: "v3",
            platform: Platform::Tpu,
            kind: "TPU v3",
            devices: 2,
            peak_flops: 123e12,
            peak_flops_f32: 123e12 / 6.0,
            memory: 32 * GIB,
            memory_bandwidth: 900e9,
            link_bandwidth: 340e12 / 1024.0,
            network_bandwidth: None,
            slices: &["2x2", "4x4", "4x8", "8x8", "8x16", "16x16", "16x32", "32x32"],
            gpu: None,
        },
        Chip {
            name: "v4",
            platform: Platform::Tpu,
            kind: "TPU v4",
            devices: 1,
            peak_flops: 275e12,
            peak_flops_f32: 275e12 / 6.0,
            memory: 32 * GIB,
            memory_bandwidth: 1200e9,
            link_bandwidth: 1.1e15 / 4096.0,
            network_bandwidth: None,
            slices: CUBES,
            gpu: None,
        },
        Chip {
            name: "v5e",
            platform: Platform::Tpu,
            kind: "TPU v5 lite",
            devices: 1,
            peak_flops: 197e12,
            peak_flops_f32: 197e12 / 6.0,
            memory: 16 * GIB,
            memory_bandwidth: 819e9,
            link_bandwidth: 51.2e12 / 256.0,
            network_bandwidth: None,
            slices: SQUARES,
            gpu: None,
        },
        Chip {
            name: "v5p",
            platform: Platform::Tpu,
            kind: "TPU v5",
            devices: 1,
            peak_flops: 459e12,
            peak_flops_f32: 459e12 / 6.0,
            memory: 95 * GIB,
            memory_bandwidth: 2765e9,
            link_bandwidth: 1200e9 / 2.0,
            network_bandwidth: None,
            slices: CUBES_OF_V5P,
            gpu: None,
        },
        Chip {
            name: "v6e",
            platform: Platform::Tpu,
            kind: "TPU v6",
            devices: 1,
            peak_flops: 918e12,
            peak_flops_f32: 918e12 / 6.0,
            memory: 32 * GIB,
            memory_bandwidth: 1638e9,
            link_bandwidth: 102.4e12 / 256.0,
            network_bandwidth: None,
            slices: SQUARES,
            gpu: None,
        },
        Chip {
            name: "a100",
            platform: Platform::Cuda,
            kind: "NVIDIA A100",
            devices: 1,
            peak_flops: 312e12,
            peak_flops_f32: 19.5e12,
            memory: AMPERE.memory,
            memory_bandwidth: 2039e9,
            link_bandwidth: 300e9,
            network_bandwidth: Some(25e9),
            slices: &[],
            gpu: Some(AMPERE),
        },
        Chip {
            name: "h100",
            platform: Platform::Cuda,
            kind: "NVIDIA H100",
            devices: 1,
            peak_flops: 989e12,
            peak_flops_f32: 67e12,
            memory: 84_942_979_072,
            memory_bandwidth: 3352e9,
            link_bandwidth: 450e9,
            network_bandwidth: Some(50e9),
            slices: &[],
            gpu: Some(Gpu { description: "NVIDIA H100 80GB HBM3", memory: 84_942_979_072, ..HOPPER }),
        },
        Chip {
            name: "h200",
            platform: Platform::Cuda,
            kind: "NVIDIA H200",
            devices: 1,
            peak_flops: 989e12,
            peak_flops_f32: 67e12,
            memory: HOPPER.memory,
            memory_bandwidth: 4800e9,
            link_bandwidth: 450e9,
            network_bandwidth: Some(50e9),
            slices: &[],
            gpu: Some(HOPPER),
        },
    ];

    /// The chip called `name`, of any platform.
    pub fn named(name: &str) -> Option<&'static Chip> {
        const ALL: &[Chip] = &Chip::ALL;
        ALL.iter().find(|chip| chip.name == name)
    }

    /// The chip whose devices a plugin calls `kind`, which says more than the table does: `TPU v5 lite` begins with two kinds
    /// of it, and is the first.
    pub fn of_kind(kind: &str) -> Option<&'static Chip> {
        const ALL: &[Chip] = &Chip::ALL;
        ALL.iter().find(|chip| kind.starts_with(chip.kind))
    }

    /// FLOP/s of matrix products in `precision`; none where nobody says it.
    pub fn peak(&self, precision: Precision) -> Option<f64> {
        match precision {
            Precision::Bf16 => Some(self.peak_flops),
            Precision::F32 => Some(self.peak_flops_f32),
            Precision::F64 => None,
        }
    }

    /// Where the numbers come from, for people who ask.
    pub fn source(&self) -> &'static str {
        match self.platform {
            Platform::Tpu => "docs.cloud.google.com/tpu/docs",
            Platform::Cuda => "NVIDIA data sheets",
            Platform::Cpu => "none",
        }
    }
}

impl Gpu {
    /// A `stream_executor.GpuTargetConfigProto` in text form (openxla/xla `xla/stream_executor/device_description.proto`),
    /// as the CUDA plugin's create-option `target_config` takes it. `memory_bandwidth` is in bytes a second.
    pub fn target_config(&self, memory_bandwidth: f64) -> String {
        let (major, minor) = self.compute_capability;
        let features = if self.accelerated_features { "ACCELERATED_FEATURES" } else { "NONE" };
        let facts: [(&str, String); 18] = [
            ("core_count", self.cores.to_string()),
            ("fpus_per_core", self.fpus_per_core.to_string()),
            ("clock_rate_ghz", self.clock_ghz.to_string()),
            ("device_memory_size", self.memory.to_string()),
            ("memory_bandwidth", format!("{memory_bandwidth:.0}")),
            ("l2_cache_size", self.l2_cache.to_string()),
            ("shared_memory_per_block", self.shared_memory_per_block.to_string()),
            ("shared_memory_per_block_optin", self.shared_memory_per_block_optin.to_string()),
            ("shared_memory_per_core", self.shared_memory_per_core.to_string()),
            // The same on every GPU since compute capability 8.0.
            ("threads_per_block_limit", "1024".to_owned()),
            ("threads_per_warp", "32".to_owned()),
            ("threads_per_core_limit", "2048".to_owned()),
            ("registers_per_core_limit", "65536".to_owned()),
            ("registers_per_block_limit", "65536".to_owned()),
            ("block_dim_limit_x", "2147483647".to_owned()),
            ("block_dim_limit_y", "65535".to_owned()),
            ("block_dim_limit_z", "65535".to_owned()),
            ("device_address_bits", "64".to_owned()),
        ];
        let facts: String = facts.iter().map(|(field, value)| format!("  {field}: {value}\n")).collect();
        format!(
            "gpu_device_info {{\n{facts}  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: \
             {features} }}\n  name: \"{name}\"\n  device_vendor: \"NVIDIA Corporation\"\n  dnn_version: \"9.10.0\"\n}}\n\
             platform_name: \"CUDA\"\ndnn_version_info {{ major: 9 minor: 10 }}\ndevice_description_str: \"{name}\"\n",
            name = self.description,
        )
    }
}

/// Dense bf16 matrix-multiply peak of one device in FLOP/s, when its kind is known: the chips of [`Chip::ALL`], and two that
/// cannot be planned for (get_peak_flops in pytorch/torchtitan torchtitan/tools/utils.py).
pub fn peak_flops(device_kind: &str) -> Option<f64> {
    const OTHERS: [(&str, f64); 2] = [("H100 PCIe", 756e12), ("B200", 2250e12)];
    let other = OTHERS.iter().find(|(kind, _)| device_kind.contains(kind)).map(|(_, peak)| *peak);
    other.or_else(|| Chip::of_kind(device_kind).map(|chip| chip.peak_flops / chip.devices as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_tell_chips_apart() {
        for chip in &Chip::ALL {
            assert_eq!(Chip::named(chip.name), Some(chip));
            assert_eq!(Chip::of_kind(&format!("{} and more", chip.kind)), Some(chip));
            assert_eq!(chip.gpu.is_some(), chip.platform == Platform::Cuda);
            assert_eq!(chip.slices.is_empty(), chip.platform == Platform::Cuda);
        }
        assert_eq!((Chip::named("v9"), Chip::of_kind("TPU")), (None, None));
    }

    #[test]
    fn slices_ascend() {
        for chip in Chip::ALL {
            let chips = |slice: &str| slice.split('x').map(|n| n.parse::<usize>().unwrap()).product::<usize>();
            assert!(chip.slices.is_sorted_by_key(|slice| chips(slice)), "{}", chip.name);
        }
    }

    #[test]
    fn a_target_config_says_what_the_compiler_must_know() {
        let h200 = Chip::named("h200").unwrap();
        let config = h200.gpu.unwrap().target_config(h200.memory_bandwidth);
        for field in [
            "core_count: 132\n",
            "memory_bandwidth: 4800000000000\n",
            "device_memory_size: 151397597184\n",
            "major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES",
            "platform_name: \"CUDA\"",
            "device_description_str: \"NVIDIA H200 141GB HBM3e\"",
        ] {
            assert!(config.contains(field), "{field:?} is not in\n{config}");
        }
        let a100 = Chip::named("a100").unwrap();
        assert!(a100.gpu.unwrap().target_config(1.0).contains("major: 8 minor: 0 feature_extension: NONE"));
    }

    #[test]
    fn the_longest_name_of_a_device_wins() {
        assert_eq!(peak_flops("NVIDIA H100 PCIe"), Some(756e12));
        assert_eq!(peak_flops("NVIDIA H200"), Some(989e12));
        assert_eq!(peak_flops("TPU v5 lite"), Some(197e12));
        assert_eq!(peak_flops("TPU v5"), Some(459e12));
        assert_eq!(peak_flops("TPU v3"), Some(61.5e12), "a device is one of the chip's two cores");
        assert_eq!(peak_flops("cpu"), None);
    }
}
