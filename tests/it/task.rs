//! A task that is not BERT in the f64 evaluator: gradients by finite differences, independence of the split, sharding,
//! evaluation sums and outputs.

use crate::common::perceptron::{CLASSES, Examples, Perceptron, initial_weights};
use crate::common::task_steps::{assert_results_close, perceptron_spec, run_once, unsharded};
use lambert::batch::BatchSource;
use lambert::eval::evaluate;
use lambert::runtime::backend::Evaluator;
use lambert::shape::{DType, HostTensor};
use lambert::step::{
    EvalSpec, EvalStep, ForwardSpec, ForwardStep, GradientStep, Parallel, Scalars, StepInputs, StepSpec, TrainStep,
};
use lambert::task::{Model, Precision, metric_names};

const ROWS: usize = 12;

#[test]
fn metrics_are_named_by_the_task() {
    let names = ["loss", "class_loss", "value_loss", "class_accuracy", "grad_norm", "skipped"];
    assert_eq!(metric_names(&Perceptron), names);
}

#[test]
fn gradients_equal_finite_differences() {
    let spec = StepSpec { dropout: false, ..perceptron_spec(Precision::F64, ROWS, 2, 1) };
    let program = GradientStep::build(&spec).unwrap().program;
    let batch = Examples { count: 64 }.rows(0, ROWS).unwrap();
    let inputs = StepInputs { batch: &batch, scalars: Scalars::FORWARD, replicas: 1 };
    let weights = initial_weights(2, DType::F64);
    let outputs = |weights: &[HostTensor]| -> Vec<Vec<f64>> {
        let others = program.inputs[weights.len()..].iter().map(|value| (*inputs.tensor(value, 0).unwrap()).clone());
        let arguments: Vec<HostTensor> = weights.iter().cloned().chain(others).collect();
        evaluate(&program.computation, &arguments).unwrap().iter().map(|value| value.to_f64()).collect()
    };
    let gradients = outputs(&weights);
    let step = 1e-5;
    for (tensor, weight) in weights.iter().enumerate() {
        for element in 0..weight.shape().elements() {
            let loss = |by: f64| {
                let mut moved = weights.clone();
                let mut values = weight.to_f64();
                values[element] += by;
                moved[tensor] = HostTensor::from_f64(weight.shape().clone(), &values);
                outputs(&moved)[weights.len()][0]
            };
            let difference = (loss(step) - loss(-step)) / (2.0 * step);
            let gradient = gradients[tensor][element];
            assert!((gradient - difference).abs() < 1e-8, "tensor {tensor}[{element}]: {gradient} and {difference}");
        }
    }
}

#[test]
fn a_step_is_independent_of_splits_and_sharding() {
    let step = |accumulation_steps, replicas, shard_optimizer| {
        let parallel = Parallel { shard_optimizer, ..Parallel::default() };
        let spec = StepSpec { parallel, ..perceptron_spec(Precision::F64, ROWS, accumulation_steps, replicas) };
        let program = TrainStep::build(&spec).unwrap().program;
        unsharded(&spec, &run_once(&Evaluator { replicas }, &program, Precision::F64, ROWS))
    };
    let whole = step(1, 1, false);
    for (accumulation_steps, replicas, sharded) in
        [(3, 1, false), (1, 4, false), (3, 2, false), (1, 4, true), (2, 3, true)]
    {
        let what = format!("{accumulation_steps} accumulation steps, {replicas} replicas, sharded: {sharded}");
        assert_results_close(&step(accumulation_steps, replicas, sharded), &whole, 1e-12, &what);
    }
}

#[test]
fn dropout_depends_on_the_step() {
    let program = GradientStep::build(&perceptron_spec(Precision::F64, ROWS, 1, 1)).unwrap().program;
    let without = StepSpec { dropout: false, ..perceptron_spec(Precision::F64, ROWS, 1, 1) };
    let without = GradientStep::build(&without).unwrap().program;
    let run = |program| run_once(&Evaluator { replicas: 1 }, program, Precision::F64, ROWS).remove(0);
    assert_ne!(run(&program), run(&without));
}

#[test]
fn evaluation_sums_are_the_metrics_of_the_step() {
    let task = std::sync::Arc::new(Perceptron);
    let spec = EvalSpec { task, precision: Precision::F64, rows: ROWS, replicas: 1, outputs: false };
    let sums = run_once(&Evaluator { replicas: 1 }, &EvalStep::build(&spec).unwrap().program, Precision::F64, ROWS);
    let [class_nll, right, squared, classes, values] = <[f64; 5]>::try_from(sums[0][0].clone()).unwrap();

    let spec = StepSpec { dropout: false, ..perceptron_spec(Precision::F64, ROWS, 1, 1) };
    let program = GradientStep::build(&spec).unwrap().program;
    let metrics = run_once(&Evaluator { replicas: 1 }, &program, Precision::F64, ROWS).remove(0).pop().unwrap();
    let expected = [class_nll / classes + squared / values, class_nll / classes, squared / values, right / classes];
    for (found, expected) in metrics.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} and {expected}");
    }
    // Of twelve examples, numbers 0, 5 and 10 have no class, and 0 and 7 no value.
    assert_eq!((classes, values), (9.0, 10.0));
}

#[test]
fn outputs_have_a_row_for_each_example() {
    let model = std::sync::Arc::new(Perceptron);
    let spec = ForwardSpec { model, precision: Precision::F64, rows: ROWS, replicas: 1 };
    let step = ForwardStep::build(&spec).unwrap();
    let outputs = run_once(&Evaluator { replicas: 1 }, &step.program, Precision::F64, ROWS);
    assert_eq!(outputs[0].iter().map(Vec::len).collect::<Vec<_>>(), [ROWS * CLASSES, ROWS]);
    assert_eq!(step.program.output("value"), Some(1));
    assert_eq!(step.params, Perceptron.parameters());
}
