//! The specification of a step.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::parallel::Parallel;
use super::sharding::Shards;
use crate::optim::{Hyperparameters, OptimizerConfig, ema};
use crate::shape::Shape;
use crate::task::{ParamSpec, Precision, Task};

/// Everything that the computation of a step depends on. Equal specifications build equal computations.
#[derive(Clone, Debug)]
pub struct StepSpec {
    /// The task.
    pub task: Arc<dyn Task>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The precision of the matrix products.
    pub precision: Precision,
    /// Rows of one replica in one step: accumulation steps × micro-batch size.
    pub rows: usize,
    /// Micro-batches that a replica processes one after the other in one step.
    pub accumulation_steps: usize,
    /// The number of replicas.
    pub replicas: usize,
    /// The distribution over replicas.
    pub parallel: Parallel,
    /// Whether dropout is applied; false turns it off whatever the model's probabilities are.
    pub dropout: bool,
    /// The decay of the average of the weights ([`crate::optim::ema`]), if the step keeps one.
    pub ema_decay: Option<f64>,
}

impl PartialEq for StepSpec {
    /// Compares tasks by their identity.
    fn eq(&self, other: &StepSpec) -> bool {
        let fields = |spec: &StepSpec| {
            let StepSpec {
                task,
                optimizer,
                precision,
                rows,
                accumulation_steps,
                replicas,
                parallel,
                dropout,
                ema_decay,
            } = spec.clone();
            let shape = (rows, accumulation_steps, replicas, parallel);
            (task.identity(), optimizer, precision, shape, dropout, ema_decay)
        };
        fields(self) == fields(other)
    }
}

impl StepSpec {
    /// Checks the specification.
    ///
    /// # Errors
    /// If the task is impossible, or the rows do not divide into micro-batches.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.replicas > 0, "replicas requires at least 1, got 0");
        ensure!(
            self.accumulation_steps > 0 && self.rows > 0 && self.rows.is_multiple_of(self.accumulation_steps),
            "rows requires a positive multiple of accumulation_steps ({}), got {}",
            self.accumulation_steps,
            self.rows
        );
        self.task.validate(self.rows)
    }

    /// Returns the kinds of state that is kept for each parameter beside its weight: that of the optimizer, then the average.
    pub fn state_names(&self) -> Vec<&'static str> {
        let average = self.ema_decay.map(|_| ema::STATE_NAME);
        self.optimizer.state_names().iter().copied().chain(average).collect()
    }

    /// Returns the numbers of the optimizer and of the average, which are arguments of the step.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = self.optimizer.hyperparameters();
        numbers.extend(self.ema_decay.map(ema::hyperparameters).unwrap_or_default());
        numbers
    }

    /// Returns the rows that a replica processes at a time.
    pub fn micro_batch_size(&self) -> usize {
        self.rows / self.accumulation_steps
    }

    /// Returns the sharding of weights and optimizer state; none if they are replicated.
    pub fn shards(&self) -> Option<Shards> {
        (self.parallel.shard_optimizer && self.replicas > 1).then_some(Shards { count: self.replicas })
    }

    /// Returns the shape in which a replica keeps a weight, or a tensor of its optimizer state, between steps.
    pub fn state_shape(&self, param: &ParamSpec) -> Shape {
        let replicated = param.shape(self.precision.master());
        self.shards().map_or(replicated.clone(), |shards| shards.shard_shape(&replicated))
    }
}
