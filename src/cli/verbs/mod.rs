//! One file per verb. Each parses its arguments, calls the library, prints the result and returns the exit code.

pub mod bench;
pub mod devices;
pub mod finetune;
pub mod graph;
pub mod inspect;
pub mod models;
pub mod plan;
pub mod plugin;
pub mod prepare;
pub mod pretrain;
pub mod report;
pub mod shell;
pub mod study;
pub mod tokenizer;
pub mod verify;
