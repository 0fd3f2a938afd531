//! The only room where data, graphs and devices meet.

pub mod interrupt;
pub mod progress;
