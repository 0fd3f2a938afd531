//! The training loop and what it drives: evaluation, checkpoints, uploads, interruption; and the benchmark of one step.

pub mod bench;
pub mod checkpointer;
pub mod evaluator;
pub mod interrupt;
pub mod job;
pub mod launch;
pub mod pretraining;
pub mod trainer;
pub mod uploader;
