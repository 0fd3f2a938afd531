//! The only room where data, graphs and devices meet.

pub mod agreement;
pub mod bench;
pub mod chips;
pub mod compile;
pub mod devices;
pub mod engine;
pub mod evaluate;
pub mod evaluation;
pub mod exchange;
pub mod feed;
pub mod flops;
pub mod hosts;
pub mod interrupt;
pub mod metrics;
pub mod plan;
pub mod preflight;
pub mod program;
pub mod progress;
pub mod reference;
pub mod rendezvous;
pub mod run;
pub mod start;
pub mod state;
pub mod step;
pub mod summary;
pub mod tensorboard;
pub mod trainer;
pub mod uploader;
pub mod verify;
pub mod weights;

pub use evaluation::{EvalSpec, EvalStep, ForwardStep, SUMS};
pub use program::{Program, Role, Value};
pub use step::{GradientStep, METRICS, StepSpec, TrainStep};
