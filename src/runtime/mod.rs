//! Programs on devices: compilation, the training state, prefetched batches, and communication between hosts.

pub mod backend;
pub mod collective;
pub mod compilation_cache;
pub mod compile;
pub mod devices;
pub mod gather;
pub mod hosts;
pub mod limits;
pub mod prefetch;
pub mod processor;
pub mod software;
pub mod state;
