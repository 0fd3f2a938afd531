//! How well a model predicts text it was not trained on. The held-out examples and their masks are the same for every
//! run, seed, phase and step, so that two numbers can always be compared.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Context;

use crate::bert::{BertConfig, Precision};
use crate::data::{Batch, Dataset, ExampleConfig, PreparedData, Split};
use crate::pjrt::{Buffer, HostTransfer};
use crate::report::evaluation::Evaluation;
use crate::run::Run;
use crate::runtime::compile::{CompileTimes, Compiled};
use crate::runtime::devices::Devices;
use crate::runtime::prefetch::{Scalars, send};
use crate::step::eval_step::{EvalSpec, EvalStep, SUMS};

/// Batches under way at once: the next is made while one runs.
const AHEAD: usize = 2;

/// The shape of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateOptions {
    pub precision: Precision,
    /// How the held-out examples are made.
    pub config: ExampleConfig,
    /// Held-out examples; fewer if there are not so many.
    pub examples: usize,
    /// Examples on each device at once; fewer if its share of them is smaller.
    pub micro_batch_size: usize,
}

impl EvaluateOptions {
    /// How `run` measures its model in phase `phase`.
    pub fn of(run: &Run, phase: usize) -> EvaluateOptions {
        EvaluateOptions {
            precision: run.precision,
            config: run.held_out_examples(phase),
            examples: run.evaluate.examples,
            micro_batch_size: run.evaluate.micro_batch_size,
        }
    }

    /// # Errors
    /// If there are too few held-out documents, or a setting is impossible.
    pub fn held_out(&self, prepared: &Arc<PreparedData>) -> anyhow::Result<Dataset> {
        Ok(Dataset::new(prepared.clone(), Split::HeldOut, self.config.clone())?)
    }
}

/// A compiled evaluation and the examples it uses.
#[derive(Debug)]
pub struct Evaluator {
    compiled: Compiled,
    examples: Dataset,
    count: u64,
    /// Of one round: one batch on every device of every host.
    rows: usize,
}

impl Evaluator {
    /// # Errors
    /// If there are too few held-out documents, or the program cannot be compiled.
    pub fn new(
        model: &BertConfig,
        prepared: &Arc<PreparedData>,
        options: &EvaluateOptions,
        devices: &Devices,
    ) -> anyhow::Result<Evaluator> {
        let examples = options.held_out(prepared)?;
        let count = examples.epoch_len(0).min(options.examples as u64);
        let batch = options.micro_batch_size.min(count.div_ceil(devices.len() as u64) as usize);
        let spec = EvalSpec {
            model: model.clone(),
            precision: options.precision,
            sequence_length: options.config.sequence_length,
            predictions: options.config.max_predictions_per_seq,
            rows: batch,
            replicas: devices.len(),
        };
        let compiled = Compiled::new(devices, || Ok(EvalStep::build(&spec)?.program))?;
        Ok(Evaluator { compiled, examples, count, rows: batch * devices.len() })
    }

    pub fn compile_times(&self) -> CompileTimes {
        self.compiled.times
    }

    pub fn examples(&self) -> &Dataset {
        &self.examples
    }

    /// How many examples one evaluation takes.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Measures the model with `weights`, `[device][tensor]`, all of them of this host.
    ///
    /// # Errors
    /// If a shard cannot be read any more, or what the plugin says.
    pub fn evaluate(&self, weights: &[Vec<Buffer>], devices: &Devices) -> anyhow::Result<Evaluation> {
        Ok(self.evaluation(self.sums(weights, devices)?))
    }

    /// What the sums over all examples say.
    pub fn evaluation(&self, sums: [f64; SUMS.len()]) -> Evaluation {
        let [mlm_nll, mlm_weight, mlm_correct, nsp_nll, nsp_rows, nsp_correct] = sums;
        Evaluation {
            examples: self.count,
            mlm_loss: mlm_nll / mlm_weight,
            mlm_accuracy: mlm_correct / mlm_weight,
            nsp_loss: nsp_nll / nsp_rows,
            nsp_accuracy: nsp_correct / nsp_rows,
        }
    }

    /// The sums ([`SUMS`]) over this host's share of the examples: of every round of batches, the rows of its replicas.
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`].
    pub fn sums(&self, weights: &[Vec<Buffer>], devices: &Devices) -> anyhow::Result<[f64; SUMS.len()]> {
        let inputs = self.compiled.fed_inputs();
        // Evaluation has no dropout and no update: none of these is asked for.
        let scalars = Scalars { learning_rate: 0.0, optimizer_step: 1, step: 0, seed: 0, first_row: 0 };
        let share = devices.share().rows(self.rows);
        let mut sums = [0.0; SUMS.len()];
        let mut under_way: VecDeque<Vec<HostTransfer>> = VecDeque::new();
        let mut first = 0;
        while first < self.count || !under_way.is_empty() {
            if first < self.count && under_way.len() < AHEAD {
                let begin = first + share.start as u64;
                let rows = self.count.saturating_sub(begin).min(share.len() as u64) as usize;
                let mut batch = self.examples.batch(begin, rows)?;
                pad_rows(&mut batch, share.len());
                let fed = send(&devices.client, &devices.devices, &inputs, &batch, &scalars)?;
                let arguments: Vec<Vec<&Buffer>> =
                    weights.iter().zip(&fed).map(|(weights, fed)| weights.iter().chain(fed).collect()).collect();
                let outputs = self.compiled.executable.execute(&arguments)?;
                let transfers = outputs.iter().map(|outputs| outputs[0].to_host_async());
                under_way.push_back(transfers.collect::<Result<_, _>>()?);
                first += self.rows as u64;
                continue;
            }
            for transfer in under_way.pop_front().unwrap_or_default() {
                let parts = transfer.wait().context("an evaluation failed on the device")?.to_f64();
                sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part);
            }
        }
        Ok(sums)
    }
}

/// Fills `batch` up to `rows` rows with rows of padding, which count nowhere.
fn pad_rows(batch: &mut Batch, rows: usize) {
    let (tokens, slots) = (rows * batch.sequence_length, rows * batch.max_predictions);
    batch.rows = rows;
    for ids in [&mut batch.input_ids, &mut batch.token_type_ids, &mut batch.attention_mask] {
        ids.resize(tokens, 0);
    }
    batch.masked_lm_positions.resize(slots, 0);
    batch.masked_lm_ids.resize(slots, 0);
    batch.masked_lm_weights.resize(slots, 0.0);
    batch.next_sentence_labels.resize(rows, 0);
}
