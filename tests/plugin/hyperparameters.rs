//! Hyper-parameters as arguments of a program, against the same numbers as constants of the program: every preset, in f32.

use crate::common::cpu;
use lambert::graph::{Computation, Graph, Tensor};
use lambert::hlo::{self, LowerOptions};
use lambert::optim::{Optimizer, OptimizerConfig, Placement, UpdateScalars};
use lambert::rng::Key;
use lambert::runtime::backend::Backend;
use lambert::shape::{DType, HostTensor, Shape};

/// Names and numbers of elements.
const TENSORS: [(&str, usize); 4] =
    [("a.dense.weight", 700), ("a.dense.bias", 33), ("a.LayerNorm.weight", 17), ("b.dense.bias", 5)];

/// Every kind with its defaults, and every preset.
fn optimizers() -> Vec<OptimizerConfig> {
    let kinds = OptimizerConfig::KINDS.iter().map(|kind| toml::from_str(&format!("kind = '{kind}'")).unwrap());
    kinds.chain(OptimizerConfig::catalogue().into_iter().map(|entry| entry.config)).collect()
}

/// Builds one update by each optimizer, from the same tensors. The arguments are weights, gradients, two kinds of state, the learning
/// rate and t; with `as_arguments` also the hyper-parameters of each optimizer.
fn updates(as_arguments: bool) -> Computation {
    let graph = Graph::new("updates");
    let tensors = |kind: &str| -> Vec<Tensor> {
        let one = |(name, n): &(&str, usize)| graph.parameter(format!("{kind}/{name}"), Shape::new(DType::F32, [*n]));
        TENSORS.iter().map(one).collect()
    };
    let scalar = |name: &str| graph.parameter(name, Shape::scalar(DType::F32));
    let [weights, gradients, first, second] = ["w", "g", "m", "v"].map(tensors);
    let (rate, t) = (scalar("rate"), scalar("t"));
    let mut outputs = Vec::new();
    for (at, config) in optimizers().iter().enumerate() {
        let numbers = config.hyperparameters();
        let scalars = match as_arguments {
            true => UpdateScalars::new(rate, t, numbers, |name, _| scalar(&format!("{at}/{name}"))),
            false => UpdateScalars::constant(rate, t, numbers),
        };
        let kinds = config.state_names().len();
        let state = first.iter().zip(&second).map(|(&m, &v)| [m, v][..kinds].to_vec());
        let optimizer = Optimizer::new(config, &TENSORS.map(|(name, _)| name)).unwrap();
        let state: Vec<Vec<Tensor>> = state.collect();
        let update = optimizer.update(&weights, &gradients, &state, &scalars, Placement::Replicated);
        outputs.extend(update.weights.into_iter().chain(update.state.into_iter().flatten()));
    }
    graph.finish(&outputs)
}

/// Returns the arguments of [`updates`] at a third step, without hyper-parameters.
fn arguments() -> Vec<HostTensor> {
    let draw = |kind: usize, i: usize| {
        let mut stream = Key::new((10 * kind + i) as u64).stream();
        let size = [0.05, 0.01, 0.01, 1e-4][kind];
        // The second moment is positive, and one weight tensor is zero.
        let number = |x: f64| match kind {
            0 if i == 3 => 0.0,
            3 => size * x * x,
            _ => size * x,
        };
        let numbers: Vec<f64> = (0..TENSORS[i].1).map(|_| number(stream.normal())).collect();
        HostTensor::from_f64(Shape::new(DType::F32, [TENSORS[i].1]), &numbers)
    };
    let tensors = (0..4).flat_map(|kind| (0..TENSORS.len()).map(move |i| (kind, i)));
    let mut arguments: Vec<HostTensor> = tensors.map(|(kind, i)| draw(kind, i)).collect();
    arguments.extend([0.002f32, 3.0].map(HostTensor::scalar));
    arguments
}

#[test]
fn arguments_have_the_results_of_constants_for_every_preset() {
    let devices = cpu(1);
    let run = |as_arguments: bool, arguments: &[HostTensor]| -> Vec<Vec<f64>> {
        let module = hlo::lower(&updates(as_arguments), &LowerOptions::default());
        let executable = devices.compile(&module.bytes).unwrap();
        let buffers: Vec<_> = arguments.iter().map(|tensor| devices.put(tensor, 0).unwrap()).collect();
        let results = executable.execute(&[buffers.iter().collect()]).unwrap();
        results[0].iter().map(|result| result.to_host().unwrap().to_f64()).collect()
    };
    let mut arguments = arguments();
    let constants = run(false, &arguments);
    let numbers = optimizers().into_iter().flat_map(|config| config.hyperparameters());
    arguments.extend(numbers.map(|(_, value)| HostTensor::scalar(value as f32)));
    let found = run(true, &arguments);
    for (found, constants) in found.iter().flatten().zip(constants.iter().flatten()) {
        // A compiler may replace the division by a constant by a product, and add products in another order.
        assert!((found - constants).abs() <= 1e-6 * constants.abs().max(1e-3), "{found}, constants {constants}");
    }
}
