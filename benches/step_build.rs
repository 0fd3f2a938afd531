//! Measures the time before XLA compilation: building the graph of BERT-Large's train step and lowering it to HLO, for both
//! phases of `scripts/runs/bert-large-64k-paper.toml`, with the optimizer state replicated on 64 devices and sharded over
//! 1,024. `cargo bench --bench step_build`

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertPretraining, Kernels, Layers, Preset, Recompute};
use lambert::data::{ExampleConfig, max_predictions_per_row};
use lambert::optim::OptimizerConfig;
use lambert::step::{Parallel, StepSpec, TrainStep};
use lambert::task::Precision;

fn build_and_lower(criterion: &mut Criterion) {
    // Sequence length, masked positions of a sequence, sequences of a row; rows of a micro-batch on 64 and 1,024 devices.
    let phases = [("128", [128, 20, 1], 65_536, [64, 16]), ("512, packed", [512, 80, 8], 32_768, [16, 8])];
    for (phase, [sequence_length, predictions, sequences_per_row], global_batch, micro_batches_of) in phases {
        for ((replicas, shard_optimizer), micro_batch) in [(64, false), (1024, true)].into_iter().zip(micro_batches_of)
        {
            let rows = global_batch / replicas;
            let examples = ExampleConfig::bert(sequence_length, predictions);
            let task = BertPretraining {
                model: Preset::Large.config(30522),
                rows: RowForm {
                    sequence_length,
                    max_predictions: max_predictions_per_row(&examples, sequences_per_row),
                    sequences_per_row,
                },
                spare_rows: false,
                sentence_pairs: true,
                recompute: Recompute::default(),
                layers: Layers::default(),
                kernels: Kernels::default(),
            };
            let spec = StepSpec {
                task: Arc::new(task),
                optimizer: OptimizerConfig::default(),
                precision: Precision::Bf16,
                rows,
                accumulation_steps: rows / micro_batch,
                replicas,
                parallel: Parallel { shard_optimizer, ..Parallel::default() },
                dropout: true,
                ema_decay: None,
            };
            let step = TrainStep::build(&spec).expect("a published size");
            let bytes = step.program.lower().bytes.len();
            let state = if shard_optimizer { "sharded" } else { "replicated" };
            let name = format!("bert-large, {phase}, optimizer state {state} on {replicas} devices");
            println!("{name}: {} nodes, {bytes} bytes of HLO", step.program.computation.nodes.len());
            criterion.bench_function(&format!("{name}, build"), |b| b.iter(|| TrainStep::build(&spec)));
            criterion.bench_function(&format!("{name}, lower"), |b| b.iter(|| step.program.lower()));
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = build_and_lower
}
criterion_main!(benches);
