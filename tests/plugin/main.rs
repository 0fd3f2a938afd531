//! Tests that need the CPU plugin: run `lambert plugin install cpu`, or set `LAMBERT_PLUGIN`.

#[path = "../common/mod.rs"]
mod common;

mod average;
mod backend;
mod bad_input;
mod batch_ramp;
mod cli;
mod collectives;
mod compilation_cache;
mod continued;
mod divergence;
mod early_stop;
mod ema;
mod extension;
mod fine_tuning;
mod finetune;
mod full_disk;
mod hosts;
mod hyperparameters;
mod interrupt;
mod kernels;
mod known_faults;
mod large_batch;
mod library;
mod limits;
mod packing;
mod parity;
mod pjrt;
mod plan;
mod plugins;
mod predict;
mod proto;
mod resume;
mod sharding;
mod study;
mod subwords;
mod task;
mod train_tiny;
