//! The tensors of a batch: names, types and shapes in one list ([`BatchSpec`]), their values in host memory
//! ([`HostBatch`]), and the source of batches ([`BatchSource`]).
//!
//! The graph, the host, prefetching, synthetic batches and verification all read the same [`BatchSpec`], so that a tensor
//! is named in one place.

pub mod fine_tuning;
mod host;
pub mod prediction;
pub mod pretraining;
mod source;

pub use host::HostBatch;
pub use source::{BatchSource, ReplicaRange};

use crate::shape::{DType, Shape};

/// The label of an example or a position without one, as in Hugging Face and PyTorch: losses and metrics ignore it.
pub const IGNORED_LABEL: i32 = -100;

/// One tensor of a batch. Its first dimension counts the rows of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name in graphs and files, such as `input_ids`.
    pub name: &'static str,
    /// The element type.
    pub dtype: DType,
    /// The dimensions behind the first; empty for a tensor with one element a row.
    pub row_dims: Vec<usize>,
}

impl TensorSpec {
    /// Builds the specification of a tensor with `row_dims` elements in each row.
    pub fn new(name: &'static str, dtype: DType, row_dims: impl Into<Vec<usize>>) -> Self {
        TensorSpec { name, dtype, row_dims: row_dims.into() }
    }

    /// Returns the shape of the tensor in a batch of `rows` rows.
    pub fn shape(&self, rows: usize) -> Shape {
        Shape::new(self.dtype, [&[rows], &self.row_dims[..]].concat())
    }
}

/// The tensors of a batch, in the order in which programs take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchSpec {
    /// The specification of every tensor.
    pub tensors: Vec<TensorSpec>,
}

impl BatchSpec {
    /// Returns the names and shapes of a batch of `rows` rows.
    pub fn shapes(&self, rows: usize) -> impl Iterator<Item = (&'static str, Shape)> {
        self.tensors.iter().map(move |tensor| (tensor.name, tensor.shape(rows)))
    }
}
