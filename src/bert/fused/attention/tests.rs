//! Kernels against the composed form, and the derivative against that of the composed form.

use super::*;
use crate::autodiff::gradients;
use crate::bert::fused::testing::{distance, host};
use crate::bert::layers::softmax;
use crate::eval::evaluate;
use crate::triton::product_flops;

/// Plain and packed rows, with and without dropout; two blocks, or one.
fn shapes() -> Vec<FusedAttention> {
    let shape = |length, packed, dropout| FusedAttention {
        rows: 2,
        length,
        heads: 2,
        size: 16,
        packed,
        dropout,
        dtype: DType::BF16,
    };
    vec![shape(128, false, 0.1), shape(128, true, 0.1), shape(64, false, 0.0), shape(128, true, 0.0)]
}

#[test]
fn kernels_equal_their_definitions() {
    for attention in shapes() {
        let [forward, backward] = attention.kernels().unwrap();
        let inputs = attention.example(7);
        let definition = attention.definition();
        let expected = evaluate(&definition, &inputs).unwrap();
        let found = forward.interpret(&inputs, &definition.output_shapes());
        // bf16 has 8 bits: probabilities are rounded before the division by their sum, and contexts once more.
        assert!(distance(&found[0], &expected[0].to_f64()) < 1e-2, "{attention:?}");
        assert!(distance(&found[1], &expected[1].to_f64()) < 1e-9, "{attention:?}");

        let cotangent = attention.example_cotangent(8);
        let all = [&inputs[..], &[host(&expected[0]), host(&expected[1]), cotangent]].concat();
        let expected = evaluate(&attention.derivative(), &all).unwrap();
        let found = backward.interpret(&all, &[inputs[0].shape()]);
        assert!(distance(&found[0], &expected[0].to_f64()) < 1e-2, "{attention:?}");
    }
}

#[test]
fn derivative_is_that_of_the_definition() {
    for attention in shapes() {
        let attention = FusedAttention { dtype: DType::F64, length: 12, size: 3, ..attention };
        let graph = Graph::new("loss");
        let parameters = attention.parameters(&graph);
        let weights = graph.parameter("weights", attention.context_shape());
        let inputs = AttentionInputs::from_parameters(&parameters);
        let composite = attention.apply(inputs);
        let composed = attention.values(attention.dropped(softmax(attention.scores(inputs)), inputs), inputs);
        let results = [composite, composed].map(|context| {
            let loss = (context * weights).sum();
            [loss, gradients(loss, &[parameters[0]])[0]]
        });
        let mut arguments = attention.example(9);
        arguments.push(attention.example_cotangent(10));
        let found = evaluate(&graph.finish(&results.concat()), &arguments).unwrap();
        for (composite, composed) in [(0, 2), (1, 3)] {
            let difference = distance(&found[composite].to_f64(), &found[composed].to_f64());
            assert!(difference < 1e-10, "{attention:?}: {difference:e}");
        }
    }
}

#[test]
fn calls_have_the_operations_of_their_products() {
    for attention in shapes() {
        let FusedAttention { rows, length, heads, size, .. } = attention;
        let product = (2 * rows * heads * length * length * size) as f64;
        let composite = attention.composite();
        let derivative = composite.derivative.unwrap();
        // Scores and values; and, for the gradients, scores and gradients of probabilities twice, and one product for each operand.
        for (kernel, products) in [(composite.kernel.unwrap(), 2.0), (derivative.kernel.clone().unwrap(), 7.0)] {
            assert_eq!(product_flops(&kernel.backend_config), Some(products * product));
        }
        assert_eq!(product_flops("{\"dot_dimension_numbers\": {}}"), None);
    }
}

#[test]
fn unsuitable_shapes_are_refused_with_their_requirement() {
    let attention = shapes()[0];
    for (attention, expected) in [
        (FusedAttention { length: 96, ..attention }, "a sequence_length that is a multiple of 64, got 96"),
        (FusedAttention { size: 24, ..attention }, "got 24"),
    ] {
        let refusal = attention.refusal().unwrap();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(attention.composite().kernel.is_none());
    }
}
