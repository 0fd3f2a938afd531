//! Sharded weights and optimizer state give the same numbers as replicated ones in the f64 evaluator: every optimizer, and a
//! whole step with dropout and micro-batches.

use crate::common::sharding::*;
use crate::common::steps::{arguments, assert_close, run_all, spec};
use lambert::bert::param_specs;
use lambert::eval::{Value, evaluate_replicas};
use lambert::graph::{Computation, Graph, NodeId, Op, Tensor};
use lambert::optim::{Optimizer, OptimizerConfig, Placement, UpdateScalars};
use lambert::rng::Key;
use lambert::runtime::backend::Evaluator;
use lambert::shape::{DType, HostTensor, Shape};
use lambert::step::sharding::Shards;
use lambert::step::{GradientStep, Parallel, StepSpec, TrainStep};
use lambert::task::Precision;

/// Weights, a bias that is initially zero (no trust ratio), and a LayerNorm: names, dimensions, scales of the initial values.
const TENSORS: [(&str, &[usize], f64); 4] = [
    ("a.dense.weight", &[3, 5], 1.0),
    ("a.dense.bias", &[7], 0.5),
    ("b.dense.bias", &[2], 0.0),
    ("LayerNorm.weight", &[4], 2.0),
];

/// Returns weights and optimizer state, as full tensors, after three updates on `replicas` replicas with placement `held`.
fn updated(config: &OptimizerConfig, held: Placement, replicas: usize) -> Vec<Vec<f64>> {
    let shards = Shards { count: replicas };
    let whole = |dims: &[usize]| Shape::new(DType::F64, dims);
    let shape =
        |dims: &[usize]| if held == Placement::Sharded { shards.shard_shape(&whole(dims)) } else { whole(dims) };
    let draw = |key: u64, dims: &[usize], size: f64| {
        let mut stream = Key::new(key).stream();
        let numbers: Vec<f64> = (0..whole(dims).elements()).map(|_| size * stream.normal()).collect();
        HostTensor::from_f64(whole(dims), &numbers)
    };
    let graph = Graph::new("update");
    let kinds = 1 + config.state_names().len();
    let tensors = |kind: &str| -> Vec<Tensor> {
        TENSORS.iter().map(|(name, dims, _)| graph.parameter(format!("{kind}/{name}"), shape(dims))).collect()
    };
    let state: Vec<Vec<Tensor>> = (0..kinds).map(|kind| tensors(&kind.to_string())).collect();
    let gradients = tensors("gradient");
    let [rate, count] = ["rate", "t"].map(|name| graph.parameter(name, Shape::scalar(DType::F64)));
    let scalars = UpdateScalars::constant(rate, count, config.hyperparameters());
    let slots: Vec<Vec<Tensor>> = (0..TENSORS.len()).map(|i| state[1..].iter().map(|kind| kind[i]).collect()).collect();
    let optimizer = Optimizer::new(config, &TENSORS.map(|(name, ..)| name)).unwrap();
    let update = optimizer.update(&state[0], &gradients, &slots, &scalars, held);
    let mut outputs = update.weights.clone();
    (0..kinds - 1).for_each(|kind| outputs.extend(update.state.iter().map(|slots| slots[kind])));
    let held_values = outputs.len();
    outputs.extend(&update.trust_ratios);
    outputs.extend(&update.gradient_norms);
    outputs.push(update.gradient_norm);
    let computation = graph.finish(&outputs);

    let of_replica = |tensor: HostTensor, replica| match held {
        Placement::Replicated => Value::from(&tensor),
        Placement::Sharded => Value::from(&shards.shard(&tensor, replica)),
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
        match held == Placement::Sharded && i < held_values {
            true => values.iter().flat_map(|values| values[i].to_f64()).take(elements(i)).collect(),
            false => values[0][i].to_f64(),
        }
    };
    (0..outputs.len()).map(joined).collect()
}

#[test]
fn sharded_updates_equal_replicated_updates_for_every_optimizer() {
    let settings = [
        "preset = 'paper'\nphi = { clamp = { min = 0.5, max = 2.0 } }\nepsilon_place = 'inside_sqrt'",
        "preset = 'paper'\nweight_decay_mode = 'l2'\ngradient_clip = { per_group = { max = 0.5 } }",
        "kind = 'lars'",
        "kind = 'lars'\norder = 'paper'\ngradient_clip = 'per_tensor'",
        "kind = 'lars'\ndampening = 0.3\nmomentum = 0.5",
        "kind = 'adamw'\ngradient_clip = { global_norm = { max = 1.0 } }",
        "kind = 'sgd'\nnesterov = true\ngradient_clip = { global_norm = { max = 1.0 } }",
        "kind = 'sgd'\nmomentum = 0.0",
    ];
    let settings = settings.into_iter().map(|settings| toml::from_str(settings).unwrap());
    for config in settings.chain(OptimizerConfig::catalogue().into_iter().map(|entry| entry.config)) {
        let whole = updated(&config, Placement::Replicated, 1);
        for replicas in [2, 3, 8] {
            assert_close(
                &updated(&config, Placement::Sharded, replicas),
                &whole,
                1e-12,
                &format!("{config:?}, {replicas} shards"),
            );
        }
    }
}

#[test]
fn sharded_step_equals_replicated_step_in_f64() {
    let model = model();
    let lans: OptimizerConfig = toml::from_str("preset = 'lans'").unwrap();
    let step = |parallel| {
        let spec = StepSpec { optimizer: lans.clone(), parallel, ..spec(&model, 6, 2, 3) };
        let program = TrainStep::build(&spec).unwrap().program;
        let outputs = run_all(&Evaluator { replicas: 3 }, &program, &arguments(&program, &model, 6));
        whole_results(&spec, &program, &outputs)
    };
    // Almost no tensor is divisible by 3.
    assert_close(&step(SHARDED), &step(Parallel::default()), 1e-12, "3 shards");
}

/// Returns the opcode and the number of operands of every collective of a step, in order.
fn collectives(spec: &StepSpec) -> Vec<(&'static str, usize)> {
    let program = TrainStep::build(spec).unwrap().program;
    let nodes = program.computation.nodes.iter();
    let name = |op: &Op| matches!(op, Op::AllReduce { .. } | Op::AllGather { .. } | Op::ReduceScatter { .. });
    nodes.filter(|node| name(&node.op)).map(|node| (node.op.name(), node.inputs.len())).collect()
}

#[test]
fn gradients_are_reduced_by_one_collective_for_any_number_of_micro_batches() {
    let model = model();
    let tensors = param_specs(&model).len();
    for micro_batches in [1, 4] {
        let step = |parallel| collectives(&StepSpec { parallel, ..spec(&model, 8, micro_batches, 2) });
        // In addition to the gradients: the denominators before them, the sums of the metrics after them.
        let scalars = ("all-reduce", 1);
        assert_eq!(step(Parallel::default()), [scalars, scalars, ("all-reduce", tensors)]);
        // The norms of the gradients, then those of weights and directions.
        let norms = ("all-reduce", 1);
        let expected = [("all-gather", 1), scalars, scalars, ("reduce-scatter", 1), norms, norms];
        assert_eq!(step(SHARDED), expected);
    }
}

/// The all-gather sends `matmul_only` weights in bf16, so only conversions to bf16 may read them, or concatenations that only
/// such conversions read. Every weight with no other reader must be marked `matmul_only`.
#[test]
fn matmul_only_weights_are_read_in_bf16_only() {
    let spec = StepSpec { precision: Precision::Bf16, ..spec(&model(), 4, 1, 1) };
    let step = GradientStep::build(&spec).unwrap();
    fn only_rounded(computation: &Computation, id: NodeId) -> bool {
        let mut nodes = (0u32..).map(NodeId).zip(&computation.nodes);
        nodes.all(|(reader, node)| match node.op {
            _ if !node.inputs.contains(&id) => true,
            Op::Concatenate { .. } => only_rounded(computation, reader),
            _ => node.op == Op::Convert { dtype: DType::BF16 },
        })
    }
    let computation = &step.program.computation;
    for (param, &id) in step.params.iter().zip(&computation.parameters) {
        assert_eq!(param.matmul_only, only_rounded(computation, id), "{}", param.name);
    }
}
