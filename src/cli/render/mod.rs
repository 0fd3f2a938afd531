//! Results as text and JSON for the terminal.

pub mod example;
pub mod fine_tuning;
pub mod optimizers;
pub mod plan;
pub mod predictions;
pub mod profile;
pub mod run;
