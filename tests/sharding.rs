//! Weights and slots in parts, one on each replica, are the same numbers as whole ones: for every optimizer in f64, for a
//! whole step with dropout and micro-batches, on a real plugin, and through a checkpoint. And they take their share of a
//! device's memory, as the executable itself says.
//!
//! The latter tests need a CPU plugin, found as a user's is: `lambert plugin install cpu`, or `LAMBERT_PLUGIN`.

mod common;

use common::steps::{arguments, assert_close, run, run_all, run_loaded, small, spec};
use common::{Workshop, metrics};
use lambert::bert::{BertConfig, Precision, param_specs};
use lambert::eval::{Value, evaluate_replicas};
use lambert::graph::{Graph, Op, Tensor};
use lambert::hlo::proto::{HloModuleProto, PrimitiveType, ShapeProto};
use lambert::optim::{Held, Optimizer, OptimizerConfig};
use lambert::pjrt::{Executable, Platform, PlatformChoice};
use lambert::plan::traffic::Collectives;
use lambert::rng::Key;
use lambert::runtime::backend::{Engine, Evaluator};
use lambert::runtime::compile::Compiled;
use lambert::runtime::devices::Devices;
use lambert::runtime::state::{StateLayout, TrainState};
use lambert::shape::{DType, HostTensor, Shape};
use lambert::step::sharding::Shards;
use lambert::step::{GradientExchange, GradientStep, Parallel, Program, StepSpec, TrainStep};
use prost::Message;

fn cpu(devices: usize) -> Devices {
    match Devices::open(&PlatformChoice::Platform(Platform::Cpu), Some(devices)) {
        Ok(devices) => devices,
        Err(error) => panic!("this test needs a CPU plugin: {error:#}"),
    }
}

const SHARDED: Parallel = Parallel { gradient_exchange: GradientExchange::F32, shard_optimizer: true };

fn model() -> BertConfig {
    BertConfig { num_hidden_layers: 1, ..small() }
}

/// Weights, a bias that starts at zero (no trust ratio), and a LayerNorm: names, dimensions, sizes of the first values.
const TENSORS: [(&str, &[usize], f64); 4] = [
    ("a.dense.weight", &[3, 5], 1.0),
    ("a.dense.bias", &[7], 0.5),
    ("b.dense.bias", &[2], 0.0),
    ("LayerNorm.weight", &[4], 2.0),
];

/// Weights and slots after three updates on `replicas` that hold them as `held`, each tensor whole.
fn updated(config: &OptimizerConfig, held: Held, replicas: usize) -> Vec<Vec<f64>> {
    let shards = Shards { count: replicas };
    let whole = |dims: &[usize]| Shape::new(DType::F64, dims);
    let shape = |dims: &[usize]| if held == Held::InParts { shards.part_shape(&whole(dims)) } else { whole(dims) };
    let draw = |key: u64, dims: &[usize], size: f64| {
        let mut stream = Key::new(key).stream();
        let numbers: Vec<f64> = (0..whole(dims).elements()).map(|_| size * stream.normal()).collect();
        HostTensor::from_f64(whole(dims), &numbers)
    };
    let graph = Graph::new("update");
    let kinds = 1 + config.slots().len();
    let tensors = |kind: &str| -> Vec<Tensor> {
        TENSORS.iter().map(|(name, dims, _)| graph.parameter(format!("{kind}/{name}"), shape(dims))).collect()
    };
    let state: Vec<Vec<Tensor>> = (0..kinds).map(|kind| tensors(&kind.to_string())).collect();
    let gradients = tensors("gradient");
    let [rate, count] = ["rate", "t"].map(|name| graph.parameter(name, Shape::scalar(DType::F64)));
    let slots: Vec<Vec<Tensor>> = (0..TENSORS.len()).map(|i| state[1..].iter().map(|kind| kind[i]).collect()).collect();
    let optimizer = Optimizer::new(config, &TENSORS.map(|(name, ..)| name)).unwrap();
    let update = optimizer.update(&state[0], &gradients, &slots, rate, count, held);
    let mut outputs = update.weights.clone();
    (0..kinds - 1).for_each(|kind| outputs.extend(update.slots.iter().map(|slots| slots[kind])));
    let held_values = outputs.len();
    outputs.extend(&update.trust_ratios);
    outputs.extend(&update.gradient_norms);
    outputs.push(update.gradient_norm);
    let computation = graph.finish(&outputs);

    let of_replica = |tensor: HostTensor, replica| match held {
        Held::Whole => Value::from(&tensor),
        Held::InParts => Value::from(&shards.part(&tensor, replica)),
    };
    let first = |replica| -> Vec<Value> {
        (0..kinds)
            .flat_map(|kind| TENSORS.iter().enumerate().map(move |(i, tensor)| (kind, i, tensor)))
            .map(|(kind, i, (_, dims, size))| match kind {
                0 => of_replica(draw(i as u64, dims, *size), replica),
                _ => of_replica(HostTensor::zeros(whole(dims)), replica),
            })
            .collect()
    };
    let mut values: Vec<Vec<Value>> = (0..replicas).map(first).collect();
    for step in 1..=3 {
        for (replica, values) in values.iter_mut().enumerate() {
            values.truncate(held_values);
            let gradient = |(i, (_, dims, _)): (usize, &(&str, &[usize], f64))| {
                of_replica(draw(100 * step + i as u64, dims, 3.0 / step as f64), replica)
            };
            values.extend(TENSORS.iter().enumerate().map(gradient));
            values.extend([0.02, step as f64].map(|x| Value::from_f64(Shape::scalar(DType::F64), vec![x])));
        }
        values = evaluate_replicas(&computation, &values).unwrap();
    }
    let joined = |i: usize| -> Vec<f64> {
        let elements = |i: usize| TENSORS[i % TENSORS.len()].1.iter().product();
        match held == Held::InParts && i < held_values {
            true => values.iter().flat_map(|values| values[i].to_f64()).take(elements(i)).collect(),
            false => values[0][i].to_f64(),
        }
    };
    (0..outputs.len()).map(joined).collect()
}

#[test]
fn every_optimizer_updates_parts_as_it_updates_wholes() {
    let settings = [
        "preset = 'paper'",
        "preset = 'albert'",
        "preset = 'apex'",
        "preset = 'nvlamb'",
        "preset = 'deepspeed'",
        "preset = 'optax'",
        "preset = 'mlperf'",
        "preset = 'lans'",
        "preset = 'paper'\nphi = { clamp = { min = 0.5, max = 2.0 } }\nepsilon_place = 'inside_sqrt'",
        "preset = 'paper'\nweight_decay_mode = 'l2'\ngradient_clip = { per_group = { max = 0.5 } }",
        "kind = 'lars'",
        "kind = 'lars'\norder = 'paper'\ngradient_clip = 'per_tensor'",
        "kind = 'adamw'\ngradient_clip = { global_norm = { max = 1.0 } }",
    ];
    for settings in settings {
        let config: OptimizerConfig = toml::from_str(settings).unwrap();
        let whole = updated(&config, Held::Whole, 1);
        for replicas in [2, 3, 8] {
            assert_close(
                &updated(&config, Held::InParts, replicas),
                &whole,
                1e-12,
                &format!("{settings}, {replicas} parts"),
            );
        }
    }
}

/// The results of a step by the order of its outputs, with weights and slots whole.
fn whole_results(spec: &StepSpec, program: &Program, outputs: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let params = param_specs(&spec.model);
    let result = |i: usize| match spec.shards().is_some() && i < program.donated.len() {
        true => {
            let elements = params[i % params.len()].dims.iter().product();
            outputs.iter().flat_map(|replica| replica[i].iter().copied()).take(elements).collect()
        }
        false => outputs[0][i].clone(),
    };
    (0..program.outputs.len()).map(result).collect()
}

#[test]
fn a_step_in_parts_is_the_step_in_f64() {
    let model = model();
    let lans: OptimizerConfig = toml::from_str("preset = 'lans'").unwrap();
    let step = |parallel| {
        let spec = StepSpec { optimizer: lans.clone(), parallel, ..spec(&model, 6, 2, 3) };
        let program = TrainStep::build(&spec).unwrap().program;
        let outputs = run_all(&Evaluator { replicas: 3 }, &program, &arguments(&program, &model, 6));
        whole_results(&spec, &program, &outputs)
    };
    // 3 parts: almost no tensor divides.
    assert_close(&step(SHARDED), &step(Parallel::default()), 1e-12, "3 parts");
}

/// The operands of every collective of a step, in order.
fn collectives(spec: &StepSpec) -> Vec<(&'static str, usize)> {
    let program = TrainStep::build(spec).unwrap().program;
    let nodes = program.computation.nodes.iter();
    let name = |op: &Op| matches!(op, Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. });
    nodes.filter(|node| name(&node.op)).map(|node| (node.op.name(), node.inputs.len())).collect()
}

#[test]
fn all_gradients_go_through_one_exchange_however_many_micro_batches_there_are() {
    let model = model();
    let tensors = param_specs(&model).len();
    for micro_batches in [1, 4] {
        let step = |parallel| collectives(&StepSpec { parallel, ..spec(&model, 8, micro_batches, 2) });
        // Beside the gradients: denominators before, sums for the metrics after.
        let scalars = ("all-reduce", 1);
        assert_eq!(step(Parallel::default()), [scalars, scalars, ("all-reduce", tensors)]);
        // The norms of the gradients, then those of weights and directions.
        let norms = ("all-reduce", 1);
        let expected = [("all-gather", tensors), scalars, scalars, ("reduce-scatter", 1), norms, norms];
        assert_eq!(step(SHARDED), expected);
    }
}

/// What the model says it only multiplies is rounded before it is gathered: nothing else may read it, and nothing that
/// could be rounded is left out.
#[test]
fn what_is_gathered_rounded_is_read_rounded_and_in_no_other_way() {
    let spec = StepSpec { precision: Precision::Bf16, ..spec(&model(), 4, 1, 1) };
    let step = GradientStep::build(&spec).unwrap();
    let computation = &step.program.computation;
    for (param, &id) in step.params.iter().zip(&computation.parameters) {
        let mut readers = computation.nodes.iter().filter(|node| node.inputs.contains(&id));
        let only_rounded = readers.all(|node| node.op == Op::Convert { dtype: DType::BF16 });
        assert_eq!(param.only_multiplied, only_rounded, "{}", param.name);
    }
}

/// Weights, slots and reports after three steps from the same weights on the same batch.
fn three_steps(spec: &StepSpec, rows: usize) -> Vec<Vec<f64>> {
    let devices = cpu(spec.replicas);
    let program = TrainStep::build(spec).unwrap().program;
    let mut arguments = arguments(&program, &spec.model, rows);
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

/// ‖x − y‖ / ‖y‖, of a norm of at least one hundredth for each element.
fn distance(x: &[f64], y: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut y.iter().copied()).max(0.01 * (y.len() as f64).sqrt())
}

#[test]
fn on_the_plugin_steps_in_parts_are_the_steps_however_many_parts_there_are() {
    let (model, rows) = (model(), 16);
    let step = |precision, micro_batches, replicas, parallel| {
        three_steps(&StepSpec { precision, parallel, ..spec(&model, rows, micro_batches, replicas) }, rows)
    };
    let names: Vec<String> = param_specs(&model).into_iter().map(|param| param.name).collect();
    let check = |parts: Vec<Vec<f64>>, whole: &[Vec<f64>], tolerance: f64, what: &str| {
        for (i, (parts, whole)) in parts.iter().zip(whole).enumerate() {
            // Softmax does not see a key's bias: its gradient is zero but for rounding, which Adam makes a step of.
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
        check(parts, &whole, 1e-4, &format!("f32 in {replicas} parts"));
    }
    let whole = step(Precision::Bf16, 2, 4, Parallel::default());
    check(step(Precision::Bf16, 2, 4, SHARDED), &whole, 1e-4, "bf16 in 4 parts");
}

#[test]
fn gradients_told_in_bf16_take_half_the_bytes_and_are_rounded_to_8_bits() {
    let (model, rows) = (model(), 8);
    let step = |gradient_exchange, shard_optimizer| StepSpec {
        precision: Precision::F32,
        parallel: Parallel { gradient_exchange, shard_optimizer },
        ..spec(&model, rows, 1, 4)
    };
    for shard_optimizer in [false, true] {
        let gradient_bytes = |exchange| {
            let exchanged =
                Collectives::of(&TrainStep::build(&step(exchange, shard_optimizer)).unwrap().program.computation, 1);
            if shard_optimizer { exchanged.reduce_scatter } else { exchanged.all_reduce }
        };
        // The sums that metrics are made of, 6 scalars, are told in f32 always.
        let scalars = if shard_optimizer { 0.0 } else { 24.0 };
        let [full, half] = [GradientExchange::F32, GradientExchange::Bf16].map(|e| gradient_bytes(e) - scalars);
        assert_eq!(half, 0.5 * full);
    }

    let gradients = |exchange| {
        let program = GradientStep::build(&step(exchange, false)).unwrap().program;
        run(&cpu(4), &program, &arguments(&program, &model, rows))
    };
    let (full, half) = (gradients(GradientExchange::F32), gradients(GradientExchange::Bf16));
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
fn the_executable_takes_its_share_of_the_state_and_no_more() {
    let model = model();
    for replicas in [1, 4] {
        let spec = StepSpec { precision: Precision::F32, parallel: SHARDED, ..spec(&model, 8, 1, replicas) };
        let program = TrainStep::build(&spec).unwrap().program;
        let stats = cpu(replicas).load(&program).unwrap().memory_stats().unwrap();
        let elements = param_specs(&model).into_iter().map(|param| param.dims.iter().product::<usize>());
        // Weights and two slots; a tensor's last part may be padded.
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

/// Bytes by opcode that a compiled program gives to collectives (of an all-gather: takes), as `Collectives` counts them.
fn compiled_collectives(executable: &Executable) -> Collectives {
    let program = executable.optimized_program().expect("the plugin shows what it compiled");
    let module = match program.format.as_str() {
        "hlo" => HloModuleProto::decode(&*program.code),
        _ => HloWithConfig::decode(&*program.code).map(|with_config| with_config.module.unwrap_or_default()),
    };
    let mut found = Collectives::default();
    for computation in &module.expect("a module").computations {
        let shape_of = |id: &i64| computation.instructions.iter().find(|i| i.id == *id).and_then(|i| i.shape.as_ref());
        for instruction in &computation.instructions {
            let operands = || instruction.operand_ids.iter().filter_map(shape_of).map(bytes_of).sum::<f64>();
            match instruction.opcode.trim_end_matches("-start") {
                "all-reduce" => found.all_reduce += operands(),
                "reduce-scatter" => found.reduce_scatter += operands(),
                "all-gather" => found.all_gather += instruction.shape.as_ref().map_or(0.0, bytes_of),
                _ => {}
            }
        }
    }
    found
}

#[derive(Clone, PartialEq, Message)]
struct HloWithConfig {
    #[prost(message, optional, tag = "1")]
    module: Option<HloModuleProto>,
}

fn bytes_of(shape: &ShapeProto) -> f64 {
    let parts: f64 = shape.tuple_shapes.iter().map(bytes_of).sum();
    let element = match PrimitiveType::try_from(shape.element_type) {
        Ok(PrimitiveType::Tuple) => return parts,
        Ok(PrimitiveType::Bf16) => 2.0,
        Ok(PrimitiveType::F32 | PrimitiveType::S32 | PrimitiveType::U32) => 4.0,
        other => panic!("no collective of this step is of {other:?}"),
    };
    element * shape.dimensions.iter().map(|&n| n as f64).product::<f64>()
}

#[test]
fn what_the_graph_exchanges_is_what_the_compiled_program_does() {
    let devices = cpu(4);
    for (parallel, micro_batches) in [(Parallel::default(), 1), (Parallel::default(), 2), (SHARDED, 1), (SHARDED, 2)] {
        let spec = StepSpec { parallel, precision: Precision::F32, ..spec(&model(), 8, micro_batches, 4) };
        let step = TrainStep::build(&spec).unwrap();
        let counted = Collectives::of(&step.program.computation, micro_batches);
        let compiled = Compiled::new(&devices, || Ok(step.program)).unwrap();
        assert_eq!(compiled_collectives(&compiled.executable), counted, "{parallel:?}, {micro_batches} micro-batches");
        // A sharded step sends its gradients once and its weights once, as many bytes as the gradients twice.
        let weights: usize = param_specs(&spec.model).iter().map(|param| param.dims.iter().product::<usize>()).sum();
        let least = 2.0 * 0.75 * 4.0 * weights as f64;
        assert!((least..1.1 * least).contains(&counted.sent_in_ring(4)), "{} of {least}", counted.sent_in_ring(4));
    }
}

#[test]
fn a_state_goes_to_the_devices_in_parts_and_comes_back_whole() {
    let spec = StepSpec { precision: Precision::F32, parallel: SHARDED, ..spec(&model(), 8, 1, 4) };
    let devices = cpu(4);
    let mut state = TrainState::initial(StateLayout::of(&spec), 7, &devices).unwrap();
    let held: Vec<usize> =
        state.buffers().iter().map(|device| device.iter().map(|b| b.shape().bytes()).sum()).collect();
    let whole = 3 * param_specs(&spec.model).iter().map(|p| p.shape(DType::F32).bytes()).sum::<usize>();
    assert!(held.iter().all(|&bytes| bytes < whole / 3), "{held:?} of {whole}");
    state.reset_slots(&devices).unwrap();
    let (weights, slots) = state.to_host().unwrap();
    for (param, (name, weight)) in param_specs(&spec.model).iter().zip(&weights) {
        assert_eq!((&param.name, &param.initial(7)), (name, weight));
    }
    assert!(slots.iter().all(|(_, slot)| slot.to_f64().iter().all(|&x| x == 0.0)));
    for device in state.whole_weights().unwrap() {
        let found: Vec<HostTensor> = device.iter().map(|buffer| buffer.to_host().unwrap()).collect();
        assert!(found.iter().eq(weights.iter().map(|(_, weight)| weight)));
    }
}

/// Four devices with parts, then one device, then two with parts: a run can go on wherever it likes, and on the same
/// devices to the same bits.
#[test]
fn a_run_goes_on_with_any_number_of_parts() {
    let workshop = Workshop::new();
    // The first phase, of six steps, is enough.
    let first_phase = |text: String| text.rsplit_once("[[phase]]").unwrap().0.replace("every = 0", "every = 1");
    workshop.run_file("moved.toml", "moved", first_phase);
    let pretrain = |devices: &str| {
        let mut line = vec!["pretrain", "moved.toml", "--resume", "--platform", "cpu", "--devices", devices];
        line.extend(["--set", "phase.1.micro_batch=1", "--set", "parallel.optimizer_sharding=\"sharded\""]);
        common::text(&workshop.succeed(&line))
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

    let said = pretrain("4");
    assert!(said.contains("weights and slots in 4 parts"), "{said}");
    let (bits, expected) = (tensors(), loss());
    forget_after(3);
    pretrain("4");
    assert!(tensors() == bits, "on the same devices weights or slots differ");

    forget_after(2);
    pretrain("1");
    forget_after(4);
    pretrain("2");
    let moved = loss();
    assert!((moved - expected).abs() <= 1e-4, "the last loss is {moved}, without moving it is {expected}");
}
