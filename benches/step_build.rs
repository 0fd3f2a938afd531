//! How long a user waits before the compiler starts: building the graph of the BERT-Large training step (both the plain
//! one and the one with a micro-batch loop) and lowering it to HLO. `cargo bench --bench step_build`

use criterion::{Criterion, criterion_group, criterion_main};
use lambert::bert::{Precision, Preset, Recompute};
use lambert::optim::OptimizerConfig;
use lambert::train::{Parallel, StepSpec, TrainStep};

fn build_and_lower(criterion: &mut Criterion) {
    for micro_batches in [1, 4] {
        let spec = StepSpec {
            model: Preset::Large.config(30522),
            optimizer: OptimizerConfig::default(),
            precision: Precision::Bf16,
            sequence_length: 128,
            predictions: 20,
            sequences_per_row: 1,
            rows: 16 * micro_batches,
            micro_batches,
            replicas: 8,
            parallel: Parallel::default(),
            dropout: true,
            recompute: Recompute::default(),
        };
        let step = TrainStep::build(&spec).expect("a published size");
        let bytes = step.program.lower().bytes.len();
        println!("{} nodes, {bytes} bytes of HLO", step.program.computation.nodes.len());
        criterion.bench_function(&format!("bert-large, {micro_batches} micro-batches, build"), |b| {
            b.iter(|| TrainStep::build(&spec))
        });
        criterion.bench_function(&format!("bert-large, {micro_batches} micro-batches, lower"), |b| {
            b.iter(|| step.program.lower())
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = build_and_lower
}
criterion_main!(benches);
