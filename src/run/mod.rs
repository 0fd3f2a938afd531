//! What a run is, once everything that a run file alone decides has been checked: the meaning, not the spelling.
//!
//! A [`Run`] holds no device, no buffer and no open file. Two runs of equal [`Run::settings`] on equal data take the same
//! steps; what else a run holds (where checkpoints go, how a batch is cut, when it is evaluated) changes no weight beyond
//! rounding.

pub mod config;
pub mod facts;
pub mod file;
pub mod initial_state;
pub mod preflight;
pub mod weights;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::bert::flops::training_flops;
use crate::bert::{BertConfig, Precision, Recompute};
use crate::data::{ExampleConfig, ExampleMode, Masking, SpanMask, max_predictions_per_row};
use crate::digest::sha256_hex;
use crate::optim::OptimizerConfig;
use crate::schedule::PhaseWork;
use crate::schedule::Schedule;
use crate::step::parallel::{GradientExchange, ParallelSettings};
use crate::step::train_step::StepSpec;
use crate::storage::Location;
use crate::units::thousands;

/// Where the text lies and how examples are made of it: google-research/bert's `create_pretraining_data.py` by default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// Where `lambert prepare` put it.
    #[serde(skip_serializing)]
    pub path: Location,
    /// The directory for a copy of data that lies in a bucket; `path` knows it.
    #[serde(default, skip_serializing)]
    pub cache: Option<PathBuf>,
    /// Sentence pairs for next sentence or sentence order prediction, or single segments.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: ExampleMode,
    /// Share of the tokens that is predicted. A phase may have its own.
    #[serde(default = "default::masked_lm_prob")]
    pub masked_lm_prob: f64,
    /// Mask the pieces of a word together.
    #[serde(default)]
    pub whole_word_mask: bool,
    /// Mask runs of whole words, as SpanBERT does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_mask: Option<SpanMask>,
    /// Whether masks are drawn anew in every epoch.
    #[serde(default, skip_serializing_if = "is_default")]
    pub masking: Masking,
    /// Share of the documents that is cut into shorter sequences. Of no effect on single segments.
    #[serde(default = "default::short_seq_prob")]
    pub short_seq_prob: f64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DataSettings {
    /// How held-out examples are made: with the same draws in every run and phase, so that two numbers can be compared.
    pub fn held_out(&self, sequence_length: usize, max_predictions: usize) -> ExampleConfig {
        ExampleConfig {
            mode: self.mode,
            masked_lm_prob: self.masked_lm_prob,
            short_seq_prob: self.short_seq_prob,
            whole_word_mask: self.whole_word_mask,
            span_mask: self.span_mask,
            ..ExampleConfig::bert(sequence_length, max_predictions)
        }
    }
}

/// When and on what a run is measured: always the same held-out examples, with the same masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSettings {
    /// Steps from one evaluation to the next; 0 for none but the last. The last step of every phase is evaluated too.
    pub every: u64,
    /// Held-out examples; fewer if there are not so many.
    pub examples: usize,
    /// Examples that a device evaluates at a time.
    pub micro_batch_size: usize,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        EvaluateSettings { every: 0, examples: 1024, micro_batch_size: 32 }
    }
}

/// Where and how often a run is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSettings {
    /// The run directory: checkpoints, metrics and TensorBoard files. In a bucket: checkpoints and metrics.
    pub directory: Location,
    /// The directory that a run in a bucket is saved into first; `directory` knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Steps from one checkpoint to the next; 0 for none but the last.
    #[serde(default)]
    pub every: u64,
    /// Newest checkpoints that stay; 0 keeps all.
    #[serde(default = "default::keep")]
    pub keep: usize,
}

/// Keys of a `[[phase]]` that have been renamed, with the names that fingerprints and older checkpoints use.
pub(crate) const FIRST_NAMES_IN_PHASE: [(&str, &str); 2] =
    [("max_predictions_per_seq", "predictions"), ("micro_batch_size", "micro_batch")];

mod default {
    pub fn masked_lm_prob() -> f64 {
        0.15
    }
    pub fn short_seq_prob() -> f64 {
        0.1
    }
    pub fn keep() -> usize {
        3
    }
}

/// A training run as meant.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub seed: u64,
    pub precision: Precision,
    /// What the backward pass computes again instead of keeping.
    pub recompute: Recompute,
    /// Updates with a gradient that is not finite that may be left out before the run stops.
    pub skip_non_finite: u64,
    pub model: BertConfig,
    /// Where the first weights come from, if not from the seed: a Hugging Face directory or a checkpoint.
    pub import: Option<PathBuf>,
    pub optimizer: OptimizerConfig,
    pub schedule: Schedule,
    pub data: DataSettings,
    pub parallel: ParallelSettings,
    pub evaluate: EvaluateSettings,
    pub checkpoint: CheckpointSettings,
    /// The text of the run file in force, which is copied into every checkpoint.
    pub text: String,
}

impl Run {
    /// How the examples of phase `phase` are made.
    pub fn examples(&self, phase: usize) -> ExampleConfig {
        let shape = &self.schedule.phases()[phase];
        ExampleConfig {
            masked_lm_prob: shape.masked_lm_prob.unwrap_or(self.data.masked_lm_prob),
            masking: self.data.masking,
            seed: self.seed,
            phase: phase as u32,
            ..self.data.held_out(shape.sequence_length, shape.max_predictions_per_seq)
        }
    }

    /// What phase `phase`'s step depends on, with `replicas` devices.
    ///
    /// # Errors
    /// If the batch does not divide.
    pub fn step_spec(&self, phase: usize, replicas: usize) -> anyhow::Result<StepSpec> {
        let shape = &self.schedule.phases()[phase];
        let micro_batches = shape.accumulation_steps(replicas)?;
        let sequences_per_row = shape.sequences_per_row(micro_batches);
        Ok(StepSpec {
            model: self.model.clone(),
            optimizer: self.optimizer.clone(),
            precision: self.precision,
            sequence_length: shape.sequence_length,
            predictions: max_predictions_per_row(&self.examples(phase), sequences_per_row),
            sequences_per_row,
            rows: shape.global_batch / replicas,
            micro_batches,
            replicas,
            parallel: self.parallel.resolve(&self.model, &self.optimizer, replicas),
            dropout: true,
            recompute: self.recompute,
        })
    }

    /// The settings that decide what the steps do, by the names of the run file. How a batch is laid into rows and cut into
    /// micro-batches is not among them, nor how devices share the optimizer.
    pub fn settings(&self) -> Value {
        let phases: Vec<Value> = self
            .schedule
            .phases()
            .iter()
            .map(|phase| {
                let mut phase = json!(phase);
                if let Some(phase) = phase.as_object_mut() {
                    phase.remove("micro_batch_size");
                    phase.remove("sequences_per_row");
                }
                phase
            })
            .collect();
        let mut settings = json!({
            "seed": self.seed,
            "precision": self.precision,
            "model": self.model,
            "optimizer": self.optimizer,
            "data": self.data,
            "phase": phases,
        });
        let exchange = self.parallel.gradient_exchange;
        if exchange != GradientExchange::default() {
            settings["parallel"] = json!({ "gradient_exchange": exchange });
        }
        settings
    }

    /// Identifies what a resumed run must share with its checkpoint: [`Run::settings`] and the prepared data.
    ///
    /// Fingerprints are an on-disk format: a key that has since been renamed is hashed under its first name.
    pub fn fingerprint(&self, data_fingerprint: &str) -> String {
        let mut settings = self.settings();
        for phase in settings["phase"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            for (key, first_name) in FIRST_NAMES_IN_PHASE {
                if let Some(value) = phase.remove(key) {
                    phase.insert(first_name.to_owned(), value);
                }
            }
        }
        sha256_hex(format!("{settings}\n{data_fingerprint}").as_bytes())
    }

    /// Sequences and tokens (padding included) of each phase and of the run.
    pub fn arithmetic(&self) -> Vec<Arithmetic> {
        let phases = self.schedule.phases();
        phases
            .iter()
            .map(|phase| {
                let sequences = phase.steps * phase.global_batch as u64;
                Arithmetic {
                    sequences,
                    tokens: sequences * phase.sequence_length as u64,
                    flops: sequences as f64
                        * training_flops(&self.model, phase.sequence_length, phase.max_predictions_per_seq),
                }
            })
            .collect()
    }

    /// [`Run::arithmetic`] as the table that run files open with and runs print at their start.
    pub fn arithmetic_table(&self) -> Vec<String> {
        let mut lines = vec!["phase   steps   batch  length       sequences            tokens      FLOP".to_owned()];
        for (index, (phase, sums)) in self.schedule.phases().iter().zip(self.arithmetic()).enumerate() {
            lines.push(format!(
                "{:<5}{:>8}{:>8}{:>8}{:>16}{:>18}{:>10}",
                index + 1,
                thousands(phase.steps),
                thousands(phase.global_batch as u64),
                phase.sequence_length,
                thousands(sums.sequences),
                thousands(sums.tokens),
                format!("{:.1e}", sums.flops),
            ));
        }
        lines
    }

    /// The phases as the progress display weighs them.
    pub fn work(&self) -> Vec<PhaseWork> {
        let phases = self.schedule.phases().iter();
        let flops = self.arithmetic().into_iter().map(|a| a.flops);
        phases
            .zip(flops)
            .map(|(phase, flops)| PhaseWork { steps: phase.steps, flops_a_step: flops / phase.steps.max(1) as f64 })
            .collect()
    }
}

/// What a phase amounts to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    pub sequences: u64,
    /// Positions of plain rows, whether they hold a token or padding; packed rows have fewer.
    pub tokens: u64,
    /// Floating-point operations by [`training_flops`], of plain rows too.
    pub flops: f64,
}
