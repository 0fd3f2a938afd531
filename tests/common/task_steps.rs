//! Programs of the perceptron task on any backend.

use std::sync::Arc;

use super::perceptron::{Examples, Perceptron, initial_weights};
use lambert::batch::BatchSource;
use lambert::optim::OptimizerConfig;
use lambert::runtime::backend::Backend;
use lambert::shape::HostTensor;
use lambert::step::sharding::Shards;
use lambert::step::{Parallel, Program, Role, Scalars, StepInputs, StepSpec};
use lambert::task::Precision;

/// The step of the perceptron on `rows` rows in all.
pub fn perceptron_spec(precision: Precision, rows: usize, accumulation_steps: usize, replicas: usize) -> StepSpec {
    StepSpec {
        task: Arc::new(Perceptron),
        optimizer: optimizer(),
        precision,
        rows: rows / replicas,
        accumulation_steps,
        replicas,
        parallel: Parallel::default(),
        dropout: true,
        ema_decay: None,
    }
}

/// The LAMB of the paper, with the biases of the perceptron excluded from decay and adaptation.
fn optimizer() -> OptimizerConfig {
    let settings = "preset = \"paper\"\nexclude_from_weight_decay = [\"*bias\"]";
    toml::from_str(settings).expect("the settings of LAMB")
}

/// Runs `program` once, from initial weights and optimizer state of zeros, on the first rows of the examples. Returns the
/// results of every replica.
pub fn run_once(backend: &impl Backend, program: &Program, precision: Precision, rows: usize) -> Vec<Vec<Vec<f64>>> {
    let replicas = backend.replicas();
    let batch = Examples { count: 64 }.rows(0, rows).unwrap();
    let hyperparameters = &optimizer().hyperparameters();
    let scalars = Scalars { learning_rate: 0.02, optimizer_step: 1, step: 3, seed: 5, first_row: 0, hyperparameters };
    let inputs = StepInputs { batch: &batch, scalars, replicas };
    let weights = initial_weights(2, precision.master());
    let arguments = |replica: usize| {
        let mut weights = weights.iter();
        let argument = |value: &lambert::step::Value| {
            let tensor = match value.role {
                Role::Weight => match weights.next().expect("weights come first") {
                    whole if *whole.shape() == value.shape => whole.clone(),
                    whole => Shards { count: replicas }.shard(whole, replica),
                },
                Role::OptimizerState => HostTensor::zeros(value.shape.clone()),
                _ => HostTensor::clone(&inputs.tensor(value, replica).unwrap()),
            };
            backend.put(&tensor, replica).unwrap()
        };
        program.inputs.iter().map(argument).collect::<Vec<_>>()
    };
    let arguments: Vec<Vec<_>> = (0..replicas).map(arguments).collect();
    let arguments: Vec<Vec<_>> = arguments.iter().map(|list| list.iter().collect()).collect();
    let outputs = backend.run(&backend.load(program).unwrap(), &arguments).unwrap();
    outputs.iter().map(|outputs| outputs.iter().map(|array| backend.get(array).unwrap()).collect()).collect()
}

/// Puts the shards of every replica together, and cuts the padding off: one value list for each result.
pub fn unsharded(spec: &StepSpec, outputs: &[Vec<Vec<f64>>]) -> Vec<Vec<f64>> {
    let params = spec.task.parameters();
    let state = params.len() * (1 + spec.optimizer.state_names().len());
    let result = |i: usize| match spec.shards().is_some() && i < state {
        true => {
            let elements = params[i % params.len()].dims.iter().product();
            outputs.iter().flat_map(|replica| replica[i].iter().copied()).take(elements).collect()
        }
        false => outputs[0][i].clone(),
    };
    (0..outputs[0].len()).map(result).collect()
}

/// Asserts that two lists of results agree within `tolerance`, relative to 1 + |expected|.
pub fn assert_results_close(found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what}, result {i}");
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{what}, result {i}: {x} and {y}");
        }
    }
}
