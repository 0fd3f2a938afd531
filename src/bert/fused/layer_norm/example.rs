//! Operands with random values, for comparisons of kernels with the composed form.

use super::FusedLayerNorm;
use crate::rng::{Key, Stream};
use crate::shape::{HostTensor, Shape};

/// Returns operands of the definition that are a function of `seed`.
pub(super) fn operands(norm: &FusedLayerNorm, seed: u64) -> Vec<HostTensor> {
    let mut draws = Key::new(seed).stream();
    let hidden = [(); 2].map(|()| uniform(norm.hidden_shape(), &mut draws));
    let vectors = [(); 3].map(|()| uniform(norm.vector_shape(), &mut draws));
    let mut all: Vec<HostTensor> = hidden.into_iter().chain(vectors).collect();
    if norm.dropout > 0.0 {
        let mut words = || {
            let words: Vec<u32> = (0..norm.rows * norm.length).map(|_| draws.next_u64() as u32).collect();
            HostTensor::new([norm.rows, norm.length], &words)
        };
        all.extend([words(), words()]);
    }
    all
}

/// Returns a cotangent of the output that is a function of `seed`.
pub(super) fn cotangent(norm: &FusedLayerNorm, seed: u64) -> HostTensor {
    uniform(norm.hidden_shape(), &mut Key::new(seed).stream())
}

/// Returns values between −2 and 2.
fn uniform(shape: Shape, draws: &mut Stream) -> HostTensor {
    let values: Vec<f64> = (0..shape.elements()).map(|_| 4.0 * draws.uniform() - 2.0).collect();
    HostTensor::from_f64(shape, &values)
}
