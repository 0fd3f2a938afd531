//! Evaluation of a model on held-out examples. The examples and their masks are the same for every run, seed, phase and
//! step, so that results are comparable.

use std::collections::VecDeque;

use anyhow::Context;

use super::job::EvaluationSpec;
use crate::pjrt::{Buffer, HostTransfer};
use crate::report::evaluation::Evaluation;
use crate::runtime::compile::{CompileTimes, Compiled};
use crate::runtime::devices::Devices;
use crate::step::{EvalSpec, EvalStep, Scalars, StepInputs};

/// Number of batches in progress: the next batch is built while one runs.
const AHEAD: usize = 2;

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

    /// Returns the compilation times of the program.
    pub fn compile_times(&self) -> CompileTimes {
        self.compiled.times
    }

    /// Evaluates the model with `weights`, `[device][tensor]`, on a single host.
    ///
    /// # Errors
    /// If the data cannot be read any more, or the plugin fails.
    pub fn evaluate(&self, weights: &[Vec<Buffer>], devices: &Devices) -> anyhow::Result<Evaluation> {
        Ok(self.evaluation(&self.sums(weights, devices)?))
    }

    /// Returns the ratios of the sums over all examples, with their baselines.
    pub fn evaluation(&self, sums: &[f64]) -> Evaluation {
        Evaluation::new(self.spec.step.task.ratios(), sums, &self.spec.baselines, self.count)
    }

    /// Returns the sums (see [`EvalStep`]) over this host's share of the examples: the rows of its replicas in every round.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn sums(&self, weights: &[Vec<Buffer>], devices: &Devices) -> anyhow::Result<Vec<f64>> {
        let replicas = devices.replica_range();
        let share = replicas.rows(self.rows);
        let task = &self.spec.step.task;
        let mut sums = vec![0.0; task.ratios().len() + task.denominators().len()];
        let mut under_way: VecDeque<Vec<HostTransfer>> = VecDeque::new();
        let mut first = 0;
        while first < self.count || !under_way.is_empty() {
            if first < self.count && under_way.len() < AHEAD {
                let begin = first + share.start as u64;
                let rows = self.count.saturating_sub(begin).min(share.len() as u64) as usize;
                let mut batch = self.spec.source.rows(begin, rows)?;
                batch.pad_to(share.len());
                let inputs = StepInputs { batch: &batch, scalars: Scalars::FORWARD, replicas: replicas.count };
                let launched = self.compiled.run(devices, weights, &inputs)?;
                let transfers = launched.results("sums")?.into_iter().map(Buffer::to_host_async);
                under_way.push_back(transfers.collect::<Result<_, _>>()?);
                first += self.rows as u64;
                continue;
            }
            for transfer in under_way.pop_front().unwrap_or_default() {
                let of_replica = transfer.wait().context("an evaluation failed on the device")?.to_f64();
                sums.iter_mut().zip(of_replica).for_each(|(sum, share)| *sum += share);
            }
        }
        Ok(sums)
    }
}
