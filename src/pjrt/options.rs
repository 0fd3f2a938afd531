//! Options of clients (the create-options of each platform) and of compilations (CompileOptionsProto).
//!
//! The protobuf messages have the fields that are used, with the numbers of openxla/xla `xla/pjrt/proto/compile_options.proto` and
//! `xla/xla_data.proto`.

use std::collections::BTreeMap;

use prost::Message;

use super::discovery::Platform;
use super::named_value::CreateOption;

/// The fraction of a GPU's memory that the client allocates. The plugin's default of 0.75 leaves a quarter of the memory
/// unused; the remainder here is for CUDA's context and libraries.
pub const CUDA_MEMORY_FRACTION: f32 = 0.92;

/// Returns the create-options of a client of `platform` with `devices` devices. `None` means all devices, on the CPU one
/// device. The virtual devices of a CPU client share the cores.
pub fn client_options(platform: Option<Platform>, devices: Option<usize>) -> Vec<CreateOption> {
    match platform {
        Some(Platform::Cpu) => vec![CreateOption::new("cpu_device_count", devices.unwrap_or(1) as i64)],
        Some(Platform::Cuda) => {
            let mut options = vec![CreateOption::new("memory_fraction", CUDA_MEMORY_FRACTION)];
            if let Some(n) = devices {
                options.push(CreateOption::new("visible_devices", (0..n as i64).collect::<Vec<_>>()));
            }
            options
        }
        Some(Platform::Tpu) | None => Vec::new(),
    }
}

/// Returns the further create-options of a client that is one of several processes: on CUDA the index of the process and
/// their number. A TPU client reads them from its environment, and a CPU client has no other processes.
pub fn multi_process_options(platform: Option<Platform>, process: usize, processes: usize) -> Vec<CreateOption> {
    match platform {
        Some(Platform::Cuda) => {
            vec![CreateOption::new("node_id", process as i64), CreateOption::new("num_nodes", processes as i64)]
        }
        Some(Platform::Tpu | Platform::Cpu) | None => Vec::new(),
    }
}

/// The optimization effort of the compiler (`ExecutionOptions.EffortLevel`). Plugins without effort levels ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Least effort, fastest compilation.
    O0 = 9,
    /// Level 1.
    O1 = 19,
    /// Level 2.
    O2 = 29,
    /// Most effort, slowest compilation.
    O3 = 39,
}

/// The value of a compiler flag. Its type must be the flag's type: XLA rejects a string for a boolean flag. Enumerations
/// and lists of them are strings.
#[derive(Debug, Clone, PartialEq)]
pub enum Override {
    /// Text, an enumeration or a list.
    String(String),
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Double(f64),
}

/// Options of a compilation. The default is one replica on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileOptions {
    /// Number of replicas, which run the program on different data.
    pub num_replicas: usize,
    /// Number of partitions of one replica.
    pub num_partitions: usize,
    /// Global device ids as `[partition][replica]`; `None` means the plugin's order.
    pub device_assignment: Option<Vec<Vec<i64>>>,
    /// Effort of the compiler; `None` means the plugin's default.
    pub optimization_level: Option<Effort>,
    /// Flags of `XLA_FLAGS` (without the dashes) for this compilation.
    pub env_option_overrides: BTreeMap<String, Override>,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions {
            num_replicas: 1,
            num_partitions: 1,
            device_assignment: None,
            optimization_level: None,
            env_option_overrides: BTreeMap::new(),
        }
    }
}

impl CompileOptions {
    /// Returns options for `n` replicas on the devices that the plugin chooses.
    pub fn replicas(n: usize) -> Self {
        CompileOptions { num_replicas: n, ..Self::default() }
    }

    /// Adds the flags of [`recommended_overrides`] for `platform`, a client's platform name.
    pub fn for_platform(mut self, platform: &str) -> Self {
        self.env_option_overrides.extend(recommended_overrides(platform));
        self
    }

    /// Adds the flags of [`deviceless_overrides`] for `platform`, for a program that is compiled without devices to run later.
    pub fn deviceless(mut self, platform: &str) -> Self {
        self.env_option_overrides.extend(deviceless_overrides(platform));
        self
    }

    /// Serializes to a CompileOptionsProto. Equal options give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let device_assignment = self.device_assignment.as_ref().map(|partitions| proto::DeviceAssignment {
            replica_count: partitions.first().map_or(0, |replicas| replicas.len() as i32),
            computation_count: partitions.len() as i32,
            computation_devices: partitions
                .iter()
                .map(|replicas| proto::ComputationDevice { replica_device_ids: replicas.clone() })
                .collect(),
        });
        let build = proto::ExecutableBuildOptions {
            // -1 means "not set"; zero would pin the program to the first device.
            device_ordinal: -1,
            num_replicas: self.num_replicas as i64,
            num_partitions: self.num_partitions as i64,
            use_spmd_partitioning: self.num_partitions > 1,
            device_assignment,
            optimization_level: self.optimization_level.map_or(0, |level| level as i32),
        };
        let env_option_overrides = self
            .env_option_overrides
            .iter()
            .map(|(flag, value)| {
                use proto::option_override::Value as V;
                let value = match value.clone() {
                    Override::String(x) => V::String(x),
                    Override::Bool(x) => V::Bool(x),
                    Override::Int(x) => V::Int(x),
                    Override::Double(x) => V::Double(x),
                };
                (flag.clone(), proto::OptionOverride { value: Some(value) })
            })
            .collect();
        proto::CompileOptions { executable_build_options: Some(build), env_option_overrides }.encode_to_vec()
    }
}

/// Returns recommended compiler flags for a platform. On `cpu`, measured as processor time of training steps on a Sapphire
/// Rapids machine:
///
/// * full vector width: 10 % less;
/// * no excess precision: 17 % less, because XLA otherwise drops the rounding to bf16 and multiplies in f32, without AMX;
/// * the memory-optimized schedule: the concurrency-optimized one executes operations as early as possible, including
///   those that recomputation defers to save memory.
///
/// oneDNN instead of YNNPACK takes a third more time.
///
/// On `cuda`, no excess precision: XLA otherwise drops the rounding to bf16, so that activations move between kernels in f32
/// and sharded weights are gathered in f32. Outside matrix products, a layer of BERT-Large moves 17 % fewer bytes.
pub fn recommended_overrides(platform: &str) -> BTreeMap<String, Override> {
    match platform {
        "cpu" => BTreeMap::from([
            ("xla_allow_excess_precision".to_owned(), Override::Bool(false)),
            ("xla_cpu_prefer_vector_width".to_owned(), Override::Int(512)),
            ("xla_cpu_enable_concurrency_optimized_scheduler".to_owned(), Override::Bool(false)),
        ]),
        "cuda" => BTreeMap::from([("xla_allow_excess_precision".to_owned(), Override::Bool(false))]),
        _ => BTreeMap::new(),
    }
}

/// Returns the compiler flags of a platform for programs that are compiled without devices, and will run.
///
/// The compiler for `cuda` selects the kernels of matrix products by timing them. Without a GPU it takes a Triton kernel with
/// default tiles for every product (at most 64 × 32 elements, 16 × 8 for gradients of weights), which the bandwidth of the
/// second-level cache limits to a few percent of the peak rate. Without Triton it calls cuBLASLt, which selects a kernel by
/// the shape.
pub fn deviceless_overrides(platform: &str) -> BTreeMap<String, Override> {
    match platform {
        "cuda" => BTreeMap::from([("xla_gpu_enable_triton_gemm".to_owned(), Override::Bool(false))]),
        _ => BTreeMap::new(),
    }
}

mod proto {
    use std::collections::BTreeMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct CompileOptions {
        #[prost(message, optional, tag = "3")]
        pub executable_build_options: Option<ExecutableBuildOptions>,
        #[prost(btree_map = "string, message", tag = "7")]
        pub env_option_overrides: BTreeMap<String, OptionOverride>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ExecutableBuildOptions {
        #[prost(int64, tag = "1")]
        pub device_ordinal: i64,
        #[prost(int64, tag = "4")]
        pub num_replicas: i64,
        #[prost(int64, tag = "5")]
        pub num_partitions: i64,
        #[prost(bool, tag = "6")]
        pub use_spmd_partitioning: bool,
        #[prost(message, optional, tag = "9")]
        pub device_assignment: Option<DeviceAssignment>,
        #[prost(int32, tag = "24")]
        pub optimization_level: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct DeviceAssignment {
        #[prost(int32, tag = "1")]
        pub replica_count: i32,
        #[prost(int32, tag = "2")]
        pub computation_count: i32,
        #[prost(message, repeated, tag = "3")]
        pub computation_devices: Vec<ComputationDevice>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ComputationDevice {
        #[prost(int64, repeated, tag = "1")]
        pub replica_device_ids: Vec<i64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct OptionOverride {
        #[prost(oneof = "option_override::Value", tags = "1, 2, 3, 4")]
        pub value: Option<option_override::Value>,
    }

    pub mod option_override {
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Value {
            #[prost(string, tag = "1")]
            String(String),
            #[prost(bool, tag = "2")]
            Bool(bool),
            #[prost(int64, tag = "3")]
            Int(i64),
            #[prost(double, tag = "4")]
            Double(f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compile_options_have_xla_field_numbers() {
        // By hand: field 3 { 1: -1, 4: 2, 5: 1 }, field 7 { 1: "f", 2: { 2: true } }.
        let options = CompileOptions {
            env_option_overrides: BTreeMap::from([("f".to_owned(), Override::Bool(true))]),
            ..CompileOptions::replicas(2)
        };
        let mut expected = vec![0x1a, 15, 0x08];
        expected.extend([0xff; 9]);
        expected.extend([0x01, 0x20, 2, 0x28, 1]);
        expected.extend([0x3a, 7, 0x0a, 1, b'f', 0x12, 2, 0x10, 1]);
        assert_eq!(options.encode(), expected);
    }

    #[test]
    fn false_and_empty_overrides_are_encoded() {
        // An omitted default value inside a oneof means "no value", and the flag would keep its own default.
        let with = |value| {
            CompileOptions {
                env_option_overrides: BTreeMap::from([("f".to_owned(), value)]),
                ..CompileOptions::default()
            }
            .encode()
        };
        assert!(with(Override::Bool(false)).ends_with(&[0x12, 2, 0x10, 0]));
        assert!(with(Override::String(String::new())).ends_with(&[0x12, 2, 0x0a, 0]));
    }
}
