//! [`FusedOperation`]: the common interface of the fused operations.

use crate::graph::Composite;
use crate::shape::HostTensor;

/// An operation of fixed shapes that is one node of a graph: the composed form that defines it, kernels that compute it, and operands
/// on which the two can be compared.
pub trait FusedOperation {
    /// Returns the name of the operation and of its shape, such as `attention plain 128`.
    fn name(&self) -> String;

    /// Returns the operation without kernels.
    fn composed(&self) -> Composite;

    /// Returns the operation with its kernels, if these compute this shape.
    fn composite(&self) -> Composite;

    /// Returns the name of the first result, which the gradients belong to.
    fn result(&self) -> &'static str;

    /// Returns the names of the operands that have a gradient. They are the first ones.
    fn differentiable(&self) -> &'static [&'static str];

    /// Returns operands that are a function of `seed`.
    fn example(&self, seed: u64) -> Vec<HostTensor>;

    /// Returns a cotangent of the first result that is a function of `seed`.
    fn example_cotangent(&self, seed: u64) -> HostTensor;
}
