//! Interprets the compiler's cost analysis of a step: loops that it counts once, and bytes that do not grow with the batch.

use super::traffic::Collectives;
use crate::bert::{BertConfig, param_specs};
use crate::run::Run;
use crate::shape::DType;

/// The expected cost of a step whose micro-batches are the iterations of a loop. Most compilers count the body of a loop
/// once, independent of its trip count; comparing a count with the model's own operations shows whether a compiler does.
pub(super) struct LoopCost {
    /// Floating-point operations of the step on one device.
    pub(super) flops: f64,
    pub(super) iterations: usize,
}

impl LoopCost {
    /// Returns how many iterations the compiler's count `counted` includes: 1 or all.
    pub(super) fn counted_iterations(&self, counted: f64) -> f64 {
        let iterations = self.iterations as f64;
        let distance = |expected: f64| (counted / expected).ln().abs();
        if distance(self.flops / iterations) < distance(self.flops) { 1.0 } else { iterations }
    }
}

/// Returns the bytes that a step of `run` moves on each of `devices` once, independent of the batch size.
///
/// The update reads and writes weights and optimizer state, and reads the gradients twice, for norms and for moments; a device
/// that holds a shard moves that shard. Communication also moves gradients, and weights if they are sharded.
pub(super) fn bytes_per_update(run: &Run, collectives: &Collectives, devices: usize) -> f64 {
    let sharded = run.parallel.resolve(&param_specs(&run.model), run.state_kinds(), devices).shard_optimizer;
    let values = 2 * (1 + run.state_kinds()) + 2;
    let update = (values * DType::F32.size() * parameters(&run.model)) as f64;
    update / if sharded { devices as f64 } else { 1.0 } + collectives.moved(devices)
}

/// Returns the number of trainable parameters of a model.
pub(super) fn parameters(model: &BertConfig) -> usize {
    param_specs(model).iter().map(|param| param.dims.iter().product::<usize>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_counted_once_is_distinguished_from_loop_counted_fully() {
        let step = LoopCost { flops: 8e12, iterations: 8 };
        assert_eq!(step.counted_iterations(1.1e12), 1.0);
        assert_eq!(step.counted_iterations(8.4e12), 8.0);
        assert_eq!(LoopCost { flops: 8e12, iterations: 1 }.counted_iterations(8.4e12), 1.0);
    }
}
