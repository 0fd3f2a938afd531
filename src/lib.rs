//! lambert: pretrain BERT with LAMB at very large batch, as one XLA computation a step.
//!
//! The path of one step, in the order of the rooms:
//!
//! 1. A run file becomes a [`run::Run`]; its [`schedule::Schedule`] says for step n which phase it is in, how large
//!    the batch and what the learning rate is.
//! 2. [`data::Dataset`] makes the batch of step n: a pure function of the seed, the phase and the number of its first row.
//! 3. [`step::TrainStep`] is the computation. [`bert::Bert`] writes the forward pass into a [`graph::Graph`],
//!    [`autodiff::gradients`] appends the backward pass, [`optim::Optimizer`] the update.
//! 4. [`hlo::lower`] turns the finished [`graph::Computation`] into the bytes of an HloModuleProto.
//! 5. [`pjrt::Client`] compiles the bytes and runs them, step after step, on weights that stay on the device.
//! 6. [`train::trainer::Trainer`] is the loop around it; [`checkpoint`] keeps what it made, under Hugging Face's names.
//!
//! [`eval`] runs any computation slowly and in f64: it is what every test compares with. ARCHITECTURE.md holds the map and
//! the invariants.

#![deny(unsafe_code)]

pub mod autodiff;
pub mod batch;
pub mod bert;
pub mod cache;
pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod deadline;
pub mod digest;
pub mod eval;
pub mod files;
pub mod graph;
pub mod hlo;
pub mod key_value;
pub mod optim;
pub mod output;
pub mod pjrt;
pub mod plan;
pub mod plugins;
pub mod rendezvous;
pub mod report;
pub mod rng;
pub mod run;
pub mod runtime;
pub mod schedule;
pub mod settings;
pub mod shape;
pub mod step;
pub mod storage;
pub mod task;
pub mod tls;
pub mod train;
pub mod units;
pub mod verify;
