//! Kernels against the definition, and the derivative against that of the composed form and against finite differences.

use super::*;
use crate::autodiff::gradients;
use crate::bert::fused::testing::{distance, host};
use crate::eval::evaluate;
use crate::triton::product_flops;

/// One chunk and several, with and without dropout; two blocks.
fn shapes() -> Vec<FusedLayerNorm> {
    let shape =
        |width, dropout| FusedLayerNorm { rows: 2, length: 64, width, dropout, epsilon: 1e-12, dtype: DType::BF16 };
    vec![shape(128, 0.1), shape(384, 0.1), shape(256, 0.0)]
}

/// The same operations on a few elements, in f64.
fn small_shapes() -> impl Iterator<Item = FusedLayerNorm> {
    shapes().into_iter().map(|norm| FusedLayerNorm { length: 5, width: 7, epsilon: 0.1, dtype: DType::F64, ..norm })
}

#[test]
fn kernels_equal_their_definitions() {
    for norm in shapes() {
        let [forward, backward] = norm.kernels().unwrap();
        let inputs = norm.example(7);
        let definition = norm.definition();
        let results = evaluate(&definition, &inputs).unwrap();
        let found = forward.interpret(&inputs, &definition.output_shapes());
        // The output is rounded to bf16, which has 8 bits; kernels contain constants in f32.
        for (i, tolerance) in [4e-3, 1e-7, 1e-7].into_iter().enumerate() {
            let error = distance(&found[i], &results[i].to_f64());
            assert!(error < tolerance, "{norm:?}: result {i} differs by {error:e}");
        }

        let statistics = results[1..].iter().map(host);
        let operands: Vec<_> = inputs.into_iter().chain(statistics).chain([norm.example_cotangent(8)]).collect();
        let definition = norm.partial_gradients();
        let expected = evaluate(&definition, &operands).unwrap();
        let found = backward.interpret(&operands, &definition.output_shapes());
        for (i, tolerance) in [4e-3, 4e-3, 1e-6].into_iter().enumerate() {
            let (found, expected) = (&found[i], expected[i].to_f64());
            assert!(distance(found, &expected) < tolerance, "{norm:?}: result {i}");
            // The same elements are dropped.
            assert!(found.iter().zip(&expected).all(|(x, y)| (*x == 0.0) == (*y == 0.0)), "{norm:?}: result {i}");
        }
        let dropped = found[0].iter().filter(|&&x| x == 0.0).count() as f64 / found[0].len() as f64;
        assert!((dropped - norm.dropout).abs() < 0.02, "{norm:?}: {dropped} of the elements are dropped");
    }
}

/// Returns the loss of the operation, or of its definition written into the graph, and the gradients of its operands.
fn loss_and_gradients(norm: &FusedLayerNorm, is_composite: bool) -> Computation {
    let graph = Graph::new("loss");
    let parameters = norm.parameters(&graph);
    let weights = graph.parameter("weights", norm.hidden_shape());
    let inputs = LayerNormInputs::from_parameters(&parameters);
    let output = if is_composite { norm.apply(inputs) } else { norm.normed(inputs).output };
    let loss = (output * weights).sum();
    graph.finish(&[vec![loss], gradients(loss, &parameters[..DIFFERENTIABLE.len()])].concat())
}

fn arguments(norm: &FusedLayerNorm) -> Vec<HostTensor> {
    norm.example(9).into_iter().chain([norm.example_cotangent(10)]).collect()
}

#[test]
fn derivative_is_that_of_the_definition() {
    for norm in small_shapes() {
        let [found, expected] =
            [true, false].map(|form| evaluate(&loss_and_gradients(&norm, form), &arguments(&norm)).unwrap());
        for (name, (found, expected)) in ["loss"].iter().chain(&DIFFERENTIABLE).zip(found.iter().zip(&expected)) {
            let error = distance(&found.to_f64(), &expected.to_f64());
            assert!(error < 1e-10, "{norm:?}: {name} differs by {error:e}");
        }
    }
}

#[test]
fn derivative_is_the_limit_of_differences() {
    const STEP: f64 = 1e-5;
    for norm in small_shapes() {
        let (computation, arguments) = (loss_and_gradients(&norm, true), arguments(&norm));
        let found = evaluate(&computation, &arguments).unwrap();
        let directions = norm.example(11);
        for (i, name) in DIFFERENTIABLE.into_iter().enumerate() {
            let direction = directions[i].to_f64();
            let loss = |step: f64| {
                let moved: Vec<f64> = arguments[i].to_f64().iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                let mut arguments = arguments.clone();
                arguments[i] = HostTensor::from_f64(arguments[i].shape().clone(), &moved);
                evaluate(&computation, &arguments).unwrap()[0].to_f64()[0]
            };
            let expected = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
            let slope: f64 = found[1 + i].to_f64().iter().zip(&direction).map(|(x, d)| x * d).sum();
            assert!((slope - expected).abs() < 1e-7 * (1.0 + expected.abs()), "{name}: {slope}, expected {expected}");
        }
    }
}

#[test]
fn kernels_are_part_of_the_operation() {
    for norm in shapes() {
        let composite = norm.composite();
        let derivative = composite.derivative.unwrap();
        // The sums over blocks are no part of the kernel.
        assert!(derivative.kernel.is_none());
        let graph = Graph::new("derivative");
        let shapes = derivative.definition.parameter_shapes().into_iter();
        let parameters: Vec<Tensor> = shapes.map(|shape| graph.parameter("operand", shape.clone())).collect();
        assert!(graph.finish(&graph.composite(&derivative, &parameters)).has_kernels());
        assert_eq!(product_flops(&composite.kernel.unwrap().backend_config), Some(0.0));
        assert!(norm.composed().kernel.is_none() && !norm.composed().derivative.unwrap().definition.has_kernels());
    }
}

#[test]
fn unsuitable_shapes_are_refused_with_their_requirement() {
    let norm = shapes()[0];
    for (norm, expected) in [
        (FusedLayerNorm { width: 192, ..norm }, "a hidden_size that is a multiple of 128 and at most 2048, got 192"),
        (FusedLayerNorm { width: 4096, ..norm }, "got 4096"),
        (FusedLayerNorm { length: 80, ..norm }, "a sequence_length that is a multiple of 64, got 80"),
    ] {
        let refusal = norm.refusal().unwrap();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(norm.composite().kernel.is_none());
    }
    assert_eq!(FusedLayerNorm { length: 32, ..norm }.refusal(), None);
}
