//! The only room where data, graphs and devices meet.

pub mod flops;
pub mod interrupt;
pub mod progress;
