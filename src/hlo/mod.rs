//! The lowering of a finished [`Computation`](crate::graph::Computation) to a serialized `HloModuleProto`.
//!
//! The operations of a graph have HLO's names and semantics, so the lowering only adds what the file format requires:
//! layouts, module-wide names and ids, reducer computations, the tuple of a loop's state, and the input-output aliases
//! of donated parameters. [`lower()`] is a pure function: the same graph gives the same bytes on every machine, so bytes
//! can be compared, cached and reviewed.
//!
//! * [`proto`]: the protobuf messages, restricted to the fields that are used
//! * [`lower()`]: one exhaustive match over [`Op`](crate::graph::Op)
//! * [`text()`]: the inverse direction, from bytes to HLO text, for readers and for the golden files under `graphs/`
//!
//! The bytes are an ordinary `.hlo.pb` file. PJRT plugins accept them as program format `"hlo"`, and XLA's own tools read
//! them too (`examples/xla-rs` runs one with the `xla` crate).

mod lower;
pub mod proto;
#[cfg(test)]
mod tests;
mod text;
mod window;

pub use lower::lower;
pub use text::text;

use crate::shape::Shape;

/// Options of [`lower()`].
#[derive(Clone, Copy, Debug)]
pub struct LowerOptions<'a> {
    /// The module's name in profiles.
    pub name: &'a str,
    /// `(parameter, output)` pairs of equal shape. The output may reuse the parameter's memory, which deletes the
    /// caller's buffer.
    pub donated: &'a [(usize, usize)],
    /// Number of replicas that run the module. Collectives span all of them.
    pub num_replicas: usize,
    /// Precision of f32 dots.
    pub dot_precision: DotPrecision,
}

impl Default for LowerOptions<'_> {
    fn default() -> Self {
        LowerOptions { name: "module", donated: &[], num_replicas: 1, dot_precision: DotPrecision::Default }
    }
}

/// The precision to which a backend may round the operands of a dot. It affects f32 operands only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DotPrecision {
    /// The fastest that the backend has: TPUs round f32 operands to bf16, recent NVIDIA GPUs to TF32.
    #[default]
    Default,
    /// f32 operands are not rounded.
    Highest,
}

/// A module that can be compiled, with its calling convention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HloModule {
    /// The module's name.
    pub name: String,
    /// The serialized `HloModuleProto`.
    pub bytes: Vec<u8>,
    /// Shapes of the arguments, in order. Each argument is a buffer of its own.
    pub parameters: Vec<Shape>,
    /// Shapes of the results, in order. The module's root is their tuple, which PJRT returns as separate buffers.
    pub results: Vec<Shape>,
    /// See [`LowerOptions::donated`].
    pub donated: Vec<(usize, usize)>,
    /// See [`LowerOptions::num_replicas`].
    pub num_replicas: usize,
}
