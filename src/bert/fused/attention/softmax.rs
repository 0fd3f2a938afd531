//! Softmax whose derivative reads the rounded probabilities.

use std::sync::Arc;

use crate::graph::{Composite, Graph, Tensor};
use crate::shape::{DType, Shape};

/// Appends softmax of scores `[…, S]` over the last dimension, rounded to `dtype`.
///
/// The derivative reads the probabilities as they were rounded, so that the backward pass keeps one array of S² elements, in
/// `dtype`. From the formula, differentiation would keep the exponentials, in the type of the scores.
pub(in crate::bert) fn rounded_softmax<'g>(scores: Tensor<'g>, dtype: DType) -> Tensor<'g> {
    scores.graph().composite(&composite(&scores.shape(), dtype), &[scores])[0]
}

fn composite(scores: &Shape, dtype: DType) -> Composite {
    let derivative = Arc::new(derivative(scores, dtype));
    let graph = Graph::new("softmax");
    let x = graph.parameter("scores", scores.clone());
    let last = scores.dims.len() - 1;
    let kept: Vec<usize> = (0..last).collect();
    // The maximum keeps the exponentials in range.
    let e = (x - x.reduce_max(&[last]).broadcast_like(x, &kept)).exp();
    let probs = (e / e.reduce_sum(&[last]).broadcast_like(x, &kept)).convert(dtype);
    let definition = Arc::new(graph.finish(&[probs]));
    Composite { definition, residuals: 0, derivative: Some(derivative), kernel: None }
}

/// Returns (scores, probabilities p, cotangent ct) → p · (ct − Σ ct · p).
fn derivative(scores: &Shape, dtype: DType) -> Composite {
    let graph = Graph::new("softmax.gradients");
    graph.parameter("scores", scores.clone());
    let [probs, ct] = ["probs", "cotangent"].map(|name| graph.parameter(name, scores.with_dtype(dtype)));
    let [p, ct] = [probs, ct].map(|x| x.convert(scores.dtype));
    let last = scores.dims.len() - 1;
    let kept: Vec<usize> = (0..last).collect();
    let sums = (ct * p).reduce_sum(&[last]).broadcast_like(p, &kept);
    let definition = Arc::new(graph.finish(&[p * (ct - sums)]));
    Composite { definition, residuals: 0, derivative: None, kernel: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::gradients;
    use crate::bert::layers;
    use crate::eval::evaluate;
    use crate::shape::HostTensor;

    /// Returns the probabilities of scores that `softmax` computes, and the gradient of their sum with weights.
    fn results(softmax: impl for<'g> Fn(Tensor<'g>) -> Tensor<'g>) -> [Vec<f64>; 2] {
        let graph = Graph::new("loss");
        let shape = Shape::new(DType::F64, [3, 5]);
        let [scores, weights] = ["scores", "weights"].map(|name| graph.parameter(name, shape.clone()));
        let probs = softmax(scores).convert(DType::F64);
        let gradient = gradients((probs * weights).sum(), &[scores])[0];
        let numbers = |factor: f64| {
            HostTensor::from_f64(shape.clone(), &(0..15).map(|n| (factor * n as f64).sin()).collect::<Vec<_>>())
        };
        let found = evaluate(&graph.finish(&[probs, gradient]), &[numbers(3.0), numbers(5.0)]).unwrap();
        [found[0].to_f64(), found[1].to_f64()]
    }

    #[test]
    fn derivative_is_that_of_the_formula() {
        let [probs, gradient] = results(layers::softmax);
        let [exact, of_exact] = results(|scores| rounded_softmax(scores, DType::F64));
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0.0f64, |worst, (x, y)| worst.max((x - y).abs()));
        assert_eq!(exact, probs);
        assert!(distance(&of_exact, &gradient) < 1e-15);
    }

    #[test]
    fn derivative_reads_the_rounded_probabilities_alone() {
        let graph = Graph::new("loss");
        let scores = graph.parameter("scores", Shape::new(DType::F32, [2, 4]));
        let probs = rounded_softmax(scores, DType::BF16);
        let forward = graph.len();
        gradients(probs.convert(DType::F32).square().sum(), &[scores]);
        let inputs = (forward..graph.len()).flat_map(|i| graph.node(crate::graph::NodeId(i as u32)).inputs.clone());
        assert!(inputs.filter(|input| input.index() < forward).all(|input| input == probs.id()));
    }
}
