//! A training run: the run file, the checked settings that it resolves to, and everything about a run that needs no device
//! (its data, its initial state, its initial weights).
//!
//! A [`Run`] holds no device, no buffer and no open file. Two runs with equal [`Run::settings`] on equal data take the same
//! steps; the other fields (checkpoints, micro-batch size, evaluation) change no weight beyond rounding.

pub mod average;
pub mod buckets;
pub mod compatibility;
pub mod config;
pub mod extension;
pub mod file;
mod file_values;
pub mod fine_tuning;
pub mod initial_state;
pub mod positions;
pub mod preflight;
pub mod settings;
pub mod shared_values;
pub mod weights;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use serde_json::{Value, json};

use self::config::RunConfig;
use self::file::RunFile;
pub use self::settings::{
    CheckpointSettings, CompileSettings, DataSettings, DivergenceAction, DivergenceSettings, EmaSettings,
    EvaluateSettings,
};
use crate::batch::pretraining::RowForm;
use crate::bert::flops::training_flops;
use crate::bert::{AttentionForm, BertConfig, BertPretraining, KernelChoice, Kernels, Layers, Recompute};
use crate::data::{ExampleConfig, MaskingRamp, data_manifest, max_predictions_per_row};
use crate::digest::sha256_hex;
use crate::optim::{OptimizerConfig, ema};
use crate::schedule::{MaskingRate, PhaseWork, Schedule};
use crate::step::StepSpec;
use crate::step::parallel::{GradientReduceDtype, ParallelSettings};
use crate::task::{Model, Precision, Ratio, Task};
use crate::units::thousands;

/// The phases that a listing for people shows, at most.
pub const SHOWN_PHASES: usize = 20;

/// Keys of a `[[phase]]` that have been renamed, with the names that fingerprints and earlier checkpoints use.
const FIRST_NAMES_IN_PHASE: [(&str, &str); 2] =
    [("max_predictions_per_seq", "predictions"), ("micro_batch_size", "micro_batch")];

/// A training run: the checked settings of a run file.
#[derive(Clone, Debug)]
pub struct Run {
    /// The name of the run.
    pub name: String,
    /// The seed of weights, data order, masking and dropout.
    pub seed: u64,
    /// The precision of the matrix products.
    pub precision: Precision,
    /// The activations that the backward pass recomputes instead of storing.
    pub recompute: Recompute,
    /// The `[compile]` table.
    pub compile: CompileSettings,
    /// The `[kernels]` table.
    pub kernels: Kernels,
    /// Steps with a gradient that is not finite that are skipped before the run stops.
    pub skip_non_finite: u64,
    /// The configuration of the model.
    pub model: BertConfig,
    /// The directory of the first weights: a Hugging Face model or a checkpoint. Without it they are drawn with the seed.
    pub import: Option<PathBuf>,
    /// The optimizer and its settings.
    pub optimizer: OptimizerConfig,
    /// The `[ema]` table, if the run keeps an average of the weights.
    pub ema: Option<EmaSettings>,
    /// The phases, with batch sizes and learning rates.
    pub schedule: Schedule,
    /// The `[data]` table.
    pub data: DataSettings,
    /// The `[parallel]` table.
    pub parallel: ParallelSettings,
    /// The `[evaluate]` table.
    pub evaluate: EvaluateSettings,
    /// The `[divergence]` table.
    pub divergence: DivergenceSettings,
    /// The `[checkpoint]` table.
    pub checkpoint: CheckpointSettings,
    /// The run file as text with overrides applied. Every checkpoint contains a copy.
    pub text: String,
}

impl Run {
    /// Reads and checks the run file `path` with `overrides` (`checkpoint.keep=5`, `phase.2.steps=20`) applied. The default of
    /// the vocabulary size is that of the imported weights or, without `import`, that of the prepared data.
    ///
    /// # Errors
    /// If the file cannot be read, is not TOML, or has a key or value that is not allowed; the message names the file, the
    /// table and the key.
    pub fn open(path: &Path, overrides: &[String]) -> anyhow::Result<Run> {
        Run::of_file(&RunFile::read(path, overrides)?)
    }

    /// Checks a run file that was read, as [`Run::open`] does.
    ///
    /// # Errors
    /// As [`Run::open`].
    pub fn of_file(file: &RunFile) -> anyhow::Result<Run> {
        let config: RunConfig = file.parse()?;
        // Data that does not exist is reported later, by the caller that needs it; damaged data is reported first.
        let tokens = data_manifest(&config.data.path)?.map(|manifest| manifest.vocabulary_size);
        let weights = config.configuration_of_import(file)?;
        config.into_run(file, weights.as_ref(), tokens)
    }

    /// Reads the run from a checkpoint's copy of the run file; `origin` is named in errors. `model` is the configuration in the
    /// checkpoint.
    ///
    /// # Errors
    /// If `text` is not a run file of this or an earlier version.
    pub fn from_checkpoint(origin: &Path, text: &str, model: &BertConfig) -> anyhow::Result<Run> {
        let file = RunFile::from_checkpoint(origin, text);
        file.parse::<RunConfig>()?.into_run(&file, Some(model), None)
    }

    /// Returns the configuration of the training examples of phase `phase`.
    pub fn training_examples(&self, phase: usize) -> ExampleConfig {
        let shape = &self.schedule.phases()[phase];
        let rate = shape.masked_lm_prob.unwrap_or(MaskingRate::Constant(self.data.masked_lm_prob));
        let (masked_lm_prob, to) = rate.ends();
        ExampleConfig {
            masked_lm_prob,
            masking_ramp: to.map(|to| MaskingRamp { to, examples: shape.sequences() }),
            mask_shares: self.data.mask_shares,
            masking: self.data.masking,
            seed: self.seed,
            phase: phase as u32,
            ..self.data.examples(shape.sequence_length, shape.max_predictions_per_seq)
        }
    }

    /// Returns the configuration of the held-out examples in the shape of phase `phase`, masked at the rate of `[evaluate]`. If the
    /// phase trains at this rate, its maximum of masked positions applies too.
    pub fn held_out_examples(&self, phase: usize) -> ExampleConfig {
        let trained = self.training_examples(phase);
        let rate = self.evaluate.masked_lm_prob;
        let mut examples = self.data.examples(trained.sequence_length, trained.max_predictions_per_seq).masked_at(rate);
        if trained.masked_lm_prob == rate && trained.masking_ramp.is_none() {
            examples.max_predictions_per_seq = examples.max_predictions_per_seq.min(trained.max_predictions_per_seq);
        }
        examples
    }

    /// Returns the task of phase `phase`, whose rows hold up to `sequences_per_row` sequences.
    pub fn task(&self, phase: usize, sequences_per_row: usize) -> BertPretraining {
        let examples = self.training_examples(phase);
        BertPretraining {
            model: self.model.clone(),
            rows: RowForm {
                sequence_length: examples.sequence_length,
                max_predictions: max_predictions_per_row(&examples, sequences_per_row),
                sequences_per_row,
            },
            spare_rows: self.schedule.phases()[phase].batch_ramp.is_some(),
            sentence_pairs: self.data.mode.is_pair(),
            recompute: self.recompute,
            layers: self.compile.layers,
            kernels: self.kernels,
        }
    }

    /// Returns the run with the form of its programs that `auto` stands for on `platform`, by the name that its plugin reports.
    pub fn on_platform(&self, platform: &str) -> Run {
        Run { kernels: self.kernels.on(platform), ..self.clone() }
    }

    /// Returns the metrics of the held-out examples.
    pub fn held_out_metrics(&self) -> Vec<Ratio> {
        let has_labels = |ratio: &&Ratio| self.data.mode.is_pair() || ratio.name.starts_with("mlm_");
        self.task(0, 1).ratios().iter().filter(has_labels).copied().collect()
    }

    /// Returns the held-out metric that selects the best checkpoint, if the run selects one: the metric of the name `[evaluate] metric`.
    /// A run with `[ema]` also has those of the averaged weights, such as `ema_mlm_loss`, which are the same ratios.
    ///
    /// # Errors
    /// If the task has no metric of that name. Single segments have none of their second label.
    pub fn selection_metric(&self) -> anyhow::Result<Option<Ratio>> {
        let Some(name) = &self.evaluate.metric else { return Ok(None) };
        let ratios = self.held_out_metrics();
        let of_weights = ratios.iter().map(|ratio| (ratio.name.to_owned(), *ratio));
        let of_average =
            ratios.iter().filter(|_| self.ema.is_some()).map(|ratio| (ema::metric_name(ratio.name), *ratio));
        let known: Vec<(String, Ratio)> = of_weights.chain(of_average).collect();
        let Some((_, found)) = known.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
            bail!("[evaluate] metric requires one of {}, got {name:?}", names.join(", "));
        };
        Ok(Some(*found))
    }

    /// Returns the specification of the step of phase `phase` on `replicas` devices.
    ///
    /// # Errors
    /// If the global batch is not a multiple of the micro-batch size times `replicas`.
    pub fn step_spec(&self, phase: usize, replicas: usize) -> anyhow::Result<StepSpec> {
        let shape = &self.schedule.phases()[phase];
        let accumulation_steps = shape.accumulation_steps(replicas)?;
        let task = self.task(phase, shape.sequences_per_row(accumulation_steps));
        Ok(StepSpec {
            optimizer: self.optimizer.clone(),
            precision: self.precision,
            rows: shape.global_batch / replicas,
            accumulation_steps,
            replicas,
            parallel: self.parallel.resolve(&task.parameters(), self.state_kinds(), replicas),
            dropout: true,
            ema_decay: self.ema.map(|ema| ema.decay),
            task: Arc::new(task),
        })
    }

    /// Returns the number of state tensors of each parameter: those of the optimizer, and the average.
    pub fn state_kinds(&self) -> usize {
        self.optimizer.state_names().len() + usize::from(self.ema.is_some())
    }

    /// Returns the settings that determine the weights after each step, under the names of the run file. The layout of a
    /// batch in rows and micro-batches is not among them, nor is the sharding of the optimizer.
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
        let reduce_dtype = self.parallel.gradient_reduce_dtype;
        if reduce_dtype != GradientReduceDtype::default() {
            settings["parallel"] = json!({ "gradient_reduce_dtype": reduce_dtype });
        }
        if let Some(ema) = self.ema {
            settings["ema"] = json!(ema);
        }
        // A loop rounds differently; the other forms are one.
        if self.compile.layers == Layers::Loop {
            settings["compile"] = json!({ "layers": self.compile.layers });
        }
        for kernel in self.kernels.fused() {
            settings["kernels"][kernel.name()] = json!(KernelChoice::Triton);
        }
        if self.kernels.attention == AttentionForm::Separate {
            settings["kernels"]["attention"] = json!(AttentionForm::Separate);
        }
        settings
    }

    /// Returns the sha256 of [`Run::settings`] and the prepared data, which a resumed run must share with its checkpoint.
    pub fn fingerprint(&self, data_fingerprint: &str) -> String {
        Run::fingerprint_of(self.settings(), data_fingerprint)
    }

    /// Returns the fingerprint of a run with these [`Run::settings`] on this data.
    ///
    /// Fingerprints are an on-disk format: a key that has been renamed is hashed under its first name.
    pub fn fingerprint_of(mut settings: Value, data_fingerprint: &str) -> String {
        for phase in settings["phase"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            for (key, first_name) in FIRST_NAMES_IN_PHASE {
                if let Some(value) = phase.remove(key) {
                    phase.insert(first_name.to_owned(), value);
                }
            }
        }
        if let Some(parallel) = settings.get_mut("parallel").and_then(Value::as_object_mut)
            && let Some(value) = parallel.remove("gradient_reduce_dtype")
        {
            parallel.insert("gradient_exchange".to_owned(), value);
        }
        sha256_hex(format!("{settings}\n{data_fingerprint}").as_bytes())
    }

    /// Returns the sequences, tokens and FLOP of each phase.
    pub fn arithmetic(&self) -> Vec<Arithmetic> {
        let phases = self.schedule.phases();
        phases
            .iter()
            .map(|phase| {
                let sequences = phase.sequences();
                Arithmetic {
                    sequences,
                    tokens: sequences * phase.sequence_length as u64,
                    flops: sequences as f64
                        * training_flops(&self.model, phase.sequence_length, phase.max_predictions_per_seq),
                }
            })
            .collect()
    }

    /// Formats [`Run::arithmetic`] as the table at the top of the shipped run files, which a run also prints at its start: the
    /// first [`SHOWN_PHASES`] phases.
    pub fn arithmetic_table(&self) -> Vec<String> {
        let mut lines = vec!["phase   steps   batch  length       sequences            tokens      FLOP".to_owned()];
        for (index, (phase, sums)) in
            self.schedule.phases().iter().zip(self.arithmetic()).take(SHOWN_PHASES).enumerate()
        {
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

    /// Returns the work of each phase, for the estimate of the remaining time.
    pub fn work(&self) -> Vec<PhaseWork> {
        let phases = self.schedule.phases().iter();
        let flops = self.arithmetic().into_iter().map(|a| a.flops);
        phases
            .zip(flops)
            .map(|(phase, flops)| PhaseWork { steps: phase.steps, flops_per_step: flops / phase.steps.max(1) as f64 })
            .collect()
    }
}

/// The sequences, tokens and FLOP of one phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arithmetic {
    /// Sequences of all steps of the phase.
    pub sequences: u64,
    /// Token positions of rows that are not packed, padding included. Packed rows have fewer.
    pub tokens: u64,
    /// FLOP by [`training_flops`], of rows that are not packed.
    pub flops: f64,
}
