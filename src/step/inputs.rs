//! The inputs of a step by name: the tensors of the batch, and the scalars that change from step to step. Every launch of
//! a program, on devices or in the interpreter, takes its inputs from here.

use std::sync::Arc;

use anyhow::{Context, ensure};

use super::program::{Role, Value};
use crate::batch::HostBatch;
use crate::optim::Hyperparameters;
use crate::schedule::StepPlan;
use crate::shape::HostTensor;

/// The prefix of the names of hyper-parameters among the inputs: `optimizer.beta1`.
pub(super) const HYPERPARAMETER_PREFIX: &str = "optimizer.";

/// The inputs of a step that are not tensors of the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalars<'a> {
    /// The learning rate of the step.
    pub learning_rate: f64,
    /// For bias correction, from 1.
    pub optimizer_step: u64,
    /// For dropout: the number of the step in the run, from 0.
    pub step: u64,
    /// The seed of the run.
    pub seed: u64,
    /// The number in the global batch of the first row of the batch at hand.
    pub first_row: usize,
    /// The numbers of the optimizer.
    pub hyperparameters: &'a Hyperparameters,
}

impl<'a> Scalars<'a> {
    /// The scalars of programs without update and without dropout, which read none of them.
    pub const FORWARD: Scalars<'static> = Scalars {
        learning_rate: 0.0,
        optimizer_step: 1,
        step: 0,
        seed: 0,
        first_row: 0,
        hyperparameters: &Hyperparameters::NONE,
    };

    /// Returns the scalars of step `step` of a run with seed `seed` and an optimizer with `hyperparameters`, for a batch that
    /// begins at row `first_row`.
    pub fn new(
        plan: &StepPlan,
        step: u64,
        seed: u64,
        first_row: usize,
        hyperparameters: &'a Hyperparameters,
    ) -> Scalars<'a> {
        let StepPlan { learning_rate, optimizer_step, .. } = *plan;
        Scalars { learning_rate, optimizer_step, step, seed, first_row, hyperparameters }
    }
}

/// The inputs of one step on the replicas of a host, which divide the rows of the batch among themselves in order.
#[derive(Clone, Copy, Debug)]
pub struct StepInputs<'a> {
    /// The batch.
    pub batch: &'a HostBatch,
    /// The scalar arguments.
    pub scalars: Scalars<'a>,
    /// Replicas of this host.
    pub replicas: usize,
}

impl StepInputs<'_> {
    /// Returns the value of `input` for replica `replica` of this host.
    ///
    /// # Errors
    /// If neither the batch nor the scalars have an input of that name and shape, or a number does not fit its type.
    pub fn tensor(&self, input: &Value, replica: usize) -> anyhow::Result<Arc<HostTensor>> {
        let rows = self.batch.rows / self.replicas;
        let tensor = match input.role {
            Role::Batch if self.replicas == 1 => self.batch_tensor(&input.name)?.clone(),
            Role::Batch => Arc::new(self.batch_tensor(&input.name)?.rows(replica * rows, rows)),
            _ => Arc::new(self.scalar(input, self.scalars.first_row + replica * (rows - self.batch.spare_rows))?),
        };
        ensure!(*tensor.shape() == input.shape, "{} requires {}, got {}", input.name, input.shape, tensor.shape());
        Ok(tensor)
    }

    fn batch_tensor(&self, name: &str) -> anyhow::Result<&Arc<HostTensor>> {
        self.batch.tensor(name).with_context(|| format!("the batch has no tensor {name:?}, which the program requires"))
    }

    fn scalar(&self, input: &Value, first_row: usize) -> anyhow::Result<HostTensor> {
        let Scalars { learning_rate, optimizer_step, step, seed, hyperparameters, .. } = self.scalars;
        let hyperparameter = |name: &str| hyperparameters.get(name.strip_prefix(HYPERPARAMETER_PREFIX)?);
        Ok(match input.name.as_str() {
            "learning_rate" => HostTensor::from_f64(input.shape.clone(), &[learning_rate]),
            "optimizer_step" => HostTensor::scalar(i32::try_from(optimizer_step)?),
            "step" => HostTensor::scalar(u32::try_from(step)?),
            "first_row" => HostTensor::scalar(u32::try_from(first_row)?),
            "seed" => HostTensor::new([2], &[seed as u32, (seed >> 32) as u32]),
            name => match hyperparameter(name) {
                Some(value) => HostTensor::from_f64(input.shape.clone(), &[value]),
                None => anyhow::bail!("the program requires an unknown scalar {name:?}"),
            },
        })
    }
}
