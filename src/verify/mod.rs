//! Comparison of this build with a [`ReferenceCase`]: forward pass, every gradient by name, the trajectory of every optimizer
//! and its final weights.
//!
//! The error of a tensor is ‖found − expected‖ / ‖expected‖, with two floors for tensors whose true values are almost zero
//! (softmax is invariant to the bias of the keys, so its gradient is rounding error): the norm of a gradient counts as at
//! least 10⁻³ of the global norm, the norm of a weight as at least 10⁻² of the square root of its number of elements. The
//! tolerance of a final weight includes what an accepted error of its first gradient becomes when the optimizer divides by the
//! size of the gradient (`check.rs`). The error of a loss is |found − expected|, the largest over the steps.
//!
//! A batch that devices × micro-batches do not divide is padded with rows behind its last row. By the definition of the step
//! they have no effect, and the rows before them keep their numbers, which key dropout.

mod check;
mod dropout;
pub mod kernels;
pub mod reference;
mod splits;

use std::sync::Arc;

use anyhow::Result;

pub use self::check::{Check, Quantity};
use self::check::{GRADIENT_FLOOR, Tolerances, distance, length, reach, worse};
pub use self::dropout::losses as dropout_losses;
pub use self::splits::{Split, SplitChecks, verify_splits};
use crate::batch::HostBatch;
use crate::batch::pretraining::RowForm;
use crate::bert::{BertPretraining, Kernels, Layers, Recompute};
use crate::optim::{Hyperparameters, Optimizer, OptimizerConfig, Treatment};
use crate::runtime::backend::Backend;
use crate::shape::HostTensor;
use crate::step::eval_step::{ForwardSpec, ForwardStep};
use crate::step::parallel::Parallel;
use crate::step::program::{Program, Role};
use crate::step::sharding::Shards;
use crate::step::{GradientStep, StepSpec, TrainStep};
use crate::step::{Scalars, StepInputs};
use crate::task::{Model, Precision, metric_names};
use crate::verify::reference::{ReferenceCase, Row, Trajectory};

/// The seed of dropout.
const SEED: u64 = 12_439;

/// The configuration of the computation.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The precision of the matrix products.
    pub precision: Precision,
    /// Micro-batches that each replica splits its rows into.
    pub micro_batches: usize,
    /// The activations that the backward pass recomputes.
    pub recompute: Recompute,
    /// The form of the encoder's layers.
    pub layers: Layers,
    /// Shard weights and optimizer state over the replicas.
    pub shard_optimizer: bool,
    /// End every trajectory after so many steps, without comparing final weights.
    pub steps: Option<usize>,
    /// Compare the trajectory of this optimizer only.
    pub optimizer: Option<String>,
}

/// Makes all comparisons, and calls `report` with each.
///
/// # Errors
/// If the backend fails. A miss is not an error.
pub fn verify<E: Backend>(
    case: &ReferenceCase,
    backend: &E,
    options: &VerifyOptions,
    mut report: impl FnMut(&Check),
) -> Result<Vec<Check>> {
    let verification = Verification::new(case, backend, options);
    let mut checks = Vec::new();
    let mut add = |found: Vec<Check>| {
        found.iter().for_each(&mut report);
        checks.extend(found);
    };
    add(verification.forward()?);
    add(verification.gradients()?);
    let selected = |t: &&Trajectory| options.optimizer.as_ref().is_none_or(|name| *name == t.name);
    for trajectory in case.trajectories.iter().filter(selected) {
        add(verification.trajectory(trajectory)?);
    }
    Ok(checks)
}

struct Verification<'a, E: Backend> {
    case: &'a ReferenceCase,
    backend: &'a E,
    options: &'a VerifyOptions,
    tolerances: Tolerances,
}

impl<'a, E: Backend> Verification<'a, E> {
    fn new(case: &'a ReferenceCase, backend: &'a E, options: &'a VerifyOptions) -> Self {
        Verification { case, backend, options, tolerances: Tolerances::of(options.precision) }
    }

    /// Returns the rows of each replica, padding included.
    fn rows(&self) -> usize {
        let split = Split { devices: self.backend.replicas(), micro_batches: self.options.micro_batches };
        let (rows, ..) = self.case.batch_form();
        (rows + split.padding(rows)) / split.devices
    }

    fn forward(&self) -> Result<Vec<Check>> {
        let spec = ForwardSpec {
            model: Arc::new(self.task()),
            precision: self.options.precision,
            rows: self.rows(),
            replicas: self.backend.replicas(),
        };
        let program = ForwardStep::build(&spec)?.program;
        let outputs = self.run_once(&program)?;
        let expected = [&self.case.sequence_output, &self.case.masked_lm_logits, &self.case.seq_relationship_logits];
        let mut checks = Vec::new();
        for (i, (value, expected)) in program.outputs.iter().zip(expected).enumerate() {
            // Replicas have consecutive rows.
            let mut found = Vec::new();
            for replica in &outputs {
                found.extend(self.backend.get(&replica[i])?);
            }
            let expected = expected.to_f64();
            // The outputs for rows of padding are ignored.
            found.truncate(expected.len());
            let error = distance(&found, &expected) / length(&expected);
            checks.push(Check::new(Quantity::Forward, "forward", &value.name, error, self.tolerances.forward));
        }
        Ok(checks)
    }

    fn gradients(&self) -> Result<Vec<Check>> {
        let case = self.case;
        let program = GradientStep::build(&self.spec(self.task(), &OptimizerConfig::default()))?.program;
        let outputs = self.run_once(&program)?;
        let expected: Vec<Vec<f64>> = case.gradients.iter().map(HostTensor::to_f64).collect();
        let all = expected.iter().map(|g| length(g).powi(2)).sum::<f64>().sqrt();
        let mut checks = Vec::new();
        for (i, (param, expected)) in case.params.iter().zip(&expected).enumerate() {
            let found = self.backend.get(&outputs[0][i])?;
            let error = distance(&found, expected) / length(expected).max(GRADIENT_FLOOR * all);
            checks.push(Check::new(Quantity::Gradient, "gradient", &param.name, error, self.tolerances.gradient));
        }
        Ok(checks)
    }

    fn trajectory(&self, trajectory: &Trajectory) -> Result<Vec<Check>> {
        let case = self.case;
        let rows = &trajectory.rows[..self.options.steps.unwrap_or(usize::MAX).min(trajectory.rows.len())];
        let rates: Vec<f64> = rows.iter().map(|row| row.lr).collect();
        let mut worst = Worst::default();
        let names = metric_names(&self.task());
        let spec = self.spec(self.task(), &trajectory.optimizer);
        let state = self.steps(&spec, &rates, |t, metrics| worst.see(&rows[t], &names, metrics, &case.batches[t]))?;
        // A weight is that of any replica, or the shards of all.
        let holders = spec.shards().map_or(1, |shards| shards.count);
        let mut checks = worst.checks(&trajectory.name, &self.tolerances);
        if let (Some(expected), None) = (&trajectory.final_weights, self.options.steps) {
            let magnified = self.magnified_errors(&trajectory.optimizer, &rates)?;
            for (i, (param, expected)) in case.params.iter().zip(expected).enumerate() {
                let mut found = Vec::new();
                for holder in &state[..holders] {
                    found.extend(self.backend.get(&holder[i])?);
                }
                let expected = expected.to_f64();
                let size = length(&expected).max(1e-2 * (expected.len() as f64).sqrt());
                let (error, tolerance) =
                    (distance(&found, &expected) / size, self.tolerances.weights + magnified[i] / size);
                let name = format!("final {}", param.name);
                checks.push(Check::new(Quantity::Weight, &trajectory.name, name, error, tolerance));
            }
        }
        Ok(checks)
    }

    /// Returns the error of each final weight that an accepted error of its gradient causes, after steps with the learning rates
    /// `rates`.
    fn magnified_errors(&self, optimizer: &OptimizerConfig, rates: &[f64]) -> Result<Vec<f64>> {
        let case = self.case;
        let names: Vec<&str> = case.params.iter().map(|param| param.name.as_str()).collect();
        let optimizer = Optimizer::new(optimizer, &names)?;
        let gradients: Vec<f64> = case.gradients.iter().map(|gradient| length(&gradient.to_f64())).collect();
        let global = length(&gradients);
        let of_tensor = |(i, treatment): (usize, &Treatment)| {
            let weight = case.weights[i].to_f64();
            let rule = optimizer.config().rule();
            let reach = reach(rule, treatment.adapted, rates, length(&weight), weight.len());
            self.tolerances.magnified(gradients[i], global, reach)
        };
        Ok(optimizer.treatments().iter().enumerate().map(of_tensor).collect())
    }

    /// Runs the step of `spec` on consecutive batches, one for each of `rates`, from the initial weights of the case. Calls
    /// `see` with the number (from 0) and the metrics of each step. Returns the state of every replica after the last.
    fn steps(&self, spec: &StepSpec, rates: &[f64], mut see: impl FnMut(usize, &[f64])) -> Result<Vec<Vec<E::Array>>> {
        let backend = self.backend;
        let step = TrainStep::build(spec)?.program;
        let numbers = spec.hyperparameters();
        let executable = backend.load(&step)?;
        let state_size = step.inputs_of(Role::Weight).len() + step.inputs_of(Role::OptimizerState).len();
        let metrics_at = step.output("metrics").unwrap_or(state_size);
        let mut state = self.on_every_replica(|replica| self.initial_state(&step, replica))?;
        for (t, &rate) in rates.iter().enumerate() {
            let others = self.on_every_replica(|replica| self.other_arguments(&step, t, rate, &numbers, replica))?;
            let arguments: Vec<Vec<&E::Array>> =
                state.iter().zip(&others).map(|(state, others)| state.iter().chain(others).collect()).collect();
            let mut outputs = backend.run(&executable, &arguments)?;
            see(t, &backend.get(&outputs[0][metrics_at])?);
            outputs.iter_mut().for_each(|replica| replica.truncate(state_size));
            state = outputs;
        }
        Ok(state)
    }

    fn task(&self) -> BertPretraining {
        let (_, sequence_length, max_predictions) = self.case.batch_form();
        BertPretraining {
            model: self.case.config.clone(),
            rows: RowForm { sequence_length, max_predictions, sequences_per_row: 1 },
            spare_rows: false,
            sentence_pairs: true,
            recompute: self.options.recompute,
            layers: self.options.layers,
            kernels: Kernels::default(),
        }
    }

    fn spec(&self, task: BertPretraining, optimizer: &OptimizerConfig) -> StepSpec {
        StepSpec {
            task: Arc::new(task),
            optimizer: optimizer.clone(),
            precision: self.options.precision,
            rows: self.rows(),
            accumulation_steps: self.options.micro_batches,
            replicas: self.backend.replicas(),
            parallel: Parallel { shard_optimizer: self.options.shard_optimizer, ..Parallel::default() },
            dropout: false,
            ema_decay: None,
        }
    }

    /// Runs a program without optimizer state on batch 0.
    fn run_once(&self, program: &Program) -> Result<Vec<Vec<E::Array>>> {
        let executable = self.backend.load(program)?;
        let arguments = self.on_every_replica(|replica| {
            let mut arguments = self.initial_state(program, replica)?;
            arguments.extend(self.other_arguments(program, 0, 0.0, &Hyperparameters::NONE, replica)?);
            Ok(arguments)
        })?;
        let arguments: Vec<Vec<&E::Array>> = arguments.iter().map(|replica| replica.iter().collect()).collect();
        self.backend.run(&executable, &arguments)
    }

    fn on_every_replica<T>(&self, make: impl Fn(usize) -> Result<T>) -> Result<Vec<T>> {
        (0..self.backend.replicas()).map(make).collect()
    }

    /// Returns the initial weights, and optimizer state of zeros.
    fn initial_state(&self, program: &Program, replica: usize) -> Result<Vec<E::Array>> {
        let mut arrays = Vec::new();
        let taken = program.inputs.iter().map(|value| &value.shape);
        for ((param, weight), taken) in self.case.params.iter().zip(&self.case.weights).zip(taken) {
            let padded = param.pad(weight);
            let shape = padded.shape().with_dtype(self.options.precision.master());
            let unsharded = HostTensor::from_f64(shape, &padded.to_f64());
            let shard = match unsharded.shape() == taken {
                true => unsharded,
                false => Shards { count: self.backend.replicas() }.shard(&unsharded, replica),
            };
            arrays.push(self.backend.put(&shard, replica)?);
        }
        for slot in program.inputs_of(Role::OptimizerState) {
            arrays.push(self.backend.put(&HostTensor::zeros(program.inputs[slot].shape.clone()), replica)?);
        }
        Ok(arrays)
    }

    /// Returns the step's inputs of one replica for batch `t`, in the order of the program.
    fn other_arguments(
        &self,
        program: &Program,
        t: usize,
        learning_rate: f64,
        hyperparameters: &Hyperparameters,
        replica: usize,
    ) -> Result<Vec<E::Array>> {
        let rows = self.rows();
        let batch = HostBatch {
            rows,
            tensors: self.batch_rows(t, replica * rows, rows),
            row_length: self.task().rows.sequence_length,
            tokens: 0,
            occupied_rows: rows,
            spare_rows: 0,
        };
        let scalars = Scalars {
            learning_rate,
            optimizer_step: t as u64 + 1,
            step: t as u64,
            seed: SEED,
            first_row: replica * rows,
            hyperparameters,
        };
        let inputs = StepInputs { batch: &batch, scalars, replicas: 1 };
        let values = program.inputs.iter().filter(|v| !matches!(v.role, Role::Weight | Role::OptimizerState));
        values.map(|value| self.backend.put(&*inputs.tensor(value, 0)?, replica)).collect()
    }

    /// Returns `rows` rows of batch `t` from row `start` on, padded with rows of zeros: no token, no masked position.
    fn batch_rows(&self, t: usize, start: usize, rows: usize) -> Vec<(&'static str, Arc<HostTensor>)> {
        let names = self.task().batch().tensors.into_iter().map(|tensor| tensor.name);
        names.zip(self.case.batches[t].iter().map(|tensor| Arc::new(tensor.rows(start, rows)))).collect()
    }
}

/// The largest errors along a trajectory.
#[derive(Default)]
struct Worst {
    loss: f64,
    mlm_loss: f64,
    nsp_loss: f64,
    mlm_accuracy: f64,
    grad_norm: f64,
    /// The largest weight of one masked position in the accuracy.
    one_prediction: f64,
}

impl Worst {
    fn see(&mut self, row: &Row, names: &[&str], metrics: &[f64], batch: &[HostTensor; 7]) {
        let found = |name: &str| names.iter().position(|own| *own == name).map_or(f64::NAN, |i| metrics[i]);
        let larger = |worst: &mut f64, error: f64| *worst = worse(*worst, error);
        larger(&mut self.loss, (found("loss") - row.loss).abs());
        larger(&mut self.mlm_loss, (found("mlm_loss") - row.mlm_loss).abs());
        larger(&mut self.nsp_loss, (found("nsp_loss") - row.nsp_loss).abs());
        larger(&mut self.mlm_accuracy, (found("mlm_accuracy") - row.mlm_accuracy).abs());
        larger(&mut self.grad_norm, (found("grad_norm") - row.grad_norm).abs() / row.grad_norm.max(1e-12));
        larger(&mut self.one_prediction, 1.0 / batch[5].to_f64().iter().sum::<f64>().max(1.0));
    }

    fn checks(&self, group: &str, tolerances: &Tolerances) -> Vec<Check> {
        vec![
            Check::new(Quantity::Loss, group, "loss", self.loss, tolerances.loss),
            Check::new(Quantity::Loss, group, "mlm_loss", self.mlm_loss, tolerances.loss),
            Check::new(Quantity::Loss, group, "nsp_loss", self.nsp_loss, tolerances.loss),
            // Two logits may be equal up to rounding, so that one prediction may differ.
            Check::new(Quantity::Accuracy, group, "mlm_accuracy", self.mlm_accuracy, self.one_prediction * 1.001),
            Check::new(Quantity::GradientNorm, group, "grad_norm", self.grad_norm, tolerances.gradient_norm),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{DType, Shape};

    #[test]
    fn nan_of_one_step_is_kept() {
        let row = Row { lr: 0.1, loss: 1.0, mlm_loss: 1.0, nsp_loss: 0.0, mlm_accuracy: 0.0, grad_norm: 1.0 };
        let batch: [HostTensor; 7] = std::array::from_fn(|_| HostTensor::zeros(Shape::new(DType::F32, [1, 1])));
        let mut worst = Worst::default();
        let names = ["loss", "mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "grad_norm", "skipped"];
        worst.see(&row, &names, &[f64::NAN; 7], &batch);
        worst.see(&row, &names, &[1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0], &batch);
        assert!(worst.loss.is_nan());
    }
}
