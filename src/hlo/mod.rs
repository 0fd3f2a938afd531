//! From a finished [`Computation`] to the bytes a compiler takes: a serialized `HloModuleProto`.
//!
//! A graph's operations already carry HLO's names and meaning, so nothing is *translated* here; what the file format
//! demands beyond the graph is *added*: layouts, module-wide names and ids, reducer computations, the tuple that a loop
//! carries, and which parameter's memory each result may take over. [`lower`] is a pure function: the same graph gives
//! the same bytes, on every machine, so that bytes can be compared, cached and reviewed.
//!
//! * `proto.rs` — the message types, with the fields that are used and no others
//! * `lower.rs` — one exhaustive match over [`Op`](crate::graph::Op)
//! * `text.rs` — the way back: bytes to readable text, for people and for the reviewed files under `graphs/`
//!
//! The bytes are an ordinary `.hlo.pb` file: every PJRT plugin takes them as program format `"hlo"`, and so do XLA's own
//! tools (`examples/xla-rs` loads one with the `xla` crate).

mod lower;
pub mod proto;
#[cfg(test)]
mod tests;
mod text;

pub use lower::lower;
pub use text::text;

use crate::shape::Shape;

/// How a computation becomes a module.
#[derive(Clone, Copy, Debug)]
pub struct LowerOptions<'a> {
    /// The module's name, as profiles show it.
    pub name: &'a str,
    /// `(parameter, output)` pairs of equal shape: the output may be written into the parameter's memory, after which
    /// the caller's buffer is gone.
    pub donated: &'a [(usize, usize)],
    /// How many replicas will run the module; collectives span them all.
    pub num_replicas: usize,
    pub dot_precision: DotPrecision,
}

impl Default for LowerOptions<'_> {
    fn default() -> Self {
        LowerOptions { name: "module", donated: &[], num_replicas: 1, dot_precision: DotPrecision::Default }
    }
}

/// What a backend may do to the operands of a dot on the way into its matrix units. It matters for f32 operands only:
/// bf16 and f16 enter as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DotPrecision {
    /// The backend's fastest: TPUs round f32 operands to bf16, recent NVIDIA GPUs to TF32.
    #[default]
    Default,
    /// f32 operands count in full.
    Highest,
}

/// A module ready to be compiled, and what its caller must know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HloModule {
    pub name: String,
    /// The serialized `HloModuleProto`.
    pub bytes: Vec<u8>,
    /// The arguments in order; each is a buffer of its own.
    pub parameters: Vec<Shape>,
    /// The results in order. The module's root is their tuple, which PJRT hands over as separate buffers.
    pub results: Vec<Shape>,
    /// See [`LowerOptions::donated`].
    pub donated: Vec<(usize, usize)>,
    pub num_replicas: usize,
}
