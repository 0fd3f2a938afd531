//! The average of the weights in a step, in the f64 evaluator, against a loop over the weights of the steps.

use crate::common::perceptron::{Examples, initial_weights};
use crate::common::task_steps::perceptron_spec;
use lambert::batch::BatchSource;
use lambert::eval::evaluate;
use lambert::shape::{DType, HostTensor};
use lambert::step::{Program, Scalars, StepInputs, StepSpec, TrainStep};
use lambert::task::Precision;

const ROWS: usize = 12;
const DECAY: f64 = 0.6;

fn spec(ema_decay: Option<f64>) -> StepSpec {
    StepSpec { ema_decay, ..perceptron_spec(Precision::F64, ROWS, 1, 1) }
}

fn program(ema_decay: Option<f64>) -> Program {
    TrainStep::build(&spec(ema_decay)).unwrap().program
}

/// Runs step `n` from `state`, weights and state in the order of the arguments; returns the new state.
fn step(program: &Program, spec: &StepSpec, state: &[HostTensor], n: u64) -> Vec<HostTensor> {
    let batch = Examples { count: 64 }.rows(0, ROWS).unwrap();
    let numbers = spec.hyperparameters();
    let scalars = Scalars {
        learning_rate: 0.05,
        optimizer_step: n + 1,
        step: n,
        seed: 5,
        first_row: 0,
        hyperparameters: &numbers,
    };
    let inputs = StepInputs { batch: &batch, scalars, replicas: 1 };
    let others = program.inputs[state.len()..].iter().map(|value| HostTensor::clone(&inputs.tensor(value, 0).unwrap()));
    let arguments: Vec<HostTensor> = state.iter().cloned().chain(others).collect();
    let results = evaluate(&program.computation, &arguments).unwrap();
    let tensor =
        |(value, of): (&lambert::eval::Value, &HostTensor)| HostTensor::from_f64(of.shape().clone(), &value.to_f64());
    results.iter().zip(state).map(tensor).collect()
}

/// Returns `weights` with an optimizer state of zeros, and with averages equal to the weights if there are any.
fn initial(weights: &[HostTensor], spec: &StepSpec) -> Vec<HostTensor> {
    let of_kind = |kind: &&str| -> Vec<HostTensor> {
        let zeros = |weight: &HostTensor| HostTensor::zeros(weight.shape().clone());
        if *kind == "ema" { weights.to_vec() } else { weights.iter().map(zeros).collect() }
    };
    weights.iter().cloned().chain(spec.state_names().iter().flat_map(of_kind)).collect()
}

#[test]
fn averages_are_those_of_a_loop_over_the_weights_and_change_no_weight() {
    let (with, without) = (spec(Some(DECAY)), spec(None));
    let (program, plain) = (program(Some(DECAY)), program(None));
    let weights = initial_weights(2, DType::F64);
    let tensors = weights.len();
    let (mut state, mut other) = (initial(&weights, &with), initial(&weights, &without));
    let mut averages: Vec<Vec<f64>> = weights.iter().map(HostTensor::to_f64).collect();
    // At step 5, (1 + n) / (10 + n) is 0.4; from step 13 on, it exceeds 0.6.
    for n in 0..20 {
        state = step(&program, &with, &state, n);
        other = step(&plain, &without, &other, n);
        assert_eq!(state[..other.len()], other[..], "step {n}: weights and optimizer state");
        let decay = DECAY.min((1.0 + n as f64) / (10.0 + n as f64));
        let of_step = state[..tensors].iter().zip(&state[state.len() - tensors..]);
        for (average, (weight, found)) in averages.iter_mut().zip(of_step) {
            for ((average, weight), found) in average.iter_mut().zip(weight.to_f64()).zip(found.to_f64()) {
                *average = decay * *average + (1.0 - decay) * weight;
                assert!((*average - found).abs() < 1e-12, "step {n}: {found} and {average}");
            }
        }
    }
}

#[test]
fn a_step_without_averages_has_no_trace_of_them() {
    let text = program(None).computation.to_string();
    assert!(!text.contains("ema") && program(Some(DECAY)).computation.to_string().contains("ema"));
    // Runs that differ in the decay alone share one program.
    assert_eq!(program(Some(0.9)).computation.to_string(), program(Some(0.999)).computation.to_string());
}

#[test]
fn a_step_that_is_not_finite_leaves_the_averages() {
    let (spec, program) = (spec(Some(DECAY)), program(Some(DECAY)));
    let mut weights = initial_weights(2, DType::F64);
    let before = step(&program, &spec, &initial(&weights, &spec), 0);
    let elements = weights[0].shape().elements();
    weights[0] = HostTensor::from_f64(weights[0].shape().clone(), &vec![f64::INFINITY; elements]);
    let mut state = before.clone();
    state[0] = weights[0].clone();
    let after = step(&program, &spec, &state, 1);
    assert_eq!(after[1..], state[1..], "weights, optimizer state and averages");
    assert_ne!(
        step(&program, &spec, &before, 1)[before.len() - 1],
        before[before.len() - 1],
        "a finite step changes them"
    );
}
