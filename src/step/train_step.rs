//! The fused step: forward pass, backward pass and optimizer as one computation, with the loss as the design defines it.
//!
//! The loss of a step is a ratio over the **global** batch: Σ w·nll / Σ w for the masked words, plus the mean over sequences
//! for the next sentence. Its denominators are summed over all rows of all replicas before the first micro-batch, so that every
//! micro-batch adds its share of the one loss, and the update does not depend on how the batch is cut:
//!
//! ```text
//! denominators ← all-reduce(Σ over the replica's rows)
//! for each micro-batch:  gradients += ∇(Σ w·nll / denominator + …)        (a loop if there are several; in f32)
//! gradients ← all-reduce(gradients);  weights, slots ← optimizer, or as they were if a gradient is not finite
//! ```
//! All gradients go through one exchange. If the optimizer is sharded ([`Parallel`]), each replica has its part of every
//! weight and slot, and the exchange is cut in two, of which the second half waits for the next step:
//!
//! ```text
//! weights ← all-gather(parts, rounded as the model reads them);     the loop, as above
//! gradients ← reduce-scatter(gradients);   parts ← optimizer, its norms summed over replicas
//! ```
//! [`TrainStep`] is all of it, [`GradientStep`] all but the update; the programs without gradients are in
//! `evaluation.rs`.

use anyhow::{Context, Result, ensure};

use super::parallel::Parallel;
use super::program::{Arguments, Program, Results, Role};
use super::sharding::Shards;
use crate::autodiff::gradients;
use crate::bert::{BatchForm, Bert, BertConfig, Dropout, Examples, ParamSpec, Precision, Recompute, Sums, param_specs};
use crate::graph::{Graph, Reduction, Tensor};
use crate::optim::{Optimizer, OptimizerConfig, Placement, global_norm};
use crate::shape::{DType, Shape};

/// Everything that a step's computation depends on. Equal specs give equal computations.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSpec {
    pub model: BertConfig,
    pub optimizer: OptimizerConfig,
    pub precision: Precision,
    pub sequence_length: usize,
    /// Slots for predictions in a row.
    pub predictions: usize,
    /// Sequences that a row holds at most; 1 if rows are not packed.
    pub sequences_per_row: usize,
    /// Rows that one replica takes in one step: micro-batches × rows of a micro-batch.
    pub rows: usize,
    /// Into how many slices, taken one after the other, a replica cuts its rows.
    pub micro_batches: usize,
    pub replicas: usize,
    pub parallel: Parallel,
    /// False leaves dropout out, whatever the model's probabilities are.
    pub dropout: bool,
    pub recompute: Recompute,
}

/// The elements of the result `metrics`, in order. Loss and accuracies are those before the update; `skipped` is 1 if
/// a gradient was not finite, so that nothing was updated.
pub const METRICS: [&str; 7] = ["loss", "mlm_loss", "nsp_loss", "mlm_accuracy", "nsp_accuracy", "grad_norm", "skipped"];

/// One weight update.
///
/// Arguments: weights; slots, all of the first kind, then all of the second (both as [`StepSpec::held_shape`] says);
/// `learning_rate`; `optimizer_step` s32, from 1, for bias correction; `step` u32, `first_row` u32 (number of the replica's
/// first row in the global batch) and `seed` u32\[2\], for dropout; then the batch. Results: weights and slots, which may
/// take the arguments' memory; `metrics` ([`METRICS`]); `trust_ratios` and `finite` (pred), an element for each parameter
/// tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainStep {
    pub program: Program,
    pub params: Vec<ParamSpec>,
}

impl TrainStep {
    /// # Errors
    /// If the spec contradicts itself (see [`StepSpec::validate`]) or an optimizer's pattern matches no tensor.
    pub fn build(spec: &StepSpec) -> Result<TrainStep> {
        spec.validate()?;
        let params = param_specs(&spec.model);
        let names: Vec<&str> = params.iter().map(|p| p.name.as_str()).collect();
        let optimizer = Optimizer::new(&spec.optimizer, &names).context("the optimizer does not fit the model")?;
        let (slot_names, master) = (spec.optimizer.state_names(), spec.precision.master());
        let held = |param: &ParamSpec| spec.held_shape(param);
        let graph = Graph::new("train_step");
        let mut arguments = Arguments::new(&graph);
        let weights = arguments.weights(&params, held);
        let slots: Vec<_> = slot_names.iter().map(|slot| arguments.slots(slot, &params, held)).collect();
        let learning_rate = arguments.add("learning_rate", Role::Scalar, Shape::scalar(master));
        let count = arguments.add("optimizer_step", Role::Scalar, Shape::scalar(DType::S32)).convert(master);
        let randomness = Randomness::arguments(&mut arguments);
        let batch = arguments.batch(spec.form());

        let whole = graph.scope("gather", || spec.gathered(&params, &weights));
        let derived = spec.derive(&params, &whole, randomness, &batch);
        let gradients = graph.scope("exchange", || spec.exchanged(&derived.gradients, spec.shards()));
        let slots_of = |i: usize| slots.iter().map(|slot| slot[i]).collect();
        let slots_by_tensor: Vec<Vec<Tensor>> = (0..params.len()).map(slots_of).collect();
        let update = graph.scope("optimizer", || {
            let placement = if spec.shards().is_some() { Placement::Sharded } else { Placement::Replicated };
            optimizer.update(&weights, &gradients, &slots_by_tensor, learning_rate, count, placement)
        });
        let finite: Vec<Tensor> = update.gradient_norms.iter().map(|norm| norm.is_finite()).collect();
        // By the one norm, not by the conjunction of all: a compiler takes that for cheap and repeats it in every update.
        let all_finite = update.gradient_norm.is_finite();

        let mut results = Results::default();
        for (i, param) in params.iter().enumerate() {
            results.add(&param.name, Role::Weight, where_all(all_finite, update.weights[i], weights[i]));
        }
        for (s, slot) in slot_names.iter().enumerate() {
            for (i, param) in params.iter().enumerate() {
                let name = format!("{slot}/{}", param.name);
                results.add(&name, Role::Slot, where_all(all_finite, update.state[i][s], slots[s][i]));
            }
        }
        let donated = (0..results.len()).map(|i| (i, i)).collect();
        results.add("metrics", Role::Report, derived.metrics(update.gradient_norm, all_finite));
        results.add("trust_ratios", Role::Report, vector(&update.trust_ratios));
        results.add("finite", Role::Report, vector(&finite));
        let program = Program::new(arguments, results, donated, spec.replicas);
        Ok(TrainStep { program, params })
    }
}

/// The gradients of one step's loss, with nothing updated.
///
/// Arguments: weights (whole, whatever the spec says of the optimizer), `step`, `first_row`, `seed`, batch. Results: a
/// gradient `grad/<parameter>` for each weight, then `metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientStep {
    pub program: Program,
    pub params: Vec<ParamSpec>,
}

impl GradientStep {
    /// # Errors
    /// If the spec contradicts itself; its optimizer is not looked at.
    pub fn build(spec: &StepSpec) -> Result<GradientStep> {
        spec.validate()?;
        let params = param_specs(&spec.model);
        let graph = Graph::new("gradient_step");
        let mut arguments = Arguments::new(&graph);
        let weights = arguments.weights(&params, |param| param.shape(spec.precision.master()));
        let randomness = Randomness::arguments(&mut arguments);
        let batch = arguments.batch(spec.form());
        let derived = spec.derive(&params, &weights, randomness, &batch);
        let gradients = spec.exchanged(&derived.gradients, None);
        let gradient_norm = global_norm(Placement::Replicated.squared_norms(&gradients));
        let mut results = Results::default();
        for (param, &gradient) in params.iter().zip(&gradients) {
            results.add(&format!("grad/{}", param.name), Role::Gradient, gradient);
        }
        results.add("metrics", Role::Report, derived.metrics(gradient_norm, gradient_norm.is_finite()));
        Ok(GradientStep { program: Program::new(arguments, results, Vec::new(), spec.replicas), params })
    }
}

/// What dropout masks are a function of, beside the row's place in the micro-batch.
#[derive(Clone, Copy)]
struct Randomness<'g> {
    step: Tensor<'g>,
    first_row: Tensor<'g>,
    seed: Tensor<'g>,
}

impl<'g> Randomness<'g> {
    fn arguments(arguments: &mut Arguments<'g>) -> Self {
        let scalar = Shape::scalar(DType::U32);
        Randomness {
            step: arguments.add("step", Role::Scalar, scalar.clone()),
            first_row: arguments.add("first_row", Role::Scalar, scalar),
            seed: arguments.add("seed", Role::Scalar, Shape::new(DType::U32, [2])),
        }
    }
}

/// The two denominators of the loss over the global batch; 1 where there is nothing to divide.
#[derive(Clone, Copy)]
struct Denominators<'g> {
    predictions: Tensor<'g>,
    sequences: Tensor<'g>,
}

/// What all micro-batches of a step come to.
struct Derived<'g> {
    /// Of the replica's own rows.
    gradients: Vec<Tensor<'g>>,
    /// Over the global batch.
    sums: Sums<'g>,
    denominators: Denominators<'g>,
}

impl<'g> Derived<'g> {
    /// In the order of [`METRICS`].
    fn metrics(&self, gradient_norm: Tensor<'g>, all_finite: Tensor<'g>) -> Tensor<'g> {
        let (sums, denominators) = (&self.sums, &self.denominators);
        let mlm_loss = sums.mlm_nll / denominators.predictions;
        let nsp_loss = sums.nsp_nll / denominators.sequences;
        let metrics = [
            mlm_loss + nsp_loss,
            mlm_loss,
            nsp_loss,
            sums.mlm_correct / denominators.predictions,
            sums.nsp_correct / denominators.sequences,
            gradient_norm,
            all_finite.not().convert(gradient_norm.dtype()),
        ];
        vector(&metrics)
    }
}

impl StepSpec {
    /// # Errors
    /// If the model is impossible, the batch does not fit it, or the rows cannot be cut as asked.
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        self.model.validate_batch(self.sequence_length, self.predictions)?;
        ensure!(
            (1..=self.sequence_length).contains(&self.sequences_per_row),
            "sequences_per_row requires 1 to sequence_length ({}), got {}",
            self.sequence_length,
            self.sequences_per_row
        );
        ensure!(self.replicas > 0, "replicas requires at least 1, got 0");
        ensure!(
            self.micro_batches > 0 && self.rows > 0 && self.rows.is_multiple_of(self.micro_batches),
            "rows requires a positive multiple of micro_batches ({}), got {}",
            self.micro_batches,
            self.rows
        );
        check_positions(self.rows, self.sequence_length)
    }

    /// The form of a replica's batch.
    pub fn form(&self) -> BatchForm {
        let StepSpec { rows, sequence_length, predictions, sequences_per_row, .. } = *self;
        BatchForm { rows, sequence_length, predictions, sequences_per_row }
    }

    /// The parts of weights and slots, if replicas do not hold them whole.
    pub fn shards(&self) -> Option<Shards> {
        (self.parallel.shard_optimizer && self.replicas > 1).then_some(Shards { count: self.replicas })
    }

    /// The shape in which a replica holds a weight or a slot between steps.
    pub fn held_shape(&self, param: &ParamSpec) -> Shape {
        let whole = param.shape(self.precision.master());
        self.shards().map_or(whole.clone(), |shards| shards.part_shape(&whole))
    }

    /// Whole weights for the model, from what a replica holds. What is put together of parts is rounded before and not
    /// after, where the model would round it: the same numbers, in half the bytes.
    fn gathered<'g>(&self, params: &[ParamSpec], held: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let Some(shards) = self.shards() else { return held.to_vec() };
        let read = params.iter().zip(held).map(|(param, part)| part.convert(param.read_dtype(self.precision)));
        let shapes: Vec<Shape> = params.iter().map(|param| param.shape(self.precision.master())).collect();
        shards.all_gather(&read.collect::<Vec<_>>(), &shapes)
    }

    /// Gradients summed over replicas, in one exchange: whole and everywhere the same, or each replica's part.
    fn exchanged<'g>(&self, gradients: &[Tensor<'g>], shards: Option<Shards>) -> Vec<Tensor<'g>> {
        if self.replicas == 1 {
            return gradients.to_vec();
        }
        let accumulated = self.precision.master();
        let wire = self.parallel.gradient_exchange.dtype(accumulated);
        let told: Vec<Tensor<'g>> = gradients.iter().map(|gradient| gradient.convert(wire)).collect();
        let sums = match shards {
            None => gradients[0].graph().all_reduce(&told, Reduction::Sum),
            Some(shards) => shards.reduce_scatter(&told),
        };
        sums.into_iter().map(|sum| sum.convert(accumulated)).collect()
    }

    /// Gradients of the global loss by the replica's rows, and the sums that the metrics are made of. `weights` are whole,
    /// of the types that the model reads them in or wider.
    fn derive<'g>(
        &self,
        params: &[ParamSpec],
        weights: &[Tensor<'g>],
        randomness: Randomness<'g>,
        batch: &[Tensor<'g>],
    ) -> Derived<'g> {
        let denominators = self.denominators(&Examples::new(batch));
        let (gradients, sums) = match self.micro_batches {
            1 => self.micro_batch(params, weights, randomness, batch, denominators),
            _ => self.micro_batch_loop(params, weights, randomness, batch, denominators),
        };
        let [mlm_nll, mlm_correct, nsp_nll, nsp_correct] = self.over_replicas(&sums);
        Derived { gradients, sums: Sums { mlm_nll, mlm_correct, nsp_nll, nsp_correct }, denominators }
    }

    fn denominators<'g>(&self, batch: &Examples<'g>) -> Denominators<'g> {
        let master = self.precision.master();
        let local = [batch.masked_lm_weights.convert(master).sum(), batch.sequence_weights(master).sum()];
        let [predictions, sequences] =
            self.over_replicas(&local).map(|sum| sum.gt(sum.filled(0.0)).select(sum, sum.filled(1.0)));
        Denominators { predictions, sequences }
    }

    /// One micro-batch's share of the gradients, and its sums in the order of [`Sums`]' fields.
    fn micro_batch<'g>(
        &self,
        params: &[ParamSpec],
        weights: &[Tensor<'g>],
        randomness: Randomness<'g>,
        examples: &[Tensor<'g>],
        denominators: Denominators<'g>,
    ) -> (Vec<Tensor<'g>>, [Tensor<'g>; 4]) {
        let examples = Examples::new(examples);
        let dropout = self.dropout.then(|| self.dropout_of(&examples, randomness));
        // Gradients are of this type, so they are not rounded where a weight was.
        let weights: Vec<Tensor> = weights.iter().map(|weight| weight.convert(self.precision.master())).collect();
        let bert = Bert::new(&self.model, params, &weights, self.precision, dropout, self.recompute);
        let sums = bert.sums(&examples);
        let loss = sums.mlm_nll / denominators.predictions + sums.nsp_nll / denominators.sequences;
        (gradients(loss, &weights), [sums.mlm_nll, sums.mlm_correct, sums.nsp_nll, sums.nsp_correct])
    }

    fn dropout_of<'g>(&self, examples: &Examples<'g>, randomness: Randomness<'g>) -> Dropout<'g> {
        let Randomness { step, first_row, seed } = randomness;
        let (layers, rows) = (self.model.num_hidden_layers, examples.input_ids.dims()[0]);
        match examples.packed {
            None => Dropout::new(seed, step, first_row, rows, layers),
            Some(packed) => {
                Dropout::packed(seed, step, examples.attention_mask, packed, layers, self.model.hidden_size)
            }
        }
    }

    /// [`StepSpec::micro_batch`] over the slices of the batch, added up: over all of them, or in packed form over those with
    /// a sequence in them. How many rows a packed batch fills is known only when it is there; the rows behind them are
    /// padding.
    ///
    /// The loop's state is (slice number; constants: weights, batch, randomness, denominators; sums: gradients, sums).
    fn micro_batch_loop<'g>(
        &self,
        params: &[ParamSpec],
        weights: &[Tensor<'g>],
        randomness: Randomness<'g>,
        batch: &[Tensor<'g>],
        denominators: Denominators<'g>,
    ) -> (Vec<Tensor<'g>>, [Tensor<'g>; 4]) {
        let graph = batch[0].graph();
        let (all, rows) = (self.micro_batches as f64, self.rows / self.micro_batches);
        let filled = Examples::new(batch).packed.map(|_| self.filled_micro_batches(batch, rows));
        let zero = graph.scalar(0.0, self.precision.master());
        let scalars =
            [randomness.step, randomness.first_row, randomness.seed, denominators.predictions, denominators.sequences];
        let mut initial = vec![graph.scalar(0.0, DType::S32)];
        initial.extend(weights);
        initial.extend(batch);
        initial.extend(scalars);
        initial.extend(filled);
        let constants = initial.len();
        initial.extend(params.iter().map(|param| graph.full(0.0, param.shape(zero.dtype()))));
        initial.extend([zero; 4]);

        let last = graph.while_loop(
            "micro_batches",
            &initial,
            |_, state| match filled {
                None => state[0].lt(state[0].filled(all)),
                Some(_) => state[0].lt(state[constants - 1]),
            },
            |_, state| {
                let (slice, state_after) = (state[0], &state[1..]);
                let (weights, others) = state_after.split_at(params.len());
                let (batch, others) = others.split_at(batch.len());
                let start = slice * rows as f64;
                let examples: Vec<Tensor> = batch.iter().map(|&t| rows_from(t, start, rows)).collect();
                let first_row = others[1] + start.convert(DType::U32);
                let randomness = Randomness { step: others[0], first_row, seed: others[2] };
                let denominators = Denominators { predictions: others[3], sequences: others[4] };
                let (gradients, sums) = self.micro_batch(params, weights, randomness, &examples, denominators);
                let shares = gradients.into_iter().chain(sums);
                let sums = state[constants..].iter().zip(shares).map(|(&sum, share)| sum + share);
                std::iter::once(slice + 1.0).chain(state[1..constants].iter().copied()).chain(sums).collect()
            },
        );
        let gradients = last[constants..constants + params.len()].to_vec();
        let sums = std::array::from_fn(|i| last[constants + params.len() + i]);
        (gradients, sums)
    }

    /// Micro-batches of `rows` rows up to the last row that holds a sequence, on the replica that has most: s32.
    fn filled_micro_batches<'g>(&self, batch: &[Tensor<'g>], rows: usize) -> Tensor<'g> {
        let sequences = Examples::new(batch).attention_mask.reduce_max(&[1]);
        let row = sequences.graph().iota(sequences.shape(), 0);
        let end = sequences.gt(sequences.filled(0.0)).select(row + 1.0, row.filled(0.0)).reduce_max(&[0]);
        let micro_batches = (end + (rows - 1) as f64) / end.filled(rows as f64);
        if self.replicas == 1 { micro_batches } else { micro_batches.all_reduce(Reduction::Max) }
    }

    /// The sum over replicas of each scalar, in one exchange.
    fn over_replicas<'g, const N: usize>(&self, scalars: &[Tensor<'g>; N]) -> [Tensor<'g>; N] {
        if self.replicas == 1 {
            return *scalars;
        }
        let sums = vector(scalars).all_reduce(Reduction::Sum);
        std::array::from_fn(|i| sums.slice(&[i], &[i + 1], &[1]).reshape(&[]))
    }
}

/// Flat token positions and row numbers are s32.
pub(super) fn check_positions(rows: usize, sequence_length: usize) -> Result<()> {
    ensure!(
        rows.checked_mul(sequence_length).is_some_and(|positions| i32::try_from(positions).is_ok()),
        "rows × sequence_length requires less than 2^31, got {rows} × {sequence_length}"
    );
    Ok(())
}

/// `rows` rows of `x` from row `start` (s32 scalar).
fn rows_from<'g>(x: Tensor<'g>, start: Tensor<'g>, rows: usize) -> Tensor<'g> {
    let mut sizes = x.dims();
    let mut starts = vec![start.filled(0.0); sizes.len()];
    (sizes[0], starts[0]) = (rows, start);
    x.dynamic_slice(&starts, &sizes)
}

/// `new` if the pred scalar holds, else `old`.
fn where_all<'g>(predicate: Tensor<'g>, new: Tensor<'g>, old: Tensor<'g>) -> Tensor<'g> {
    predicate.broadcast_like(old, &[]).select(new, old)
}

/// Scalars of one type as a vector.
pub(super) fn vector<'g>(scalars: &[Tensor<'g>]) -> Tensor<'g> {
    let elements: Vec<Tensor<'g>> = scalars.iter().map(|x| x.reshape(&[1])).collect();
    elements[0].graph().concatenate(&elements, 0)
}
