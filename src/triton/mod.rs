//! GPU kernels as Triton programs: built in Rust, printed as Triton's intermediate representation (MLIR text), which XLA compiles
//! with the step, and interpreted on the host, so that tests compare a kernel with the formula that it replaces.
//!
//! A program runs once for each point of a three-dimensional grid. It computes with *tiles*, arrays of fixed dimensions, and reads
//! and writes the arrays in memory through tiles of pointers. The operations have the names and the meaning of the dialects `tt`,
//! `arith`, `math` and `scf`.

mod builder;
mod call;
mod interpret;
mod ir;
mod text;

pub use builder::{ProgramBuilder, Tile};
pub use call::{Launch, TARGET, product_flops};
pub use interpret::interpret;
pub use ir::{MemoryElement, Program};
