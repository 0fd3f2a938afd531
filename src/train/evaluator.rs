//! Evaluation of a model on held-out examples. The examples and their masks are the same for every run, seed, phase and
//! step, so that results are comparable.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use anyhow::Context;

use crate::batch::BatchSource;
use crate::pjrt::{Buffer, HostTransfer};
use crate::report::baselines::Baselines;
use crate::report::evaluation::{Evaluation, Metric};
use crate::runtime::compile::{CompileTimes, Compiled};
use crate::runtime::devices::Devices;
use crate::step::{EvalSpec, EvalStep, Scalars, StepInputs};

/// Number of batches in progress: the next batch is built while one runs.
const AHEAD: usize = 2;

/// Metrics that are no ratios of sums, such as F1: they are computed from the outputs of the model on all examples.
pub trait Scorer: Debug + Send + Sync {
    /// Computes the metrics. `outputs` holds one list for each of [`crate::task::Model::outputs`], the rows of all examples in
    /// order.
    ///
    /// # Errors
    /// If the outputs do not fit the examples.
    fn score(&self, outputs: &[Vec<f32>]) -> anyhow::Result<Vec<Metric>>;
}

/// An evaluation on held-out examples. The examples are always the same, so that results are comparable.
#[derive(Clone, Debug)]
pub struct EvaluationSpec {
    /// The evaluation program. Its rows are an upper bound: a device with fewer examples computes fewer rows.
    pub step: EvalSpec,
    /// The source of the held-out batches.
    pub source: Arc<dyn BatchSource>,
    /// Maximum number of held-out examples.
    pub examples: usize,
    /// The baselines over these examples, the same on every host.
    pub baselines: Baselines,
    /// The metrics that are computed from the outputs of the model, on a single host; then [`EvalSpec::outputs`] is set.
    pub scorer: Option<Arc<dyn Scorer>>,
}

impl EvaluationSpec {
    /// Returns the number of examples that an evaluation reads.
    pub fn count(&self) -> u64 {
        self.source.epoch_len().min(self.examples as u64)
    }
}

impl PartialEq for EvaluationSpec {
    fn eq(&self, other: &EvaluationSpec) -> bool {
        self.step == other.step && self.examples == other.examples && Arc::ptr_eq(&self.source, &other.source)
    }
}

/// A compiled evaluation and the examples that it reads.
#[derive(Debug)]
pub struct Evaluator {
    compiled: Compiled,
    spec: EvaluationSpec,
    count: u64,
    /// Rows of one round: a batch on every device of every host.
    rows: usize,
}

impl Evaluator {
    /// Compiles the evaluation for all devices of the run.
    ///
    /// # Errors
    /// If the program cannot be compiled.
    pub fn new(spec: &EvaluationSpec, devices: &Devices) -> anyhow::Result<Evaluator> {
        let count = spec.count();
        let rows = spec.step.rows.min(count.div_ceil(devices.len() as u64) as usize);
        let step = EvalSpec { rows, replicas: devices.len(), ..spec.step.clone() };
        let compiled = Compiled::new(devices, || Ok(EvalStep::build(&step)?.program))?;
        Ok(Evaluator { compiled, spec: spec.clone(), count, rows: rows * devices.len() })
    }

    /// Returns the compiled program.
    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Returns the compilation times of the program.
    pub fn compile_times(&self) -> CompileTimes {
        self.compiled.times
    }

    /// Evaluates the model with `weights`, `[device][tensor]`, on a single host.
    ///
    /// # Errors
    /// If the data cannot be read any more, or the plugin fails.
    pub fn evaluate(&self, weights: &[Vec<Buffer>], devices: &Devices) -> anyhow::Result<Evaluation> {
        let Measured { sums, outputs } = self.measure(weights, devices)?;
        self.evaluation(&sums, &outputs)
    }

    /// Returns the ratios of the sums over all examples, with their baselines, and the metrics of the scorer.
    ///
    /// # Errors
    /// If the outputs do not fit the examples.
    pub fn evaluation(&self, sums: &[f64], outputs: &[Vec<f32>]) -> anyhow::Result<Evaluation> {
        let mut evaluation = Evaluation::new(self.spec.step.task.ratios(), sums, &self.spec.baselines, self.count);
        if let Some(scorer) = &self.spec.scorer {
            scorer.score(outputs)?.into_iter().for_each(|metric| evaluation.push(metric));
        }
        Ok(evaluation)
    }

    /// Computes the sums over this host's share of the examples, the rows of its replicas in every round, and the outputs for
    /// them.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn measure(&self, weights: &[Vec<Buffer>], devices: &Devices) -> anyhow::Result<Measured> {
        let replicas = devices.replica_range();
        let share = replicas.rows(self.rows);
        let task = &self.spec.step.task;
        let names: Vec<&str> = self.compiled.outputs.iter().map(|value| value.name.as_str()).collect();
        let mut measured = Measured {
            sums: vec![0.0; task.ratios().len() + task.denominators().len()],
            outputs: vec![Vec::new(); names.len() - 1],
        };
        let mut under_way: VecDeque<(usize, Vec<Vec<HostTransfer>>)> = VecDeque::new();
        let mut first = 0;
        while first < self.count || !under_way.is_empty() {
            if first < self.count && under_way.len() < AHEAD {
                let begin = first + share.start as u64;
                let rows = self.count.saturating_sub(begin).min(share.len() as u64) as usize;
                let mut batch = self.spec.source.rows(begin, rows)?;
                batch.pad_to(share.len());
                let inputs = StepInputs { batch: &batch, scalars: Scalars::FORWARD, replicas: replicas.count };
                let launched = self.compiled.run(devices, weights, &inputs)?;
                let transfers = |name: &&str| -> anyhow::Result<Vec<HostTransfer>> {
                    launched.results(name)?.into_iter().map(|result| Ok(result.to_host_async()?)).collect()
                };
                under_way.push_back((rows, names.iter().map(transfers).collect::<Result<_, _>>()?));
                first += self.rows as u64;
                continue;
            }
            if let Some((rows, results)) = under_way.pop_front() {
                measured.add(rows, results)?;
            }
        }
        Ok(measured)
    }
}

/// The results of an evaluation on one host.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The sums; see [`EvalStep`].
    pub sums: Vec<f64>,
    /// For each output of the model, the values of all rows in order; empty without [`EvalSpec::outputs`].
    pub outputs: Vec<Vec<f32>>,
}

impl Measured {
    /// Adds the results of one round, `[result][replica]`, whose first `rows` rows hold examples.
    fn add(&mut self, rows: usize, results: Vec<Vec<HostTransfer>>) -> anyhow::Result<()> {
        let read = |transfer: HostTransfer| transfer.wait().context("an evaluation failed on the device");
        let mut results = results.into_iter();
        for transfer in results.next().unwrap_or_default() {
            let of_replica = read(transfer)?.to_f64();
            self.sums.iter_mut().zip(of_replica).for_each(|(sum, share)| *sum += share);
        }
        for (output, transfers) in self.outputs.iter_mut().zip(results) {
            let mut left = rows;
            for transfer in transfers {
                let tensor = read(transfer)?;
                let of_replica = left.min(tensor.shape().dims[0]);
                output.extend(tensor.rows(0, of_replica).to_vec::<f32>()?);
                left -= of_replica;
            }
        }
        Ok(())
    }
}
