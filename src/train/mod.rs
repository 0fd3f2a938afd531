//! The training loop with evaluation, checkpoints, uploads and interruption; the evaluation of saved models; and the
//! benchmark of one step.
//!
//! From Rust, a run file is opened, trained and exported like this:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use lambert::run::Run;
//! use lambert::run::weights::export_model;
//! use lambert::train::{PretrainOptions, pretrain};
//!
//! # fn main() -> anyhow::Result<()> {
//! let run = Run::open(Path::new("scripts/runs/quickstart.toml"), &["phase.1.steps=100".to_owned()])?;
//! pretrain(&run, &PretrainOptions::default())?;
//! export_model(run.checkpoint.directory.local(), None, None, Path::new("my-bert"))?;
//! # Ok(())
//! # }
//! ```

pub mod bench;
pub mod checkpointer;
pub mod divergence;
pub mod evaluate;
pub mod evaluator;
pub mod fine_tuning;
pub mod interrupt;
pub mod job;
pub mod launch;
pub mod memory;
pub mod pretraining;
pub mod probe;
pub mod programs;
pub mod trainer;
pub mod uploader;

pub use launch::{PretrainEvent, PretrainOptions, pretrain, pretrain_with_events};
pub use trainer::Outcome;
