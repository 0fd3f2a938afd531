//! The computations of a step as graphs: training, gradients alone, evaluation and forward pass, each with the meaning of
//! its arguments and results. This module does not use devices.

pub mod eval_step;
pub mod inputs;
mod loss_and_grads;
pub mod parallel;
pub mod program;
mod reproducible;
pub mod sharding;
mod spec;
pub mod train_step;

pub use eval_step::{EvalSpec, EvalStep, ForwardSpec, ForwardStep};
pub use inputs::{Scalars, StepInputs};
pub use parallel::{GradientReduceDtype, OptimizerSharding, Parallel, ParallelSettings};
pub use program::{Program, Role, Value};
pub use spec::StepSpec;
pub use train_step::{GradientStep, TrainStep};
