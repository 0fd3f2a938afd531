//! Sharded weights and optimizer state on a real plugin: the same steps as replicated ones, their share of device memory, the
//! collectives of the compiled program, and checkpoints that resume with another number of shards.

use crate::common::cpu;
use crate::common::sharding::*;
use crate::common::steps::{arguments, run, run_loaded, spec};
use crate::common::{Workshop, metrics};
use lambert::bert::{BertConfig, param_specs};
use lambert::plan::profile::collectives::Collective;
use lambert::plan::profile::program::Program;
use lambert::plan::traffic::Collectives;
use lambert::runtime::backend::Backend;
use lambert::runtime::compile::Compiled;
use lambert::runtime::state::{StateLayout, TrainState};
use lambert::shape::{DType, HostTensor};
use lambert::step::{GradientReduceDtype, GradientStep, Parallel, StepSpec, TrainStep};
use lambert::task::Precision;

/// Returns weights, optimizer state and metrics after three steps from the same weights on the same batch.
fn three_steps(spec: &StepSpec, model: &BertConfig, rows: usize) -> Vec<Vec<f64>> {
    let devices = cpu(spec.replicas);
    let program = TrainStep::build(spec).unwrap().program;
    let mut arguments = arguments(&program, model, rows);
    let executable = devices.load(&program).unwrap();
    let mut outputs = Vec::new();
    for _ in 0..3 {
        outputs = run_loaded(&devices, &executable, &arguments);
        for (arguments, outputs) in arguments.iter_mut().zip(&outputs) {
            for (argument, output) in arguments.iter_mut().zip(outputs).take(program.donated.len()) {
                *argument = HostTensor::from_f64(argument.shape().clone(), output);
            }
        }
    }
    whole_results(spec, &program, &outputs)
}

/// Returns ‖x − y‖ / ‖y‖, where ‖y‖ is at least 0.01 · √(number of elements).
fn distance(x: &[f64], y: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut y.iter().copied()).max(0.01 * (y.len() as f64).sqrt())
}

#[test]
fn sharded_steps_match_replicated_steps_for_any_number_of_shards() {
    let (model, rows) = (model(), 16);
    let step = |precision, micro_batches, replicas, parallel| {
        three_steps(&StepSpec { precision, parallel, ..spec(&model, rows, micro_batches, replicas) }, &model, rows)
    };
    let names: Vec<String> = param_specs(&model).into_iter().map(|param| param.name).collect();
    let check = |parts: Vec<Vec<f64>>, whole: &[Vec<f64>], tolerance: f64, what: &str| {
        for (i, (parts, whole)) in parts.iter().zip(whole).enumerate() {
            // Softmax is invariant to the key bias, so its gradient is only rounding error, which Adam scales to a full step.
            if names.get(i).is_some_and(|name| name.ends_with("key.bias")) {
                continue;
            }
            let distance = distance(parts, whole);
            assert!(distance <= tolerance, "{what}: result {i} is off by {distance:e}");
        }
    };
    let whole = step(Precision::F32, 1, 1, Parallel::default());
    for (micro_batches, replicas) in [(2, 2), (1, 4), (2, 8)] {
        let parts = step(Precision::F32, micro_batches, replicas, SHARDED);
        check(parts, &whole, 1e-4, &format!("f32 in {replicas} shards"));
    }
    let whole = step(Precision::Bf16, 2, 4, Parallel::default());
    check(step(Precision::Bf16, 2, 4, SHARDED), &whole, 1e-4, "bf16 in 4 shards");
}

#[test]
fn bf16_gradient_reduction_halves_the_bytes_and_rounds_to_8_bits() {
    let (model, rows) = (model(), 8);
    let step = |gradient_reduce_dtype, shard_optimizer| StepSpec {
        precision: Precision::F32,
        parallel: Parallel { gradient_reduce_dtype, shard_optimizer },
        ..spec(&model, rows, 1, 4)
    };
    for shard_optimizer in [false, true] {
        let gradient_bytes = |exchange| {
            let exchanged =
                Collectives::of(&TrainStep::build(&step(exchange, shard_optimizer)).unwrap().program.computation, 1);
            if shard_optimizer { exchanged.reduce_scatter } else { exchanged.all_reduce }
        };
        // The 6 scalar sums of the metrics are always reduced in f32.
        let scalars = if shard_optimizer { 0.0 } else { 24.0 };
        let [full, half] = [GradientReduceDtype::F32, GradientReduceDtype::Bf16].map(|e| gradient_bytes(e) - scalars);
        assert_eq!(half, 0.5 * full);
    }

    let gradients = |exchange| {
        let program = GradientStep::build(&step(exchange, false)).unwrap().program;
        run(&cpu(4), &program, &arguments(&program, &model, rows))
    };
    let (full, half) = (gradients(GradientReduceDtype::F32), gradients(GradientReduceDtype::Bf16));
    let all = full[..full.len() - 1].iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
    let mut largest: f64 = 0.0;
    for (i, (half, full)) in half.iter().zip(&full).enumerate().take(full.len() - 1) {
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let error = norm(&mut half.iter().zip(full).map(|(h, f)| h - f));
        let relative = error / norm(&mut full.iter().copied()).max(1e-2 * all);
        assert!(relative <= 2e-2, "gradient {i} is off by {relative:e}");
        largest = largest.max(relative);
    }
    assert!(largest > 1e-4, "nothing was rounded: {largest:e}");
}

#[test]
fn executable_arguments_hold_one_shard_of_the_state() {
    let model = model();
    for replicas in [1, 4] {
        let spec = StepSpec { precision: Precision::F32, parallel: SHARDED, ..spec(&model, 8, 1, replicas) };
        let program = TrainStep::build(&spec).unwrap().program;
        let stats = cpu(replicas).load(&program).unwrap().memory_stats().unwrap();
        let elements = param_specs(&model).into_iter().map(|param| param.dims.iter().product::<usize>());
        // Weights, m and v; the last shard of a tensor may be padded.
        let state: usize = elements.map(|elements| 3 * 4 * elements.div_ceil(replicas)).sum();
        let donated = program.donated.iter().map(|&(input, _)| program.inputs[input].shape.bytes()).sum::<usize>();
        let others: usize = program.inputs.iter().map(|value| value.shape.bytes()).sum::<usize>() - donated;
        assert_eq!((donated, stats.alias as usize), (state, state), "{replicas} replicas");
        assert!(
            stats.argument as usize - state <= others + 64 * program.inputs.len(),
            "{replicas} replicas: {stats:?}"
        );
    }
}

#[test]
fn graph_collectives_match_the_compiled_program() {
    let devices = cpu(4);
    for (parallel, micro_batches) in [(Parallel::default(), 1), (Parallel::default(), 2), (SHARDED, 1), (SHARDED, 2)] {
        let spec = StepSpec { parallel, precision: Precision::F32, ..spec(&model(), 8, micro_batches, 4) };
        let step = TrainStep::build(&spec).unwrap();
        let counted = Collectives::of(&step.program.computation, micro_batches);
        let compiled = Compiled::new(&devices, || Ok(step.program)).unwrap();
        let program = Program::decode(&compiled.executable.optimized_program().unwrap()).unwrap();
        let found = Collectives::of_compiled(&Collective::of_program(&program, micro_batches as f64), 4);
        assert_eq!(found, counted, "{parallel:?}, {micro_batches} micro-batches");
        // A sharded step reduce-scatters the gradients and all-gathers the weights: twice the bytes of the gradients.
        let weights: usize = spec.task.parameters().iter().map(|param| param.dims.iter().product::<usize>()).sum();
        // The shards of a reduce-scatter are padded to whole tiles of 16 × 128 elements.
        let least = 2.0 * 0.75 * 4.0 * weights as f64;
        let padding = if parallel.shard_optimizer { 0.75 * 4.0 * (4 * 16 * 128) as f64 } else { 0.0 };
        let sent = counted.sent_in_ring(4);
        assert!((least..1.1 * least + padding).contains(&sent), "{sent} of {least}");
    }
}

#[test]
fn state_round_trips_through_sharded_devices() {
    let spec = StepSpec { precision: Precision::F32, parallel: SHARDED, ..spec(&model(), 8, 1, 4) };
    let devices = cpu(4);
    let mut state = TrainState::initial(StateLayout::of(&spec), 7, &devices).unwrap();
    let held: Vec<usize> =
        state.buffers().iter().map(|device| device.iter().map(|b| b.shape().bytes()).sum()).collect();
    let whole = 3 * spec.task.parameters().iter().map(|p| p.shape(DType::F32).bytes()).sum::<usize>();
    assert!(held.iter().all(|&bytes| bytes < whole / 3), "{held:?} of {whole}");
    state.reset_optimizer_state(&devices).unwrap();
    let (weights, slots) = state.to_host().unwrap();
    for (param, (name, weight)) in spec.task.parameters().iter().zip(&weights) {
        assert_eq!((&param.name, &param.initial(7)), (name, weight));
    }
    assert!(slots.iter().all(|(_, slot)| slot.to_f64().iter().all(|&x| x == 0.0)));
    for device in state.unsharded_weights().unwrap() {
        let found: Vec<HostTensor> = device.iter().map(|buffer| buffer.to_host().unwrap()).collect();
        assert!(found.iter().eq(weights.iter().map(|(_, weight)| weight)));
    }
}

/// A run resumes on four devices (sharded), one device, and two devices (sharded). On the same devices the result is
/// bit-identical.
#[test]
fn run_resumes_with_any_number_of_shards() {
    let workshop = Workshop::new();
    // Only the first phase, which has six steps.
    let first_phase = |text: String| text.rsplit_once("[[phase]]").unwrap().0.replace("every = 0", "every = 1");
    workshop.run_file("moved.toml", "moved", first_phase);
    let pretrain = |devices: &str| {
        let mut line = vec!["pretrain", "moved.toml", "--resume", "--platform", "cpu", "--devices", devices];
        line.extend(["--set", "phase.1.micro_batch_size=1", "--set", "parallel.optimizer_sharding=\"sharded\""]);
        crate::common::text(&workshop.succeed(&line))
    };
    let forget_after = |kept: u64| {
        for step in kept + 1..=6 {
            std::fs::remove_dir_all(workshop.path(&format!("moved/step-{step:08}"))).unwrap();
        }
    };
    let tensors = || {
        let read = |name: &str| std::fs::read(workshop.path(&format!("moved/step-00000006/{name}"))).unwrap();
        ["model.safetensors", "optimizer.safetensors"].map(read)
    };
    let loss = || metrics(&workshop.path("moved"))[&("train".to_owned(), 6)]["loss"].as_f64().unwrap();

    let output = pretrain("4");
    assert!(output.contains("weights and optimizer state in 4 shards"), "{output}");
    let (bits, expected) = (tensors(), loss());
    forget_after(3);
    pretrain("4");
    assert!(tensors() == bits, "weights or optimizer state differ on the same devices");

    forget_after(2);
    pretrain("1");
    forget_after(4);
    pretrain("2");
    let moved = loss();
    assert!((moved - expected).abs() <= 1e-4, "the last loss is {moved}, but {expected} on one set of devices");
}
