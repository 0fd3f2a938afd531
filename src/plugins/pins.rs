//! The wheels that `lambert plugin install` may download, each pinned by the sha256 of one file.
//!
//! The pins are for Linux on x86-64. To update one: `pip install --dry-run --no-deps --report - NAME==VERSION` reports the
//! file and its sha256 without installing anything.

use crate::pjrt::Platform;

/// One wheel file.
#[derive(Debug)]
pub struct Wheel {
    /// The name of the distribution on PyPI.
    pub name: &'static str,
    /// The pinned version.
    pub version: &'static str,
    /// The file's name, whose tags give the interpreter and the platform to request from pip.
    pub file: &'static str,
    /// The sha256 of the file, in hexadecimal.
    pub sha256: &'static str,
    /// Size of the file in MB, rounded up.
    pub megabytes: u64,
}

/// A plugin together with the libraries it loads.
#[derive(Debug)]
pub struct Package {
    /// The platform that the plugin supports.
    pub platform: Platform,
    /// The first wheel holds the plugin and names the package.
    pub wheels: &'static [Wheel],
    /// Size of the unpacked files in MB, rounded up.
    pub unpacked_megabytes: u64,
}

impl Package {
    /// Returns the name of the first wheel.
    pub fn name(&self) -> &'static str {
        self.wheels[0].name
    }

    /// Returns the version of the first wheel.
    pub fn version(&self) -> &'static str {
        self.wheels[0].version
    }

    /// Returns the size of all wheels in MB.
    pub fn download_megabytes(&self) -> u64 {
        self.wheels.iter().map(|wheel| wheel.megabytes).sum()
    }
}

/// All packages; the first of a platform is its default.
pub const PACKAGES: &[Package] = &[
    Package {
        platform: Platform::Cpu,
        wheels: &[Wheel {
            name: "lammps-jax-pjrt-cpu",
            version: "0.11.2",
            file: "lammps_jax_pjrt_cpu-0.11.2-py3-none-manylinux_2_27_x86_64.whl",
            sha256: "1319390d948b39f69f7dade496b7c385149d9ca6097a6b62114da113216d9ad1",
            megabytes: 63,
        }],
        unpacked_megabytes: 202,
    },
    Package {
        platform: Platform::Cpu,
        wheels: &[Wheel {
            name: "fastatomstruct-xla-cpu",
            version: "2026.6.23",
            file: "fastatomstruct_xla_cpu-2026.6.23-py3-none-manylinux_2_27_x86_64.whl",
            sha256: "88b1c430b341b4bea40a37420311c9c75db6e22b46d2ff95b6986577bee6afe9",
            megabytes: 64,
        }],
        unpacked_megabytes: 274,
    },
    Package {
        platform: Platform::Cpu,
        wheels: &[Wheel {
            name: "xla-cpu-pjrt",
            version: "0.0.1",
            file: "xla_cpu_pjrt-0.0.1-py3-none-manylinux_2_27_x86_64.whl",
            sha256: "55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc",
            megabytes: 64,
        }],
        unpacked_megabytes: 260,
    },
    Package {
        platform: Platform::Tpu,
        wheels: &[Wheel {
            name: "libtpu",
            version: "0.0.52",
            file: "libtpu-0.0.52-cp311-cp311-manylinux_2_31_x86_64.whl",
            sha256: "f5e2e596eaea9357fbb5a6755a7a9007c6ab75bfde4a55191b03eff402971140",
            megabytes: 138,
        }],
        unpacked_megabytes: 468,
    },
    Package {
        platform: Platform::Cuda,
        // The NVIDIA wheels are those that jax-cuda13-plugin[with-cuda] 0.12.0.1 requires, with their dependencies, except
        // nvidia-cuda-cccl (required by nvidia-nvshmem-cu13), which holds headers and CMake files: none would be unpacked.
        wheels: &[
            Wheel {
                name: "jax-cuda13-pjrt",
                version: "0.12.0.1",
                file: "jax_cuda13_pjrt-0.12.0.1-py3-none-manylinux_2_27_x86_64.whl",
                sha256: "5899bb6177eda86ea532afb9a26794f2bdd04966f6a01f9028266b16c2b6cf90",
                megabytes: 135,
            },
            Wheel {
                name: "nvidia-cublas",
                version: "13.10.0.20",
                file: "nvidia_cublas-13.10.0.20-py3-none-manylinux1_x86_64.manylinux_2_5_x86_64.whl",
                sha256: "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84",
                megabytes: 445,
            },
            Wheel {
                name: "nvidia-cuda-crt",
                version: "13.5.37",
                file: "nvidia_cuda_crt-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "e898b7f73d3035fa89915a3f7bf3b54a73e90249746111aed295822c4729bb29",
                megabytes: 1,
            },
            Wheel {
                name: "nvidia-cuda-cupti",
                version: "13.4.92",
                file: "nvidia_cuda_cupti-13.4.92-py3-none-manylinux_2_25_x86_64.whl",
                sha256: "037b561575e6983bc4fe1caae644d7a296a8367f451bf6c2a3194f4d0765431c",
                megabytes: 14,
            },
            Wheel {
                name: "nvidia-cuda-nvcc",
                version: "13.5.37",
                file: "nvidia_cuda_nvcc-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7",
                megabytes: 47,
            },
            Wheel {
                name: "nvidia-cuda-nvrtc",
                version: "13.5.37",
                file: "nvidia_cuda_nvrtc-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
                sha256: "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc",
                megabytes: 59,
            },
            Wheel {
                name: "nvidia-cuda-runtime",
                version: "13.5.37",
                file: "nvidia_cuda_runtime-13.5.37-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d",
                megabytes: 3,
            },
            Wheel {
                name: "nvidia-cudnn-cu13",
                version: "9.27.0.42",
                file: "nvidia_cudnn_cu13-9.27.0.42-py3-none-manylinux_2_27_x86_64.whl",
                sha256: "9677e76f21862eb5da7ee5ed69d544738b2d8b5c3ce7e5ec125c5592e6cdbdc8",
                megabytes: 537,
            },
            Wheel {
                name: "nvidia-cufft",
                version: "12.4.0.43",
                file: "nvidia_cufft-12.4.0.43-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "0e8385013596b112d29c9ce8c63dc575b308d77636c7169104e18714f03961a8",
                megabytes: 162,
            },
            Wheel {
                name: "nvidia-cusolver",
                version: "12.4.1.2",
                file: "nvidia_cusolver-12.4.1.2-py3-none-manylinux_2_27_x86_64.whl",
                sha256: "b3b8e02fd2f2df869369af075dc3a179d43f6f7b85e94632a7dce556697be044",
                megabytes: 260,
            },
            Wheel {
                name: "nvidia-cusparse",
                version: "12.9.4.2",
                file: "nvidia_cusparse-12.9.4.2-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "072667e58c851a318738f5527a12eb225cbf058803f2ea451c722d8cf8edddec",
                megabytes: 231,
            },
            Wheel {
                name: "nvidia-nccl-cu13",
                version: "2.32.3",
                file: "nvidia_nccl_cu13-2.32.3-py3-none-manylinux_2_27_x86_64.whl",
                sha256: "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3",
                megabytes: 306,
            },
            Wheel {
                name: "nvidia-nvjitlink",
                version: "13.5.37",
                file: "nvidia_nvjitlink-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
                sha256: "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb",
                megabytes: 47,
            },
            Wheel {
                name: "nvidia-nvshmem-cu13",
                version: "3.8.0",
                file: "nvidia_nvshmem_cu13-3.8.0-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
                sha256: "81a4d1f666543e6d34df6d2ff940c7da1435e34e186aab6f3c2b48861b64ef38",
                megabytes: 183,
            },
            Wheel {
                name: "nvidia-nvvm",
                version: "13.5.37",
                file: "nvidia_nvvm-13.5.37-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
                sha256: "c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070",
                megabytes: 76,
            },
        ],
        unpacked_megabytes: 3800,
    },
];
