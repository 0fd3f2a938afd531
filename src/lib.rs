//! lambert: pretrain BERT with LAMB at very large batch, as one XLA computation a step.

#![deny(unsafe_code)]

pub mod autodiff;
pub mod bert;
pub mod checkpoint;
pub mod cli;
pub mod data;
pub mod eval;
pub mod graph;
pub mod hlo;
pub mod optim;
pub mod pjrt;
pub mod rng;
pub mod schedule;
pub mod shape;
pub mod train;
