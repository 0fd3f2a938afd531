//! One file a verb: parse, call, print, exit code.

pub mod bench;
pub mod devices;
pub mod evaluate;
pub mod export;
pub mod graph;
pub mod import;
pub mod inspect;
pub mod plan;
pub mod plugin;
pub mod prepare;
pub mod pretrain;
pub mod tokenizer;
pub mod verify;
