//! lambert pretrains BERT with LAMB at very large batch sizes. Each train step is one XLA computation.
//!
//! The path of one step:
//!
//! 1. A run file becomes a [`run::Run`]. Its [`schedule::Schedule`] maps step n to its phase, batch size and learning rate.
//! 2. [`data::Dataset`] produces the batch of step n, as a pure function of the seed, the phase and the index of its first
//!    row.
//! 3. [`step::TrainStep`] is the computation: [`bert::Bert`] builds the forward pass in a [`graph::Graph`],
//!    [`autodiff::gradients`] appends the backward pass, and [`optim::Optimizer`] the update.
//! 4. [`hlo::lower()`] lowers the finished [`graph::Computation`] to the bytes of an HloModuleProto.
//! 5. [`pjrt::Client`] compiles the bytes and runs them, with weights that stay on the device.
//! 6. [`train::trainer::Trainer`] is the training loop. [`checkpoint`] saves its state, with Hugging Face's tensor names.
//!
//! [`eval`] evaluates any computation in f64; it is the reference of the tests. ARCHITECTURE.md describes the modules and
//! the invariants.
//!
//! # Example
//!
//! Build a graph, differentiate it, evaluate it, and lower it to HLO:
//!
//! ```
//! use lambert::autodiff::gradients;
//! use lambert::eval::evaluate;
//! use lambert::graph::Graph;
//! use lambert::hlo::{self, LowerOptions};
//! use lambert::shape::{DType, HostTensor, Shape};
//!
//! let graph = Graph::new("mean_square");
//! let x = graph.parameter("x", Shape::new(DType::F32, [2, 3]));
//! let weight = graph.parameter("weight", Shape::new(DType::F32, [3, 1]));
//! let loss = x.matmul(weight, DType::F32).square().mean(&[0, 1]);
//! let gradient = gradients(loss, &[weight])[0];
//! let computation = graph.finish(&[loss, gradient]);
//!
//! let x = HostTensor::new([2, 3], &[1.0f32, 0.0, 0.0, 0.0, 1.0, 0.0]);
//! let weight = HostTensor::new([3, 1], &[3.0f32, 1.0, 5.0]);
//! let outputs = evaluate(&computation, &[x, weight])?;
//! assert_eq!(outputs[0].scalar(), 5.0); // (3² + 1²) / 2
//! assert_eq!(outputs[1].to_f64(), [3.0, 1.0, 0.0]); // xᵀ · (x · weight)
//!
//! let module = hlo::lower(&computation, &LowerOptions::default());
//! let text = hlo::text(&module.bytes)?;
//! assert!(text.contains("ROOT %tuple"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `module.bytes` is a program for [`pjrt::Client::compile`], or an `.hlo.pb` file for XLA's own tools.

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
pub mod divergence;
pub mod eval;
mod file_kind;
pub mod files;
pub mod graph;
pub mod hlo;
pub mod key_value;
pub mod library_file;
pub mod metrics;
pub mod onnx;
pub mod optim;
pub mod output;
pub mod panics;
pub mod pjrt;
pub mod plan;
pub mod plugins;
pub mod predict;
pub mod probe;
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
pub mod study;
pub mod task;
pub mod tls;
pub mod train;
pub mod triton;
pub mod units;
pub mod verify;
