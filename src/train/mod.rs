//! The only room where data, graphs and devices meet.

pub mod evaluation;
pub mod flops;
pub mod interrupt;
pub mod metrics;
pub mod preflight;
pub mod program;
pub mod progress;
pub mod run;
pub mod step;
pub mod tensorboard;

pub use evaluation::{EvalSpec, EvalStep, ForwardStep, SUMS};
pub use program::{Program, Role, Value};
pub use step::{GradientStep, METRICS, StepSpec, TrainStep};
