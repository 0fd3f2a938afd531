//! What a client and a compilation can be told: the create-options of each platform, and the CompileOptionsProto.
//!
//! The protos are the fields used, with the numbers of openxla/xla `xla/pjrt/proto/compile_options.proto` and
//! `xla/xla_data.proto`.

use std::collections::BTreeMap;

use prost::Message;

use super::named_value::CreateOption;
use super::platform::Platform;

/// The share of a GPU's memory that the runtime takes. The plugin's own 0.75 leaves a quarter of the card idle; the rest is
/// for CUDA's context and libraries.
pub const CUDA_MEMORY_FRACTION: f32 = 0.92;

/// How a client of `platform` is made when `devices` of it are wanted (all if `None`, and on the CPU one: there, that
/// many virtual devices share the cores).
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

/// What a client of `platform` must be told besides, if its process is one of several: on CUDA who it is and how many
/// there are. A TPU slice knows, and a CPU client has no other processes.
pub fn options_among(platform: Option<Platform>, process: usize, processes: usize) -> Vec<CreateOption> {
    match platform {
        Some(Platform::Cuda) => {
            vec![CreateOption::new("node_id", process as i64), CreateOption::new("num_nodes", processes as i64)]
        }
        Some(Platform::Tpu | Platform::Cpu) | None => Vec::new(),
    }
}

/// How hard the compiler works at fast code (`ExecutionOptions.EffortLevel`); plugins that do not grade it ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    O0 = 9,
    O1 = 19,
    O2 = 29,
    O3 = 39,
}

/// A compiler flag's value. The type is the flag's own: a boolean flag is refused as a string, an enumeration or a list
/// of them is a string.
#[derive(Debug, Clone, PartialEq)]
pub enum Override {
    String(String),
    Bool(bool),
    Int(i64),
    Double(f64),
}

/// How a program is compiled. The default is one replica on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct CompileOptions {
    /// Copies of the program that run side by side on different data.
    pub num_replicas: usize,
    /// Parts that one copy is cut into.
    pub num_partitions: usize,
    /// Global device ids as `[partition][replica]`; the plugin's own order if `None`.
    pub device_assignment: Option<Vec<Vec<i64>>>,
    pub optimization_level: Option<Effort>,
    /// Values of `XLA_FLAGS` (without the dashes) for this compilation alone.
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
    /// `n` replicas, the devices chosen by the plugin.
    pub fn replicas(n: usize) -> Self {
        CompileOptions { num_replicas: n, ..Self::default() }
    }

    /// The options as `platform` (a client's platform name) compiles fastest; see [`recommended_overrides`].
    pub fn for_platform(mut self, platform: &str) -> Self {
        self.env_option_overrides.extend(recommended_overrides(platform));
        self
    }

    /// A serialized CompileOptionsProto. The same options give the same bytes.
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
            // -1 says "not set": zero would pin the program to the first device.
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

/// Compiler flags worth setting on a platform. On `cpu`, by processor time of whole training steps on a Sapphire Rapids
/// machine: vectors of the full width (a tenth less), and bf16 taken at its word (a sixth less: otherwise the compiler
/// drops the rounding to bf16 and multiplies in f32, past AMX). oneDNN in the place of YNNPACK took a third more. And
/// operations in the order that needs least memory: the order for most concurrency takes each as early as it can, also the
/// ones that recomputation puts off in order that nothing be kept for them.
pub fn recommended_overrides(platform: &str) -> BTreeMap<String, Override> {
    match platform {
        "cpu" => BTreeMap::from([
            ("xla_allow_excess_precision".to_owned(), Override::Bool(false)),
            ("xla_cpu_prefer_vector_width".to_owned(), Override::Int(512)),
            ("xla_cpu_enable_concurrency_optimized_scheduler".to_owned(), Override::Bool(false)),
        ]),
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
    fn compile_options_have_the_field_numbers_of_the_proto() {
        // Written out by hand: field 3 { 1: -1, 4: 2, 5: 1 }, field 7 { 1: "f", 2: { 2: true } }.
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
    fn an_explicit_false_or_empty_override_is_written() {
        // Leaving out a default value would mean "no value" inside a oneof, and the flag would keep its own default.
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
