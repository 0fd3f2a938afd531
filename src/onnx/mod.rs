//! The lowering of a finished [`Computation`] to an ONNX model, for runtimes that serve models: onnxruntime, transformers.js,
//! text-embeddings-inference.
//!
//! A graph has fixed dimensions, and a served model takes any batch of any length. So the computation is built for a batch and a
//! length that no dimension of the model is a multiple of ([`Symbols`]); a dimension of the graph is then a constant times a power of
//! each, and the ONNX model computes it from the shape of its input.
//!
//! * `proto.rs`: the protobuf messages, restricted to the fields that are used
//! * `dims.rs`: dimensions as products of constants, batch and length
//! * `lower.rs`: one ONNX node or a few for each node of the graph
//!
//! Broadcasts stay implicit, as ONNX's elementwise operations broadcast, until an operation needs the whole array.

mod dims;
mod lower;
mod proto;
#[cfg(test)]
mod tests;

pub use dims::Symbols;
pub use lower::{NotSupported, model};

use crate::graph::Computation;
use crate::shape::HostTensor;

/// The version of the operators: 18 has reductions over axes that are inputs.
pub const OPSET: i64 = 18;

/// A computation with the values and names that its ONNX model needs.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// The computation, with the operations of HLO alone. Parameters that are neither an input nor a weight must not be used.
    pub computation: &'a Computation,
    /// The batch and the length that it was built for.
    pub symbols: Symbols,
    /// The parameters that become inputs of type int64: `[batch, length]` each.
    pub inputs: &'a [&'a str],
    /// The values of all other parameters, by name.
    pub weights: &'a [(String, HostTensor)],
    /// The names of the outputs, in their order.
    pub outputs: &'a [String],
}
