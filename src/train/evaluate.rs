//! Evaluation of a saved model, outside of a training run: its held-out metrics, and its logits.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};

use super::evaluator::Evaluator;
use super::pretraining::evaluation_spec;
use crate::batch::pretraining::RowForm;
use crate::bert::{BertPretraining, Kernels, Layers, Recompute, param_specs};
use crate::checkpoint::write_tensors;
use crate::data::{Batch, Dataset, ExampleConfig, PreparedData, Split};
use crate::files::write_atomically;
use crate::report::evaluation::Evaluation;
use crate::run::compatibility::{check_rows, check_tokenizer};
use crate::run::weights::FoundModel;
use crate::run::{EvaluateSettings, Run};
use crate::runtime::compile::Compiled;
use crate::runtime::devices::Devices;
use crate::runtime::state::{StateLayout, TrainState};
use crate::shape::HostTensor;
use crate::step::{ForwardSpec, ForwardStep, Scalars, StepInputs};
use crate::task::Precision;

/// A saved model, and the held-out examples that it is evaluated on.
#[derive(Debug)]
pub struct ModelOnHeldOut {
    /// The model and its weights.
    pub model: FoundModel,
    /// The held-out examples.
    pub dataset: Arc<Dataset>,
    /// The precision of the matrix products.
    pub precision: Precision,
    /// Notes for the user about the tokenizer.
    pub notes: Vec<String>,
}

impl ModelOnHeldOut {
    /// Opens the held-out examples of `prepared` for `model`. Precision and example settings are those of the run that
    /// trained the model, in the shape of its last phase, or the defaults for another model; `sequence_length` and
    /// `max_predictions_per_seq` override the shape.
    ///
    /// # Errors
    /// If the data has another vocabulary or other rules of words than the model, too few held-out documents, or the shape does not
    /// fit the model.
    pub fn open(
        model: FoundModel,
        prepared: &Arc<PreparedData>,
        sequence_length: Option<usize>,
        max_predictions_per_seq: Option<usize>,
    ) -> anyhow::Result<ModelOnHeldOut> {
        let used = prepared.tokenizer_files();
        let next = "prepare the text with the model's tokenizer";
        let compared = check_tokenizer(&model.checkpoint, &model.path, &used, next)?;
        let unused_rows = check_rows(model.path.display(), &model.config, &used.vocabulary)?;
        let run = model.run();
        let examples =
            held_out_examples(run.as_ref(), sequence_length.unwrap_or_else(|| model.trained_length(run.as_ref())));
        let predictions = max_predictions_per_seq.unwrap_or(examples.max_predictions_per_seq);
        let examples = ExampleConfig { max_predictions_per_seq: predictions, ..examples };
        model.config.validate_batch(examples.sequence_length, predictions)?;
        let segments = model.config.validate_segments(examples.mode.segments());
        segments.with_context(|| format!("{} takes no pairs of sentences", model.path.display()))?;
        let precision = run.map(|run| run.precision).unwrap_or_default();
        let dataset = Arc::new(Dataset::new(prepared.clone(), Split::HeldOut, examples)?);
        let notes = compared.into_iter().chain(unused_rows).collect();
        Ok(ModelOnHeldOut { model, dataset, precision, notes })
    }

    /// Evaluates the model.
    ///
    /// # Errors
    /// If the program cannot be compiled, the weights do not fit the model, or the data cannot be read any more.
    pub fn evaluate(self, settings: &EvaluateSettings, devices: &Devices) -> anyhow::Result<Evaluation> {
        let spec = evaluation_spec(&self.model.config, self.precision, self.dataset, settings)?;
        let evaluator = Evaluator::new(&spec, devices)?;
        let state = restore(self.model, devices)?;
        evaluator.evaluate(&state.unsharded_weights()?, devices)
    }

    /// Writes `input_ids`, `attention_mask`, `token_type_ids` s32\[B,S\], `prediction_logits` f32\[B,S,V\] and
    /// `seq_relationship_logits` f32\[B,2\] of the first `rows` held-out examples to `file`, as safetensors.
    ///
    /// # Errors
    /// If `file` exists, there are several devices, `rows` is 0, or as [`ModelOnHeldOut::evaluate`].
    pub fn write_logits(self, file: &Path, rows: usize, devices: &Devices) -> anyhow::Result<()> {
        ensure!(devices.len() == 1, "logits require one device, got {}", devices.len());
        ensure!(rows > 0, "logits require at least 1 example, got 0");
        ensure!(!file.exists(), "{} already exists; choose another file or remove it", file.display());
        let length = self.dataset.config().sequence_length;
        let batch = self.dataset.batch(0, rows)?;
        // The MLM head runs on masked positions only, so every position is marked as masked.
        let every_position = Batch {
            max_predictions: length,
            masked_lm_positions: (0..rows * length).map(|i| (i % length) as i32).collect(),
            masked_lm_ids: vec![0; rows * length],
            masked_lm_weights: vec![0.0; rows * length],
            ..batch
        };
        let batch = every_position.into_host(1);
        let task = BertPretraining {
            model: self.model.config.clone(),
            rows: RowForm { sequence_length: length, max_predictions: length, sequences_per_row: 1 },
            spare_rows: false,
            sentence_pairs: true,
            recompute: Recompute::default(),
            layers: Layers::default(),
            kernels: Kernels::default(),
        };
        let spec = ForwardSpec { model: Arc::new(task), precision: self.precision, rows, replicas: 1 };
        let forward = Compiled::new(devices, || Ok(ForwardStep::build(&spec)?.program))?;
        let state = restore(self.model, devices)?;
        let inputs = StepInputs { batch: &batch, scalars: Scalars::FORWARD, replicas: 1 };
        let launched = forward.run(devices, state.buffers(), &inputs)?;
        let input = |name: &str| {
            batch
                .tensor(name)
                .map(|tensor| HostTensor::clone(tensor))
                .with_context(|| format!("the batch has no {name}"))
        };
        let mut tensors = Vec::new();
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            tensors.push((name, input(name)?));
        }
        tensors.push(("prediction_logits", launched.read("masked_lm_logits")?.wait()?));
        tensors.push(("seq_relationship_logits", launched.read("seq_relationship_logits")?.wait()?));
        let tensors: Vec<(&str, &HostTensor)> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        write_atomically(file, |partial| write_tensors(partial, &tensors).map(drop))?;
        Ok(())
    }
}

/// Returns the configuration of held-out examples of `length` tokens for a model that `run` trained: those of its last phase with
/// this length. For another length, and for another model, there are as many masked positions as the rate requires.
fn held_out_examples(run: Option<&Run>, length: usize) -> ExampleConfig {
    // 15.6 %: 20 of 128, 80 of 512.
    let Some(run) = run else { return ExampleConfig::bert(length, (length * 5 / 32).max(1)) };
    let of_phases = (0..run.schedule.phases().len()).map(|phase| run.held_out_examples(phase));
    let of_length = of_phases.rev().find(|examples| examples.sequence_length == length);
    of_length.unwrap_or_else(|| run.data.examples(length, 1).masked_at(run.evaluate.masked_lm_prob))
}

/// Loads the weights of `model` onto the devices, replicated.
fn restore(model: FoundModel, devices: &Devices) -> anyhow::Result<TrainState> {
    let layout = StateLayout::replicated(param_specs(&model.config), &[]);
    TrainState::restore(layout, model.checkpoint, &model.path, 0, devices)
}
