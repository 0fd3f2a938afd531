//! The fused step: forward pass, backward pass and optimizer as one computation.
//!
//! ```text
//! denominators ← all-reduce(Σ over the replica's rows)
//! for each micro-batch:  gradients += ∇ Σ (sum / denominator)             (a loop if there are several; in f32)
//! gradients ← all-reduce(gradients);  weights, state ← optimizer, or unchanged if a gradient is not finite
//! ```
//! A step may keep an average of the weights too ([`crate::optim::ema`]), as the last kind of state.
//! All gradients share one all-reduce. If the optimizer is sharded ([`super::Parallel`]), each replica holds a shard of every
//! weight and of its optimizer state, and the all-reduce is split into a reduce-scatter and the all-gather of the next
//! step:
//!
//! ```text
//! weights ← all-gather(shards, rounded as the model reads them);   the loop, as above
//! gradients ← reduce-scatter(gradients);   shards ← optimizer, its norms summed over replicas
//! ```
//! [`TrainStep`] is all of it, [`GradientStep`] all but the update; `loss_and_grads.rs` has the loop, and `eval_step.rs`
//! the programs without gradients.

use anyhow::{Context, Result};

use super::inputs::HYPERPARAMETER_PREFIX;
use super::loss_and_grads::{dropout_key, vector};
use super::program::{Arguments, Program, Results, Role};
use super::sharding::Shards;
use super::spec::StepSpec;
use crate::graph::{Graph, Reduction, Tensor};
use crate::optim::{Optimizer, Placement, UpdateScalars, ema, global_norm};
use crate::shape::{DType, Shape};
use crate::task::ParamSpec;

/// One weight update.
///
/// Arguments: weights; state, all tensors of the first kind of [`StepSpec::state_names`], then all of the second (both of the
/// shape [`StepSpec::state_shape`]); `learning_rate`; `optimizer_step` s32, from 1, for bias correction; the optimizer's
/// [`Hyperparameters`](crate::optim::Hyperparameters), as `optimizer.beta1`; `step` u32, `first_row` u32 (number of the replica's
/// first row in the global batch) and `seed` u32\[2\], for dropout; then the batch. Results: weights
/// and optimizer state, which may reuse the memory of the arguments; `metrics` ([`crate::task::metric_names`]), of which the
/// loss and the task's ratios are those before the update; `trust_ratios` and `finite` (pred), an element for each parameter
/// tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainStep {
    /// The program.
    pub program: Program,
    /// The parameters, in the order of the arguments.
    pub params: Vec<ParamSpec>,
}

impl TrainStep {
    /// Builds the program.
    ///
    /// # Errors
    /// If the specification contradicts itself (see [`StepSpec::validate`]) or an optimizer's pattern matches no tensor.
    pub fn build(spec: &StepSpec) -> Result<TrainStep> {
        spec.validate()?;
        let params = spec.task.parameters();
        let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
        let optimizer = Optimizer::new(&spec.optimizer, &names).context("the optimizer does not fit the model")?;
        let (state_names, master) = (spec.state_names(), spec.precision.master());
        let shape = |param: &ParamSpec| spec.state_shape(param);
        let graph = Graph::new("train_step");
        let mut arguments = Arguments::new(&graph);
        let weights = arguments.weights(&params, shape);
        let state: Vec<_> = state_names.iter().map(|name| arguments.optimizer_state(name, &params, shape)).collect();
        let learning_rate = arguments.add("learning_rate", Role::Scalar, Shape::scalar(master));
        let count = arguments.add("optimizer_step", Role::Scalar, Shape::scalar(DType::S32)).convert(master);
        let scalars = UpdateScalars::new(learning_rate, count, spec.hyperparameters(), |name, _| {
            arguments.add(&format!("{HYPERPARAMETER_PREFIX}{name}"), Role::Scalar, Shape::scalar(master))
        });
        let key = dropout_key(&mut arguments);
        let step = key.step;
        let batch = arguments.batch(&spec.task.batch(), spec.rows);

        let replicated = graph.scope("gather", || spec.all_gathered(&params, &weights));
        let result = spec.loss_and_grads(&params, &replicated, key, &batch);
        let gradients = graph.scope("exchange", || spec.summed_gradients(&result.gradients, spec.shards()));
        let (of_optimizer, averages) = state.split_at(spec.optimizer.state_names().len());
        let state_of = |i: usize| of_optimizer.iter().map(|kind| kind[i]).collect();
        let state_by_tensor: Vec<Vec<Tensor>> = (0..params.len()).map(state_of).collect();
        let mut update = graph.scope("optimizer", || {
            let placement = if spec.shards().is_some() { Placement::Sharded } else { Placement::Replicated };
            optimizer.update(&weights, &gradients, &state_by_tensor, &scalars, placement)
        });
        if let [averages] = averages {
            graph.scope("ema", || {
                let share = ema::share(scalars.get(ema::ONE_MINUS_DECAY), step.convert(master));
                let tensors = update.state.iter_mut().zip(averages).zip(&update.weights);
                tensors.for_each(|((state, &average), &weight)| state.push(ema::update(average, weight, share)));
            });
        }
        let finite: Vec<Tensor> = update.gradient_norms.iter().map(|norm| norm.is_finite()).collect();
        // Test the global norm once: XLA would recompute an `and` over all tensors inside every update fusion.
        let all_finite = update.gradient_norm.is_finite();

        let mut results = Results::default();
        for (i, param) in params.iter().enumerate() {
            results.add(&param.name, Role::Weight, where_all(all_finite, update.weights[i], weights[i]));
        }
        for (s, kind) in state_names.iter().enumerate() {
            for (i, param) in params.iter().enumerate() {
                let name = format!("{kind}/{}", param.name);
                results.add(&name, Role::OptimizerState, where_all(all_finite, update.state[i][s], state[s][i]));
            }
        }
        let donated = (0..results.len()).map(|i| (i, i)).collect();
        results.add("metrics", Role::Report, result.metrics(spec, update.gradient_norm, all_finite));
        results.add("trust_ratios", Role::Report, vector(&update.trust_ratios));
        results.add("finite", Role::Report, vector(&finite));
        let program = Program::new(arguments, results, donated, spec.replicas);
        Ok(TrainStep { program, params })
    }
}

/// The gradients of one step's loss, without an update.
///
/// Arguments: weights (replicated, even if the specification shards the optimizer), `step`, `first_row`, `seed`, batch.
/// Results: a gradient `grad/<parameter>` for each weight, then `metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientStep {
    /// The program.
    pub program: Program,
    /// The parameters, in the order of the arguments.
    pub params: Vec<ParamSpec>,
}

impl GradientStep {
    /// Builds the program; the optimizer of `spec` plays no part.
    ///
    /// # Errors
    /// If the specification contradicts itself.
    pub fn build(spec: &StepSpec) -> Result<GradientStep> {
        spec.validate()?;
        let params = spec.task.parameters();
        let graph = Graph::new("gradient_step");
        let mut arguments = Arguments::new(&graph);
        let weights = arguments.weights(&params, |param| param.shape(spec.precision.master()));
        let key = dropout_key(&mut arguments);
        let batch = arguments.batch(&spec.task.batch(), spec.rows);
        let result = spec.loss_and_grads(&params, &weights, key, &batch);
        let gradients = spec.summed_gradients(&result.gradients, None);
        let gradient_norm = global_norm(Placement::Replicated.squared_norms(&gradients));
        let mut results = Results::default();
        for (param, &gradient) in params.iter().zip(&gradients) {
            results.add(&format!("grad/{}", param.name), Role::Gradient, gradient);
        }
        results.add("metrics", Role::Report, result.metrics(spec, gradient_norm, gradient_norm.is_finite()));
        Ok(GradientStep { program: Program::new(arguments, results, Vec::new(), spec.replicas), params })
    }
}

impl StepSpec {
    /// Appends the all-gather of sharded weights. Weights that the model rounds anyway are rounded before it: the same
    /// numbers, in half the bytes.
    fn all_gathered<'g>(&self, params: &[ParamSpec], weights: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let Some(shards) = self.shards() else { return weights.to_vec() };
        let read = params.iter().zip(weights).map(|(param, shard)| shard.convert(param.read_dtype(self.precision)));
        let shapes: Vec<Shape> = params.iter().map(|param| param.shape(self.precision.master())).collect();
        shards.all_gather(&read.collect::<Vec<_>>(), &shapes)
    }

    /// Appends the sum of the gradients over replicas: one all-reduce, or one reduce-scatter that leaves each replica its
    /// shard.
    fn summed_gradients<'g>(&self, gradients: &[Tensor<'g>], shards: Option<Shards>) -> Vec<Tensor<'g>> {
        if self.replicas == 1 {
            return gradients.to_vec();
        }
        let accumulated = self.precision.master();
        let sent_as = self.parallel.gradient_reduce_dtype.dtype(accumulated);
        let sent: Vec<Tensor<'g>> = gradients.iter().map(|gradient| gradient.convert(sent_as)).collect();
        let sums = match shards {
            None => gradients[0].graph().all_reduce(&sent, Reduction::Sum),
            Some(shards) => shards.reduce_scatter(&sent),
        };
        sums.into_iter().map(|sum| sum.convert(accumulated)).collect()
    }
}

/// Appends `new` if the pred scalar is true, else `old`.
fn where_all<'g>(predicate: Tensor<'g>, new: Tensor<'g>, old: Tensor<'g>) -> Tensor<'g> {
    predicate.broadcast_like(old, &[]).select(new, old)
}
