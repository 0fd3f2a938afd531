//! Tests that need neither a PJRT plugin nor Python: part of `scripts/test --quick`.

#[path = "../common/mod.rs"]
mod common;

mod data;
mod documents;
mod ema;
mod fine_tuning;
mod finetune;
mod fuzz;
mod goldens;
mod gradients;
mod hosts;
mod initial_state;
mod inspect;
mod key_value;
mod labelled;
mod languages;
mod launch;
mod metrics;
mod optimizers;
mod packing;
mod parity;
mod pjrt;
mod plugins;
mod prepare;
mod prepare_parts;
mod prepare_resume;
mod probe;
mod recomputation;
mod report;
mod sharding;
mod shell;
mod special_files;
mod study;
mod subwords;
mod task;
mod tidy;
mod truncation;
mod vocabulary;
