//! Operands with random values, for comparisons of kernels with the composed form.

use super::{FusedAttention, MASKED};
use crate::rng::Key;
use crate::shape::{DType, HostTensor, Shape};

/// Sequences of a packed row.
const SEQUENCES: usize = 3;

/// Returns operands of the definition that are a function of `seed`. The last quarter of a plain row is padding; a packed row
/// holds three sequences.
pub(super) fn operands(attention: &FusedAttention, seed: u64) -> Vec<HostTensor> {
    let mut draws = Key::new(seed).stream();
    let FusedAttention { rows, length, dropout, .. } = *attention;
    let by_position = |dtype, value: &dyn Fn(usize) -> f64| {
        let values: Vec<f64> = (0..rows * length).map(|i| value(i % length)).collect();
        HostTensor::from_f64(Shape::new(dtype, [rows, length]), &values)
    };
    let mask = match attention.packed {
        true => by_position(DType::S32, &|position| (position * SEQUENCES / length) as f64),
        false => {
            by_position(attention.sum_type(), &|position| if position < length - length / 4 { 0.0 } else { MASKED })
        }
    };
    let mut all = vec![uniform(attention.qkv_shape(), &mut || draws.uniform()), mask];
    if dropout > 0.0 {
        let mut words = || {
            let words: Vec<u32> = (0..rows * length).map(|_| draws.next_u64() as u32).collect();
            HostTensor::new([rows, length], &words)
        };
        all.extend([words(), words(), by_position(DType::S32, &|position| position as f64)]);
    }
    all
}

/// Returns a cotangent of the context that is a function of `seed`.
pub(super) fn cotangent(attention: &FusedAttention, seed: u64) -> HostTensor {
    let mut draws = Key::new(seed).stream();
    uniform(attention.context_shape(), &mut || draws.uniform())
}

/// Returns values between −2 and 2, so that scores differ as in a trained model.
fn uniform(shape: Shape, uniform: &mut dyn FnMut() -> f64) -> HostTensor {
    let values: Vec<f64> = (0..shape.elements()).map(|_| 4.0 * uniform() - 2.0).collect();
    HostTensor::from_f64(shape, &values)
}
