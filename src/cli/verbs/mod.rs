//! One file per verb. Each parses its arguments, calls the library, prints the result and returns the exit code.

pub mod bench;
pub mod devices;
pub mod embed;
pub mod evaluate;
pub mod export;
pub mod finetune;
pub mod graph;
pub mod import;
pub mod inspect;
pub mod plan;
pub mod plugin;
pub mod predict;
pub mod prepare;
pub mod pretrain;
pub mod tokenizer;
pub mod verify;
