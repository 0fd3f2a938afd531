//! The number formats of a step.

use serde::{Deserialize, Serialize};

use crate::shape::DType;

/// The number formats of a step: weights, moments, softmax, LayerNorm and loss are in [`Precision::master`]; operands of
/// matrix products and the activations between layers are in [`Precision::compute`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 operands, f32 accumulation.
    Bf16,
    /// f32 operands and f32 accumulation.
    #[default]
    F32,
    /// Everything in f64, for comparison with reference values.
    F64,
}

impl Precision {
    /// Returns the type of weights and optimizer state.
    pub const fn master(self) -> DType {
        match self {
            Precision::Bf16 | Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }

    /// Returns the type of the operands of matrix products.
    pub const fn compute(self) -> DType {
        match self {
            Precision::Bf16 => DType::BF16,
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }

    /// Returns the type that a matrix product accumulates in and returns. bf16 products return f32: CPU plugins accept no other
    /// type, and the next operation (bias, softmax, GELU) reads f32 before it rounds to [`Precision::compute`].
    pub const fn product(self) -> DType {
        self.master()
    }
}
