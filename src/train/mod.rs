//! The only room where data, graphs and devices meet.

pub mod devices;
pub mod feed;
pub mod flops;
pub mod interrupt;
pub mod metrics;
pub mod preflight;
pub mod progress;
pub mod run;
pub mod state;
pub mod tensorboard;
pub mod weights;
