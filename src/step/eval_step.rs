//! The programs without gradients: [`EvalStep`] for numbers that are averaged over many batches, [`ForwardStep`] for the
//! outputs of the model on one batch.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::loss_and_grads::vector;
use super::program::{Arguments, Program, Results, Role};
use crate::graph::{Graph, Tensor};
use crate::task::{Model, ParamSpec, Precision, Task};

/// The loss and metrics of a task over `rows` rows, without dropout.
#[derive(Clone, Debug)]
pub struct EvalSpec {
    /// The task.
    pub task: Arc<dyn Task>,
    /// The precision of the matrix products.
    pub precision: Precision,
    /// Rows of one replica.
    pub rows: usize,
    /// Replicas run the same program on batches of their own and do not communicate.
    pub replicas: usize,
    /// The outputs of the model for each row are results too.
    pub outputs: bool,
}

impl PartialEq for EvalSpec {
    /// Compares tasks by their identity.
    fn eq(&self, other: &EvalSpec) -> bool {
        let fields = |spec: &EvalSpec| {
            let EvalSpec { task, precision, rows, replicas, outputs } = spec.clone();
            (task.identity(), precision, rows, replicas, outputs)
        };
        fields(self) == fields(other)
    }
}

/// The outputs of a model for `rows` rows.
#[derive(Clone, Debug)]
pub struct ForwardSpec {
    /// The model.
    pub model: Arc<dyn Model>,
    /// The precision of the matrix products.
    pub precision: Precision,
    /// Rows of one replica.
    pub rows: usize,
    /// Replicas run the same program on batches of their own and do not communicate.
    pub replicas: usize,
}

/// The sums of one batch. Arguments: weights, batch. Results: `sums`, the numerators of the task's ratios and then its
/// denominators; with [`EvalSpec::outputs`] also [`Model::outputs`]. They are sums and not means so that batches and replicas add up; rows of padding count in none of them.
#[derive(Clone, Debug, PartialEq)]
pub struct EvalStep {
    /// The program.
    pub program: Program,
    /// The parameters, in the order of the arguments.
    pub params: Vec<ParamSpec>,
}

/// The outputs of the model on one batch. Arguments: weights, batch. Results: [`Model::outputs`].
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardStep {
    /// The program.
    pub program: Program,
    /// The parameters, in the order of the arguments.
    pub params: Vec<ParamSpec>,
}

impl EvalStep {
    /// Builds the program.
    ///
    /// # Errors
    /// If the specification contradicts itself.
    pub fn build(spec: &EvalSpec) -> Result<EvalStep> {
        let EvalSpec { task, precision, rows, replicas, outputs } = spec;
        let forward = ForwardSpec { model: task.clone(), precision: *precision, rows: *rows, replicas: *replicas };
        let (program, params) = forward.build("eval_step", |weights, batch, results| {
            let mut sums = task.sums(weights, batch, *precision, None);
            sums.extend(task.denominator_sums(batch, precision.master()));
            results.add("sums", Role::Report, vector(&sums));
            if *outputs {
                for (name, output) in task.outputs(weights, batch, *precision) {
                    results.add(name, Role::Batch, output);
                }
            }
        })?;
        Ok(EvalStep { program, params })
    }
}

impl ForwardStep {
    /// Builds the program.
    ///
    /// # Errors
    /// If the specification contradicts itself.
    pub fn build(spec: &ForwardSpec) -> Result<ForwardStep> {
        let (program, params) = spec.build("forward_step", |weights, batch, results| {
            for (name, output) in spec.model.outputs(weights, batch, spec.precision) {
                results.add(name, Role::Batch, output);
            }
        })?;
        Ok(ForwardStep { program, params })
    }
}

impl ForwardSpec {
    fn build(
        &self,
        name: &str,
        body: impl for<'g> FnOnce(&[Tensor<'g>], &[Tensor<'g>], &mut Results<'g>),
    ) -> Result<(Program, Vec<ParamSpec>)> {
        ensure!(self.rows > 0 && self.replicas > 0, "rows and replicas require at least 1, got 0");
        self.model.validate(self.rows)?;
        let params = self.model.parameters();
        let graph = Graph::new(name);
        let mut arguments = Arguments::new(&graph);
        let weights = arguments.weights(&params, |param| param.shape(self.precision.master()));
        let batch = arguments.batch(&self.model.batch(), self.rows);
        let mut results = Results::default();
        body(&weights, &batch, &mut results);
        Ok((Program::new(arguments, results, Vec::new(), self.replicas), params))
    }
}
