//! The step on a real plugin against the reference values of `fixtures/bert_small`: forward pass, every gradient by name,
//! every optimizer, for every split of the batch.

use std::sync::Arc;

use crate::common::cpu;
use crate::common::parity::*;
use lambert::batch::HostBatch;
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertPretraining, Kernels, Layers, Recompute, Site, mask_graph};
use lambert::eval::evaluate;
use lambert::hlo;
use lambert::optim::OptimizerConfig;
use lambert::runtime::backend::Backend;
use lambert::shape::{DType, HostTensor, Shape};
use lambert::step::{Parallel, Role, Scalars, StepInputs, StepSpec, TrainStep};
use lambert::task::{Model, Precision, metric_names};
use lambert::verify::reference::{ReferenceCase, Row, Trajectory};
use lambert::verify::{Check, Quantity, Split, VerifyOptions, dropout_losses, verify, verify_splits};

/// Returns the trajectory of an optimizer in f64 over all batches of `case`, computed by the plugin.
fn trajectory(case: &ReferenceCase, settings: &str) -> Trajectory {
    let backend = cpu(1);
    let (rows, sequence_length, max_predictions) = case.batch_form();
    let task = BertPretraining {
        model: case.config.clone(),
        rows: RowForm { sequence_length, max_predictions, sequences_per_row: 1 },
        spare_rows: false,
        sentence_pairs: true,
        recompute: Recompute::default(),
        layers: Layers::default(),
        kernels: Kernels::default(),
    };
    let names: Vec<&str> = task.batch().tensors.iter().map(|tensor| tensor.name).collect();
    let spec = StepSpec {
        task: Arc::new(task),
        optimizer: toml::from_str(settings).unwrap(),
        precision: Precision::F64,
        rows,
        accumulation_steps: 1,
        replicas: 1,
        parallel: Parallel::default(),
        dropout: false,
        ema_decay: None,
    };
    let program = TrainStep::build(&spec).unwrap().program;
    let executable = backend.load(&program).unwrap();
    let hyperparameters = &spec.optimizer.hyperparameters();
    let put = |tensor: &HostTensor| backend.put(tensor, 0).unwrap();
    let weight = |(param, weight): (&lambert::task::ParamSpec, &HostTensor)| {
        HostTensor::from_f64(param.shape(DType::F64), &param.pad(weight).to_f64())
    };
    let mut state: Vec<_> =
        case.params.iter().zip(&case.weights).map(|pair| Backend::put(&backend, &weight(pair), 0).unwrap()).collect();
    let zeros = program.inputs_of(Role::OptimizerState).into_iter();
    state.extend(zeros.map(|i| put(&HostTensor::zeros(program.inputs[i].shape.clone()))));
    let size = state.len();
    let mut trajectory =
        Trajectory { name: "f64".to_owned(), optimizer: spec.optimizer.clone(), rows: Vec::new(), final_weights: None };
    for (t, tensors) in case.batches.iter().enumerate() {
        let lr = 0.002 * ((t + 1) as f64 / 5.0).min(1.0);
        let tensors = names.iter().copied().zip(tensors.iter().cloned().map(Arc::new)).collect();
        let batch =
            HostBatch { rows, tensors, row_length: sequence_length, tokens: 0, occupied_rows: rows, spare_rows: 0 };
        let scalars = Scalars {
            learning_rate: lr,
            optimizer_step: t as u64 + 1,
            step: t as u64,
            seed: 0,
            first_row: 0,
            hyperparameters,
        };
        let inputs = StepInputs { batch: &batch, scalars, replicas: 1 };
        state.extend(program.inputs[size..].iter().map(|value| put(&inputs.tensor(value, 0).unwrap())));
        let mut outputs = backend.run(&executable, &[state.iter().collect()]).unwrap().swap_remove(0);
        let metrics = backend.get(&outputs[size]).unwrap();
        let of = |name: &str| metrics[metric_names(&*spec.task).iter().position(|own| *own == name).unwrap()];
        trajectory.rows.push(Row {
            lr,
            loss: of("loss"),
            mlm_loss: of("mlm_loss"),
            nsp_loss: of("nsp_loss"),
            mlm_accuracy: of("mlm_accuracy"),
            grad_norm: of("grad_norm"),
        });
        outputs.truncate(size);
        state = outputs;
    }
    // Padded rows of the vocabulary are behind the others.
    let published = |(param, array): (&lambert::task::ParamSpec, _)| {
        let shape = Shape::new(DType::F64, &param.published_dims[..]);
        HostTensor::from_f64(shape.clone(), &backend.get(array).unwrap()[..shape.elements()])
    };
    trajectory.final_weights = Some(case.params.iter().zip(&state).map(published).collect());
    trajectory
}

#[test]
fn directions_of_rounding_error_are_no_misses_and_wrong_updates_are() {
    const KEY_BIAS: &str = "bert.encoder.layer.1.attention.self.key.bias";
    let mut case = case();
    let right = trajectory(&case, "preset = 'nvlamb'");
    let of = |name: &str, optimizer: &OptimizerConfig| Trajectory {
        name: name.to_owned(),
        optimizer: optimizer.clone(),
        rows: right.rows.clone(),
        final_weights: right.final_weights.clone(),
    };
    // A bias of keys that has moved further than the steps can, and another optimizer.
    let at = case.params.iter().position(|param| param.name == KEY_BIAS).unwrap();
    let mut moved = of("moved", &right.optimizer);
    let weight = &mut moved.final_weights.as_mut().unwrap()[at];
    let further: Vec<f64> = weight.to_f64().iter().map(|x| x + 0.01).collect();
    *weight = HostTensor::from_f64(weight.shape().clone(), &further);
    let other = of("other", &toml::from_str("preset = 'nvlamb'\nbeta1 = 0.89").unwrap());
    case.trajectories = vec![of("right", &right.optimizer), moved, other];

    let checks = verify(&case, &cpu(1), &options(Precision::F32), |_| {}).unwrap();
    let misses = |group: &str| -> Vec<&str> {
        let missed = |check: &&Check| !check.ok && check.group == group;
        checks.iter().filter(missed).map(|check| check.name.as_str()).collect()
    };
    let key_bias = format!("final {KEY_BIAS}");
    let found = checks.iter().find(|check| check.group == "right" && check.name == key_bias).unwrap();
    assert!(found.error > 1e-3, "the direction of a bias of keys is arbitrary: {found:?}");
    assert_eq!(misses("right"), [""; 0]);
    let wide = checks.iter().filter(|check| check.group == "right" && check.name.starts_with("final"));
    assert!(wide.filter(|check| check.tolerance > 2e-4).count() <= 4, "biases of queries and keys");
    assert_eq!(misses("moved"), [key_bias]);
    let misses = misses("other");
    assert!(misses.iter().filter(|name| name.starts_with("final")).count() >= 10, "{misses:?}");
}

#[test]
fn cpu_plugin_matches_the_reference_in_f32() {
    assert_parity(&cpu(1), &options(Precision::F32));
}

#[test]
fn cpu_plugin_matches_the_reference_in_f32_with_micro_batches_and_recomputation() {
    for (devices, micro_batches, recompute) in [(2, 2, Recompute::Attention), (1, 8, Recompute::Layer)] {
        let optimizer = Some("nvlamb".to_string());
        assert_parity(&cpu(devices), &VerifyOptions { micro_batches, recompute, optimizer, ..options(Precision::F32) });
    }
}

#[test]
fn every_split_of_the_batch_matches_the_reference_and_has_the_same_dropout_masks() {
    let (case, devices) = (case(), cpu(8));
    // The second split needs 32 rows, but the batch has 8; the rest is padding.
    let splits = [(2, 4), (8, 4)].map(|(devices, micro_batches)| Split { devices, micro_batches });
    assert_eq!(splits.map(|split| split.padding(8)), [0, 24]);
    let options = VerifyOptions { steps: Some(2), optimizer: Some("lamb".to_string()), ..options(Precision::F32) };
    let checked = verify_splits(&case, |n| devices.first(n), &splits, &options, |_, _| {}).unwrap();
    for split in &checked {
        let misses: Vec<&Check> = split.checks.iter().filter(|check| !check.ok).collect();
        assert!(misses.is_empty(), "{:?}: {misses:#?}", split.split);
        assert_eq!(split.checks.iter().filter(|check| check.quantity == Quantity::Dropout).count(), 1);
    }
    // The compared losses include dropout, which changes the first loss by hundreds of tolerances.
    let with = dropout_losses(&case, &devices.first(1), &options).unwrap();
    let without: Vec<f64> = case.trajectories[0].rows.iter().map(|row| row.loss).collect();
    assert_eq!(with.len(), 4);
    assert!((with[0] - without[0]).abs() > 2e-3, "{} with dropout, {} without", with[0], without[0]);
}

#[test]
fn cpu_plugin_matches_the_reference_in_f32_with_sharded_optimizer_state() {
    assert_parity(&cpu(4), &VerifyOptions { shard_optimizer: true, ..options(Precision::F32) });
}

#[test]
fn cpu_plugin_matches_the_reference_in_bf16() {
    let optimizer = Some("lamb".to_string());
    assert_parity(&cpu(1), &VerifyOptions { optimizer, ..options(Precision::Bf16) });
}

#[test]
fn dropout_masks_are_bit_identical_on_the_plugin_and_in_the_evaluator() {
    let (backend, host) = (cpu(1), |t: &HostTensor| t.to_f64());
    for site in [Site::Embeddings, Site::AttentionProbs(2), Site::Output(1)] {
        let computation = mask_graph(5, 700, 3, site, 0.1);
        let arguments = [HostTensor::new([2], &[7u32, !0]), HostTensor::scalar(123456u32), HostTensor::scalar(!2u32)];
        let expected = evaluate(&computation, &arguments).unwrap()[0].to_f64();
        let executable = backend.compile(&hlo::lower(&computation, &hlo::LowerOptions::default()).bytes).unwrap();
        let buffers: Vec<_> = arguments.iter().map(|t| backend.put(t, 0).unwrap()).collect();
        let outputs = executable.execute(&[buffers.iter().collect()]).unwrap();
        assert_eq!(host(&outputs[0][0].to_host().unwrap()), expected, "{site:?}");
    }
}
