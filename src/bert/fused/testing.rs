//! Comparison of arrays in the tests of the fused operations.

use crate::eval::Value;
use crate::shape::HostTensor;

/// Returns the largest difference of two arrays, relative to the largest element.
pub(super) fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    found.iter().zip(expected).fold(0.0f64, |worst, (x, y)| worst.max((x - y).abs())) / largest
}

/// Returns a result of the evaluator as an operand.
pub(super) fn host(value: &Value) -> HostTensor {
    HostTensor::from_f64(value.shape().clone(), &value.to_f64())
}
