//! Results as text and JSON for the terminal.

pub mod example;
pub mod plan;
pub mod run;
