//! Data parallelism: the number format of the gradient all-reduce and the sharding of the optimizer, as settings of a run
//! file ([`ParallelSettings`]) and as a step applies them ([`Parallel`]).
//!
//! ```toml
//! [parallel]
//! gradient_reduce_dtype = "bf16"        # "f32" (the default) or "bf16": half the bytes, for 8 bits of every number
//! optimizer_sharding = "auto"       # "none", "sharded", or "auto" (the default): when it frees enough memory
//! ```
//! With **bf16** every replica rounds its sum of gradients to 8 significant bits (a relative error of at most 2⁻⁸), and
//! devices may round partial sums again. This exceeds the rounding of f32, so that it is a setting of the run: a run that
//! was started with one type does not resume with the other unless changes are accepted. A **sharded** optimizer computes
//! the same numbers in another order of summation; like the micro-batch size it may change when a run resumes.

use serde::{Deserialize, Serialize};

use crate::shape::DType;
use crate::task::ParamSpec;
use crate::units::byte_size;

/// The table `[parallel]` of a run file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelSettings {
    /// The format in which gradients are summed over replicas.
    pub gradient_reduce_dtype: GradientReduceDtype,
    /// Whether weights and optimizer state are sharded.
    pub optimizer_sharding: OptimizerSharding,
}

/// The number format of the gradient all-reduce or reduce-scatter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientReduceDtype {
    /// The format that gradients were accumulated in.
    #[default]
    F32,
    /// Rounded to bf16.
    Bf16,
}

impl GradientReduceDtype {
    /// All formats.
    pub const ALL: [GradientReduceDtype; 2] = [GradientReduceDtype::F32, GradientReduceDtype::Bf16];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            GradientReduceDtype::F32 => "f32",
            GradientReduceDtype::Bf16 => "bf16",
        }
    }

    /// Returns the element type of the all-reduce of gradients that were accumulated in `accumulated`.
    pub const fn dtype(self, accumulated: DType) -> DType {
        match self {
            GradientReduceDtype::F32 => accumulated,
            GradientReduceDtype::Bf16 => DType::BF16,
        }
    }
}

/// Replication or sharding of weights and optimizer state between steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerSharding {
    /// Replicated on every device.
    None,
    /// Sharded over the devices.
    Sharded,
    /// Sharded if that frees at least [`WORTH_SHARDING`] bytes on every device.
    #[default]
    Auto,
}

impl OptimizerSharding {
    /// All choices.
    pub const ALL: [OptimizerSharding; 3] =
        [OptimizerSharding::None, OptimizerSharding::Sharded, OptimizerSharding::Auto];

    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            OptimizerSharding::None => "none",
            OptimizerSharding::Sharded => "sharded",
            OptimizerSharding::Auto => "auto",
        }
    }
}

/// The memory in bytes that sharding must free on each device for [`OptimizerSharding::Auto`] to shard. Sharding costs two
/// small all-reduces for the norms; beside memory it saves (n − 1)/n of the arithmetic of the update and of its memory
/// traffic. Below this size a replicated update takes about as long as an all-reduce.
pub const WORTH_SHARDING: u64 = 64_000_000;

/// Data parallelism as a step applies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parallel {
    /// The format in which gradients are summed over replicas.
    pub gradient_reduce_dtype: GradientReduceDtype,
    /// Every replica keeps and updates its shard of weights and optimizer state only.
    pub shard_optimizer: bool,
}

impl ParallelSettings {
    /// Resolves the settings for `params` with `kinds` tensors of state each on `replicas` devices.
    pub fn resolve(&self, params: &[ParamSpec], kinds: usize, replicas: usize) -> Parallel {
        let shard_optimizer = match self.optimizer_sharding {
            OptimizerSharding::None => false,
            OptimizerSharding::Sharded => replicas > 1,
            OptimizerSharding::Auto => StateBytes::of(params, kinds, replicas).freed() >= WORTH_SHARDING,
        };
        Parallel { gradient_reduce_dtype: self.gradient_reduce_dtype, shard_optimizer }
    }

    /// Describes the choice of [`ParallelSettings::resolve`] and its reason, as a run prints them; none on a single device.
    pub fn describe(&self, params: &[ParamSpec], kinds: usize, replicas: usize) -> Option<String> {
        let state = StateBytes::of(params, kinds, replicas);
        let amount = |bytes: u64| byte_size(bytes as f64);
        let placement = match self.resolve(params, kinds, replicas).shard_optimizer {
            true => format!(
                "weights and optimizer state in {replicas} shards, {} on each device instead of {}",
                amount(state.sharded),
                amount(state.replicated)
            ),
            false => format!("weights and optimizer state replicated, {} on each device", amount(state.replicated)),
        };
        let mut why = format!("optimizer_sharding = {:?}", self.optimizer_sharding.name());
        if self.optimizer_sharding == OptimizerSharding::Auto {
            why += &format!(": sharding frees {}, threshold {}", amount(state.freed()), amount(WORTH_SHARDING));
        }
        (replicas > 1).then(|| format!("{placement} ({why})"))
    }
}

/// The bytes of weights and optimizer state in f32 on each device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StateBytes {
    replicated: u64,
    sharded: u64,
}

impl StateBytes {
    fn of(params: &[ParamSpec], kinds: usize, replicas: usize) -> StateBytes {
        let tensors = 1 + kinds;
        let bytes = |elements: usize| (tensors * elements * DType::F32.size()) as u64;
        let elements = || params.iter().map(|param| param.dims.iter().product::<usize>());
        StateBytes {
            replicated: bytes(elements().sum()),
            sharded: bytes(elements().map(|elements| elements.div_ceil(replicas)).sum()),
        }
    }

    fn freed(&self) -> u64 {
        self.replicated - self.sharded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{BertConfig, Preset, param_specs};

    #[test]
    fn run_file_selects_formats_and_auto_shards_large_states() {
        let settings: ParallelSettings = toml::from_str("gradient_reduce_dtype = 'bf16'").unwrap();
        let expected = ParallelSettings {
            gradient_reduce_dtype: GradientReduceDtype::Bf16,
            optimizer_sharding: OptimizerSharding::Auto,
        };
        assert_eq!(settings, expected);
        assert!(toml::from_str::<ParallelSettings>("optimizer_shardin = 'auto'").is_err());
        for exchange in GradientReduceDtype::ALL {
            assert_eq!(serde_json::to_value(exchange).unwrap(), exchange.name());
        }
        for sharding in OptimizerSharding::ALL {
            assert_eq!(serde_json::to_value(sharding).unwrap(), sharding.name());
        }

        let (base, tiny) = (Preset::Base.config(30_522), Preset::Tiny.config(8192));
        let sharded = |text: &str, model: &BertConfig, replicas| {
            let settings: ParallelSettings = toml::from_str(text).unwrap();
            settings.resolve(&param_specs(model), 2, replicas).shard_optimizer
        };
        assert!(sharded("", &base, 2) && !sharded("", &base, 1));
        assert!(!sharded("", &tiny, 8), "1.5 million weights are below the threshold");
        assert!(sharded("optimizer_sharding = 'sharded'", &tiny, 2));
        assert!(!sharded("optimizer_sharding = 'sharded'", &tiny, 1), "one device has all shards");
        assert!(!sharded("optimizer_sharding = 'none'", &base, 8));
    }

    #[test]
    fn description_names_the_choice_and_its_reason() {
        let settings = ParallelSettings::default();
        let params = param_specs(&Preset::Base.config(30_522));
        assert_eq!(settings.describe(&params, 2, 1), None);
        let description = settings.describe(&params, 2, 8).unwrap();
        assert!(
            description
                .starts_with("weights and optimizer state in 8 shards, 165.2 MB on each device instead of 1.32 GB"),
            "{description}"
        );
        assert!(description.contains("optimizer_sharding = \"auto\": sharding frees 1.16 GB"), "{description}");
    }
}
