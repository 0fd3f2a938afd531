//! What replicas share of a step's work, and in which format they tell each other gradients: as a run file says it
//! ([`ParallelSettings`]) and as a step does it ([`Parallel`]).
//!
//! ```toml
//! [parallel]
//! gradient_exchange = "bf16"        # "f32" (the default) or "bf16": half the bytes, for 8 bits of every number
//! optimizer_sharding = "auto"       # "none", "sharded", or "auto" (the default): when it frees enough memory
//! ```
//! In **bf16** every replica rounds its sum of gradients to 8 significant bits (a relative error of at most 2⁻⁸), and
//! devices may round every partial sum again on the way. That is beyond rounding of f32, so it is one of the run's
//! settings: a run that was begun with one cannot be resumed with the other unasked. A **sharded** optimizer computes the
//! same numbers in another order of summation; like the size of a micro-batch it can change from one resumption to the
//! next.

use serde::{Deserialize, Serialize};

use crate::optim::OptimizerConfig;
use crate::shape::DType;
use crate::task::ParamSpec;
use crate::units::byte_size;

/// The table `[parallel]` of a run file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ParallelSettings {
    pub gradient_exchange: GradientExchange,
    pub optimizer_sharding: OptimizerSharding,
}

/// The number format in which gradients are summed over replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientExchange {
    /// As they were accumulated.
    #[default]
    F32,
    Bf16,
}

impl GradientExchange {
    pub const ALL: [GradientExchange; 2] = [GradientExchange::F32, GradientExchange::Bf16];

    /// The name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            GradientExchange::F32 => "f32",
            GradientExchange::Bf16 => "bf16",
        }
    }

    /// The element type on the wire of gradients that were accumulated in `accumulated`.
    pub const fn dtype(self, accumulated: DType) -> DType {
        match self {
            GradientExchange::F32 => accumulated,
            GradientExchange::Bf16 => DType::BF16,
        }
    }
}

/// Whether every device keeps all weights and slots, or its share of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerSharding {
    None,
    Sharded,
    /// Sharded where it frees at least [`WORTH_SHARDING`] bytes on every device.
    #[default]
    Auto,
}

impl OptimizerSharding {
    pub const ALL: [OptimizerSharding; 3] =
        [OptimizerSharding::None, OptimizerSharding::Sharded, OptimizerSharding::Auto];

    /// The name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            OptimizerSharding::None => "none",
            OptimizerSharding::Sharded => "sharded",
            OptimizerSharding::Auto => "auto",
        }
    }
}

/// Bytes on each device for which [`OptimizerSharding::Auto`] shards. What sharding costs is two small exchanges for the
/// norms; what it saves beside memory is (n − 1)/n of the update's arithmetic, and as much of its memory traffic. Below
/// this size a whole update takes about as long as an exchange.
pub const WORTH_SHARDING: u64 = 64_000_000;

/// What replicas share, as a step does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parallel {
    pub gradient_exchange: GradientExchange,
    /// Every replica keeps and updates its part of weights and slots only.
    pub shard_optimizer: bool,
}

impl ParallelSettings {
    /// What these settings mean for `params` under `optimizer` on `replicas` devices.
    pub fn resolve(&self, params: &[ParamSpec], optimizer: &OptimizerConfig, replicas: usize) -> Parallel {
        let shard_optimizer = match self.optimizer_sharding {
            OptimizerSharding::None => false,
            OptimizerSharding::Sharded => replicas > 1,
            OptimizerSharding::Auto => StateBytes::of(params, optimizer, replicas).freed() >= WORTH_SHARDING,
        };
        Parallel { gradient_exchange: self.gradient_exchange, shard_optimizer }
    }

    /// What [`ParallelSettings::resolve`] chose and why, as a run prints it; nothing on one device, where there is nothing
    /// to choose.
    pub fn describe(&self, params: &[ParamSpec], optimizer: &OptimizerConfig, replicas: usize) -> Option<String> {
        let state = StateBytes::of(params, optimizer, replicas);
        let amount = |bytes: u64| byte_size(bytes as f64);
        let held = match self.resolve(params, optimizer, replicas).shard_optimizer {
            true => format!(
                "weights and slots in {replicas} parts, {} on each device instead of {}",
                amount(state.in_parts),
                amount(state.whole)
            ),
            false => format!("weights and slots whole on each device, {}", amount(state.whole)),
        };
        let mut why = format!("optimizer_sharding = {:?}", self.optimizer_sharding.name());
        if self.optimizer_sharding == OptimizerSharding::Auto {
            why += &format!(": parts free {}, worth it from {}", amount(state.freed()), amount(WORTH_SHARDING));
        }
        (replicas > 1).then(|| format!("{held} ({why})"))
    }
}

/// Bytes of weights and slots in f32, on each of several devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StateBytes {
    whole: u64,
    in_parts: u64,
}

impl StateBytes {
    fn of(params: &[ParamSpec], optimizer: &OptimizerConfig, replicas: usize) -> StateBytes {
        let tensors = 1 + optimizer.state_names().len();
        let bytes = |elements: usize| (tensors * elements * DType::F32.size()) as u64;
        let elements = || params.iter().map(|param| param.dims.iter().product::<usize>());
        StateBytes {
            whole: bytes(elements().sum()),
            in_parts: bytes(elements().map(|elements| elements.div_ceil(replicas)).sum()),
        }
    }

    fn freed(&self) -> u64 {
        self.whole - self.in_parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{BertConfig, Preset, param_specs};

    #[test]
    fn a_run_file_says_it_and_auto_shards_what_is_large() {
        let settings: ParallelSettings = toml::from_str("gradient_exchange = 'bf16'").unwrap();
        let expected =
            ParallelSettings { gradient_exchange: GradientExchange::Bf16, optimizer_sharding: OptimizerSharding::Auto };
        assert_eq!(settings, expected);
        assert!(toml::from_str::<ParallelSettings>("optimizer_shardin = 'auto'").is_err());
        for exchange in GradientExchange::ALL {
            assert_eq!(serde_json::to_value(exchange).unwrap(), exchange.name());
        }
        for sharding in OptimizerSharding::ALL {
            assert_eq!(serde_json::to_value(sharding).unwrap(), sharding.name());
        }

        let (base, tiny) = (Preset::Base.config(30_522), Preset::Tiny.config(8192));
        let lamb = OptimizerConfig::default();
        let sharded = |text: &str, model: &BertConfig, replicas| {
            let settings: ParallelSettings = toml::from_str(text).unwrap();
            settings.resolve(&param_specs(model), &lamb, replicas).shard_optimizer
        };
        assert!(sharded("", &base, 2) && !sharded("", &base, 1));
        assert!(!sharded("", &tiny, 8), "1.5 million weights are soon updated");
        assert!(sharded("optimizer_sharding = 'sharded'", &tiny, 2));
        assert!(!sharded("optimizer_sharding = 'sharded'", &tiny, 1), "one device has all parts");
        assert!(!sharded("optimizer_sharding = 'none'", &base, 8));
    }

    #[test]
    fn what_was_chosen_is_said_with_its_reason() {
        let settings = ParallelSettings::default();
        let (params, lamb) = (param_specs(&Preset::Base.config(30_522)), OptimizerConfig::default());
        assert_eq!(settings.describe(&params, &lamb, 1), None);
        let said = settings.describe(&params, &lamb, 8).unwrap();
        assert!(said.starts_with("weights and slots in 8 parts, 165.2 MB on each device instead of 1.32 GB"), "{said}");
        assert!(said.contains("optimizer_sharding = \"auto\": parts free 1.16 GB"), "{said}");
    }
}
