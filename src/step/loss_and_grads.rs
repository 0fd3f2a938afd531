//! Loss and gradients of one step: the micro-batch loop, with denominators over the global batch.
//!
//! The loss is a ratio over the **global** batch (see [`Task`]). Its denominators are summed over all rows of all
//! replicas before the first micro-batch, so that every micro-batch adds its share of the one loss, and the update does not
//! depend on how the batch is split.

use super::program::{Arguments, Role};
use super::spec::StepSpec;
use crate::autodiff::gradients;
use crate::graph::{Reduction, Tensor};
use crate::shape::{DType, Shape};
use crate::task::{DropoutKey, ParamSpec};

/// The sums over all micro-batches of a step.
pub(super) struct LossAndGrads<'g> {
    /// The gradients over the replica's own rows, before the reduction over replicas.
    pub gradients: Vec<Tensor<'g>>,
    /// The numerators of the task's ratios over the global batch.
    sums: Vec<Tensor<'g>>,
    /// The task's denominators over the global batch; 1 if the denominator is 0.
    denominators: Vec<Tensor<'g>>,
}

/// The inputs that key dropout.
pub(super) fn dropout_key<'g>(arguments: &mut Arguments<'g>) -> DropoutKey<'g> {
    let scalar = Shape::scalar(DType::U32);
    let step = arguments.add("step", Role::Scalar, scalar.clone());
    let first_row = arguments.add("first_row", Role::Scalar, scalar);
    DropoutKey { step, first_row, seed: arguments.add("seed", Role::Scalar, Shape::new(DType::U32, [2])) }
}

impl<'g> LossAndGrads<'g> {
    /// Returns the elements of the result `metrics`, in the order of [`crate::task::metric_names`].
    pub fn metrics(&self, spec: &StepSpec, gradient_norm: Tensor<'g>, all_finite: Tensor<'g>) -> Tensor<'g> {
        let ratios = spec.task.ratios();
        let of = |in_loss: bool| {
            let chosen = ratios.iter().zip(&self.sums).filter(move |(ratio, _)| ratio.kind.is_loss() == in_loss);
            chosen.map(|(ratio, &sum)| sum / self.denominators[ratio.denominator]).collect::<Vec<_>>()
        };
        let terms = of(true);
        let mut metrics = vec![sum_of(&terms)];
        metrics.extend(terms);
        metrics.extend(of(false));
        metrics.extend([gradient_norm, all_finite.not().convert(gradient_norm.dtype())]);
        vector(&metrics)
    }
}

impl StepSpec {
    /// Appends the gradients of the global loss with respect to `weights` on the replica's rows, and the sums that the
    /// metrics are computed from. `weights` are replicated tensors of the types that the model reads them in, or wider.
    pub(super) fn loss_and_grads<'g>(
        &self,
        params: &[ParamSpec],
        weights: &[Tensor<'g>],
        key: DropoutKey<'g>,
        batch: &[Tensor<'g>],
    ) -> LossAndGrads<'g> {
        let denominators = self.denominators(batch);
        let (gradients, sums) = match self.accumulation_steps {
            1 => self.micro_batch(weights, key, batch, &denominators),
            _ => self.micro_batch_loop(params, weights, key, batch, &denominators),
        };
        LossAndGrads { gradients, sums: self.sum_over_replicas(&sums), denominators }
    }

    fn denominators<'g>(&self, batch: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let local = self.task.denominator_sums(batch, self.precision.master());
        let sums = self.sum_over_replicas(&local).into_iter();
        sums.map(|sum| sum.gt(sum.filled(0.0)).select(sum, sum.filled(1.0))).collect()
    }

    /// Appends one micro-batch's share of the gradients, and its sums in the order of [`crate::task::Task::ratios`].
    fn micro_batch<'g>(
        &self,
        weights: &[Tensor<'g>],
        key: DropoutKey<'g>,
        batch: &[Tensor<'g>],
        denominators: &[Tensor<'g>],
    ) -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>) {
        // Gradients have the type of these, so they are not rounded where a weight was.
        let weights: Vec<Tensor> = weights.iter().map(|weight| weight.convert(self.precision.master())).collect();
        let sums = self.task.sums(&weights, batch, self.precision, self.dropout.then_some(key));
        let ratios = self.task.ratios().iter().zip(&sums).filter(|(ratio, _)| ratio.kind.is_loss());
        let terms: Vec<Tensor> = ratios.map(|(ratio, &sum)| sum / denominators[ratio.denominator]).collect();
        (gradients(sum_of(&terms), &weights), sums)
    }

    /// Appends a loop of [`StepSpec::micro_batch`] over the micro-batches of the batch, which adds up their results: over
    /// all of them, or, for tasks with [`crate::task::Task::occupied_rows`], over those that hold an example.
    ///
    /// The state of the loop is (micro-batch number; constants: weights, batch, key, denominators; sums: gradients, sums).
    fn micro_batch_loop<'g>(
        &self,
        params: &[ParamSpec],
        weights: &[Tensor<'g>],
        key: DropoutKey<'g>,
        batch: &[Tensor<'g>],
        denominators: &[Tensor<'g>],
    ) -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>) {
        let graph = batch[0].graph();
        let (all, rows) = (self.accumulation_steps as f64, self.rows / self.accumulation_steps);
        let occupied = self.task.occupied_rows(batch).map(|occupied| self.occupied_micro_batches(occupied, rows));
        let zero = graph.scalar(0.0, self.precision.master());
        let mut initial = vec![graph.scalar(0.0, DType::S32)];
        // Rounded before the loop, not in every iteration.
        let read = params.iter().zip(weights).map(|(param, weight)| weight.convert(param.read_dtype(self.precision)));
        initial.extend(read);
        initial.extend(batch);
        initial.extend([key.step, key.first_row, key.seed]);
        initial.extend(denominators);
        initial.extend(occupied);
        let constants = initial.len();
        initial.extend(params.iter().map(|param| graph.full(0.0, param.shape(zero.dtype()))));
        initial.extend(self.task.ratios().iter().map(|_| zero));

        let last = graph.while_loop(
            "micro_batches",
            &initial,
            |_, state| match occupied {
                None => state[0].lt(state[0].filled(all)),
                Some(_) => state[0].lt(state[constants - 1]),
            },
            |_, state| {
                let (number, rest) = (state[0], &state[1..]);
                let (weights, rest) = rest.split_at(params.len());
                let (batch, rest) = rest.split_at(batch.len());
                let start = number * rows as f64;
                let batch: Vec<Tensor> = batch.iter().map(|&tensor| rows_from(tensor, start, rows)).collect();
                let first_row = rest[1] + start.convert(DType::U32);
                let key = DropoutKey { step: rest[0], first_row, seed: rest[2] };
                let denominators = &rest[3..3 + denominators.len()];
                let (gradients, sums) = self.micro_batch(weights, key, &batch, denominators);
                let shares = gradients.into_iter().chain(sums);
                let sums = state[constants..].iter().zip(shares).map(|(&sum, share)| sum + share);
                std::iter::once(number + 1.0).chain(state[1..constants].iter().copied()).chain(sums).collect()
            },
        );
        let (gradients, sums) = last[constants..].split_at(params.len());
        (gradients.to_vec(), sums.to_vec())
    }

    /// Appends the number of micro-batches of `rows` rows up to the last occupied row (pred\[B\]), on the replica that has
    /// most: s32.
    fn occupied_micro_batches<'g>(&self, occupied: Tensor<'g>, rows: usize) -> Tensor<'g> {
        let row = occupied.graph().iota(occupied.shape().with_dtype(DType::S32), 0);
        let end = occupied.select(row + 1.0, row.filled(0.0)).reduce_max(&[0]);
        let micro_batches = (end + (rows - 1) as f64) / end.filled(rows as f64);
        if self.replicas == 1 { micro_batches } else { micro_batches.all_reduce(Reduction::Max) }
    }

    /// Appends the sum over replicas of each scalar, in one all-reduce.
    fn sum_over_replicas<'g>(&self, scalars: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        if self.replicas == 1 {
            return scalars.to_vec();
        }
        let sums = vector(scalars).all_reduce(Reduction::Sum);
        (0..scalars.len()).map(|i| sums.slice(&[i], &[i + 1], &[1]).reshape(&[])).collect()
    }
}

/// Appends `rows` rows of `x` from row `start` (s32 scalar).
fn rows_from<'g>(x: Tensor<'g>, start: Tensor<'g>, rows: usize) -> Tensor<'g> {
    let mut sizes = x.dims();
    let mut starts = vec![start.filled(0.0); sizes.len()];
    (sizes[0], starts[0]) = (rows, start);
    x.dynamic_slice(&starts, &sizes)
}

/// Appends the sum of at least one tensor.
fn sum_of<'g>(terms: &[Tensor<'g>]) -> Tensor<'g> {
    terms.iter().copied().reduce(|sum, term| sum + term).expect("a loss has at least one term")
}

/// Appends scalars of one type as a vector.
pub(super) fn vector<'g>(scalars: &[Tensor<'g>]) -> Tensor<'g> {
    let elements: Vec<Tensor<'g>> = scalars.iter().map(|x| x.reshape(&[1])).collect();
    elements[0].graph().concatenate(&elements, 0)
}
