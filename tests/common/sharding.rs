//! The sharded configuration, and its results as full tensors.

use crate::common::steps::small;
use lambert::bert::BertConfig;
use lambert::step::{GradientReduceDtype, Parallel, Program, StepSpec};

pub const SHARDED: Parallel = Parallel { gradient_reduce_dtype: GradientReduceDtype::F32, shard_optimizer: true };

pub fn model() -> BertConfig {
    BertConfig { num_hidden_layers: 1, ..small() }
}

/// Returns the results of a step in output order, with weights and optimizer state as full tensors.
pub fn whole_results(spec: &StepSpec, program: &Program, outputs: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let params = spec.task.parameters();
    let result = |i: usize| match spec.shards().is_some() && i < program.donated.len() {
        true => {
            let elements = params[i % params.len()].dims.iter().product();
            outputs.iter().flat_map(|replica| replica[i].iter().copied()).take(elements).collect()
        }
        false => outputs[0][i].clone(),
    };
    (0..program.outputs.len()).map(result).collect()
}
