//! The table of accelerators: published peak rates, memory and interconnect of each chip, with their sources. A *chip* is the
//! unit that is bought or rented; the plugin shows one or more *devices* per chip (a TPU v3 chip shows its two cores). All
//! numbers are per chip.
//!
//! Bandwidths are in one direction. Sources:
//!
//! * Peak, memory and slices of TPUs: Cloud TPU documentation, docs.cloud.google.com/tpu/docs/v3, v4, v5e, v5p-training, v6e.
//!   The link bandwidth is that page's "all-reduce bandwidth per Pod" divided by its chips, which is half of "bidirectional
//!   inter-chip interconnect bandwidth per chip" where a page gives both or only the latter.
//! * f32 matrix products on TPUs: JAX's documentation of `jax.lax.DotAlgorithmPreset` (`BF16_BF16_F32_X6`); one f32 product
//!   takes six bf16 products.
//! * Peaks (f32 without TF32), memory and NVLink (600, 900 and 900 GB/s in both directions) of GPUs: NVIDIA's data sheets of
//!   A100 80GB SXM, H100 SXM and H200 SXM. Network: those of DGX A100, DGX H100 and DGX H200 (one InfiniBand adapter of 200,
//!   400 and 400 Gb/s per GPU).
//! * GPU properties for the compiler ([`Gpu`]): openxla/xla `xla/backends/gpu/target_config/specs/*.txtpb`.

use crate::pjrt::Platform;
use crate::task::Precision;

/// One kind of accelerator chip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accelerator {
    /// The name in a topology: `v5e`, `h200`.
    pub name: &'static str,
    /// The platform whose plugin compiles for it.
    pub platform: Platform,
    /// The prefix of the device kind that the plugin reports.
    pub kind: &'static str,
    /// Devices per chip.
    pub devices: usize,
    /// Peak FLOP/s of dense bf16 matrix products.
    pub peak_flops: f64,
    /// Peak FLOP/s of f32 matrix products at full precision (XLA's `HIGHEST`), which the step uses.
    pub peak_flops_f32: f64,
    /// Bytes of high-bandwidth memory.
    pub memory: u64,
    /// Bandwidth of that memory in bytes/s.
    pub memory_bandwidth: f64,
    /// Bytes/s that a chip sends over its links to other chips: TPU inter-chip interconnect (ICI) or NVLink.
    pub link_bandwidth: f64,
    /// Bytes/s that a chip sends over the network between hosts; none if links connect all chips.
    pub network_bandwidth: Option<f64>,
    /// The slice shapes that the vendor lists, smallest first; empty for GPUs, which have any number of hosts.
    pub slices: &'static [&'static str],
    /// Further properties of a GPU; none for TPUs.
    pub gpu: Option<Gpu>,
}

/// The properties of an absent GPU that XLA's compiler needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gpu {
    /// The device description that the driver reports.
    pub description: &'static str,
    /// The compute capability: major, minor.
    pub compute_capability: (u32, u32),
    /// Whether instructions specific to this capability (`sm_90a`) may be used.
    pub accelerated_features: bool,
    /// Streaming multiprocessors.
    pub cores: u32,
    /// FP32 units per multiprocessor.
    pub fpus_per_core: u32,
    /// Boost clock in GHz.
    pub clock_ghz: f64,
    /// Bytes of L2 cache.
    pub l2_cache: u64,
    /// Bytes of shared memory per block, by default.
    pub shared_memory_per_block: u32,
    /// Bytes of shared memory per block that a kernel can opt in to.
    pub shared_memory_per_block_optin: u32,
    /// Bytes of shared memory per multiprocessor.
    pub shared_memory_per_core: u32,
    /// Bytes that the driver reports, which is more than the nominal size.
    pub memory: u64,
}

const GIB: u64 = 1 << 30;

const SQUARES: &[&str] = &["1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"];
const CUBES: &[&str] =
    &["2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"];
const V5P_CUBES: &[&str] = &[
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

impl Accelerator {
    /// Every accelerator that a plan can target.
    pub const ALL: [Accelerator; 8] = [
        Accelerator {
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
        Accelerator {
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
        Accelerator {
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
        Accelerator {
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
            slices: V5P_CUBES,
            gpu: None,
        },
        Accelerator {
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
        Accelerator {
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
        Accelerator {
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
        Accelerator {
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

    /// Finds the accelerator called `name`, on any platform.
    pub fn named(name: &str) -> Option<&'static Accelerator> {
        const ALL: &[Accelerator] = &Accelerator::ALL;
        ALL.iter().find(|chip| chip.name == name)
    }

    /// Finds the accelerator by the device kind that a plugin reports: the first whose `kind` is a prefix of it. (`TPU v5 lite`
    /// has two such prefixes; v5e comes before v5p.)
    pub fn of_kind(kind: &str) -> Option<&'static Accelerator> {
        const ALL: &[Accelerator] = &Accelerator::ALL;
        ALL.iter().find(|chip| kind.starts_with(chip.kind))
    }

    /// Returns the peak FLOP/s of matrix products in `precision`; none if it is not published.
    pub fn peak(&self, precision: Precision) -> Option<f64> {
        match precision {
            Precision::Bf16 => Some(self.peak_flops),
            Precision::F32 => Some(self.peak_flops_f32),
            Precision::F64 => None,
        }
    }

    /// Returns the source of the published rates.
    pub fn source(&self) -> &'static str {
        match self.platform {
            Platform::Tpu => "docs.cloud.google.com/tpu/docs",
            Platform::Cuda => "NVIDIA data sheets",
            Platform::Cpu => "none",
        }
    }
}

impl Gpu {
    /// Formats a `stream_executor.GpuTargetConfigProto` as text (openxla/xla `xla/stream_executor/device_description.proto`),
    /// for the CUDA plugin's create-option `target_config`. `memory_bandwidth` is in bytes/s.
    pub fn target_config(&self, memory_bandwidth: f64) -> String {
        let (major, minor) = self.compute_capability;
        let features = if self.accelerated_features { "ACCELERATED_FEATURES" } else { "NONE" };
        let fields: [(&str, String); 18] = [
            ("core_count", self.cores.to_string()),
            ("fpus_per_core", self.fpus_per_core.to_string()),
            ("clock_rate_ghz", self.clock_ghz.to_string()),
            ("device_memory_size", self.memory.to_string()),
            ("memory_bandwidth", format!("{memory_bandwidth:.0}")),
            ("l2_cache_size", self.l2_cache.to_string()),
            ("shared_memory_per_block", self.shared_memory_per_block.to_string()),
            ("shared_memory_per_block_optin", self.shared_memory_per_block_optin.to_string()),
            ("shared_memory_per_core", self.shared_memory_per_core.to_string()),
            // The remaining fields are the same on every GPU since compute capability 8.0.
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
        let fields: String = fields.iter().map(|(field, value)| format!("  {field}: {value}\n")).collect();
        format!(
            "gpu_device_info {{\n{fields}  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: \
             {features} }}\n  name: \"{name}\"\n  device_vendor: \"NVIDIA Corporation\"\n  dnn_version: \"9.10.0\"\n}}\n\
             platform_name: \"CUDA\"\ndnn_version_info {{ major: 9 minor: 10 }}\ndevice_description_str: \"{name}\"\n",
            name = self.description,
        )
    }
}

/// Returns the dense bf16 matrix-multiply peak of one device in FLOP/s, if its kind is known: one of [`Accelerator::ALL`], or
/// one of two that a plan cannot target (get_peak_flops in pytorch/torchtitan torchtitan/tools/utils.py).
pub fn peak_flops(device_kind: &str) -> Option<f64> {
    const OTHERS: [(&str, f64); 2] = [("H100 PCIe", 756e12), ("B200", 2250e12)];
    let other = OTHERS.iter().find(|(kind, _)| device_kind.contains(kind)).map(|(_, peak)| *peak);
    other.or_else(|| Accelerator::of_kind(device_kind).map(|chip| chip.peak_flops / chip.devices as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_kinds_are_unambiguous() {
        for chip in &Accelerator::ALL {
            assert_eq!(Accelerator::named(chip.name), Some(chip));
            assert_eq!(Accelerator::of_kind(&format!("{} and more", chip.kind)), Some(chip));
            assert_eq!(chip.gpu.is_some(), chip.platform == Platform::Cuda);
            assert_eq!(chip.slices.is_empty(), chip.platform == Platform::Cuda);
        }
        assert_eq!((Accelerator::named("v9"), Accelerator::of_kind("TPU")), (None, None));
    }

    #[test]
    fn slices_ascend() {
        for chip in Accelerator::ALL {
            let chips = |slice: &str| slice.split('x').map(|n| n.parse::<usize>().unwrap()).product::<usize>();
            assert!(chip.slices.is_sorted_by_key(|slice| chips(slice)), "{}", chip.name);
        }
    }

    #[test]
    fn target_config_holds_the_gpu_properties() {
        let h200 = Accelerator::named("h200").unwrap();
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
        let a100 = Accelerator::named("a100").unwrap();
        assert!(a100.gpu.unwrap().target_config(1.0).contains("major: 8 minor: 0 feature_extension: NONE"));
    }

    #[test]
    fn peak_flops_uses_the_most_specific_device_kind() {
        assert_eq!(peak_flops("NVIDIA H100 PCIe"), Some(756e12));
        assert_eq!(peak_flops("NVIDIA H200"), Some(989e12));
        assert_eq!(peak_flops("TPU v5 lite"), Some(197e12));
        assert_eq!(peak_flops("TPU v5"), Some(459e12));
        assert_eq!(peak_flops("TPU v3"), Some(61.5e12), "a device is one of the chip's two cores");
        assert_eq!(peak_flops("cpu"), None);
    }
}
