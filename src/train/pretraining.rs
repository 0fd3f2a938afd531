//! The training job of a pretraining run file.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;

use super::job::{EvaluationSpec, Job};
use crate::batch::BatchSource;
use crate::batch::pretraining::RowForm;
use crate::bert::{BertConfig, BertPretraining, Recompute};
use crate::checkpoint::COPIED_FILES;
use crate::data::{Batches, Dataset, ExampleConfig, PreparedData, Split};
use crate::run::initial_state::data_fingerprint;
use crate::run::{EvaluateSettings, Run, preflight};
use crate::step::EvalSpec;
use crate::task::Precision;

/// Returns the evaluation of `model` on the held-out examples of `dataset`.
pub fn evaluation_spec(
    model: &BertConfig,
    precision: Precision,
    dataset: Arc<Dataset>,
    settings: &EvaluateSettings,
) -> EvaluationSpec {
    let examples = dataset.config();
    let task = BertPretraining {
        model: model.clone(),
        rows: RowForm {
            sequence_length: examples.sequence_length,
            max_predictions: examples.max_predictions_per_seq,
            sequences_per_row: 1,
        },
        sentence_pairs: examples.mode.is_pair(),
        recompute: Recompute::default(),
    };
    EvaluationSpec {
        step: EvalSpec { task: Arc::new(task), precision, rows: settings.micro_batch_size, replicas: 1 },
        source: Arc::new(Batches { dataset, sequences_per_row: 1 }),
        examples: settings.examples,
    }
}

/// Builds the job of `run` on `replicas` devices.
///
/// # Errors
/// If a split has too few documents, a setting is impossible for the data, a batch does not divide among the devices, or a
/// tokenizer file cannot be read.
pub fn pretraining_job(run: &Run, prepared: &Arc<PreparedData>, replicas: usize) -> anyhow::Result<Job> {
    let phases = 0..run.schedule.phases().len();
    let steps = phases.clone().map(|phase| run.step_spec(phase, replicas)).collect::<anyhow::Result<Vec<_>>>()?;
    let datasets = preflight::training_datasets(run, prepared)?;
    let batches = datasets.into_iter().zip(&steps).map(|(dataset, step)| -> Arc<dyn BatchSource> {
        Arc::new(Batches { dataset, sequences_per_row: step.task.examples_per_row() })
    });
    // Phases that are evaluated alike share the examples, and thereby the compiled evaluation.
    let mut evaluations: Vec<(ExampleConfig, EvaluationSpec)> = Vec::new();
    for phase in phases {
        let examples = run.held_out_examples(phase);
        let spec = match evaluations.iter().find(|(earlier, _)| *earlier == examples) {
            Some((_, spec)) => spec.clone(),
            None => {
                let dataset = Arc::new(Dataset::new(prepared.clone(), Split::HeldOut, examples.clone())?);
                evaluation_spec(&run.model, run.precision, dataset, &run.evaluate)
            }
        };
        evaluations.push((examples, spec));
    }
    Ok(Job {
        name: run.name.clone(),
        seed: run.seed,
        schedule: run.schedule.clone(),
        skip_non_finite: run.skip_non_finite,
        batches: batches.collect(),
        steps,
        evaluations: evaluations.into_iter().map(|(_, spec)| spec).collect(),
        evaluate_every: run.evaluate.every,
        selection: None,
        checkpoint: run.checkpoint.clone(),
        work: run.work(),
        fingerprint: run.fingerprint(&data_fingerprint(prepared.manifest())),
        vocabulary_sha256: prepared.vocabulary().sha256().to_owned(),
        files: copied_files(run, prepared)?,
    })
}

/// Reads the run file, the model's configuration and the tokenizer, as they go into checkpoints.
fn copied_files(run: &Run, prepared: &PreparedData) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut config = serde_json::to_value(&run.model)?;
    config["model_type"] = "bert".into();
    config["architectures"] = json!(["BertForPreTraining"]);
    let mut files = vec![
        ("run.toml".to_owned(), run.text.clone().into_bytes()),
        ("config.json".to_owned(), serde_json::to_vec_pretty(&config)?),
    ];
    let tokenizer = prepared.tokenizer_directory();
    for name in COPIED_FILES {
        let path = tokenizer.join(name);
        if files.iter().all(|(taken, _)| taken != name) && path.exists() {
            let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((name.to_owned(), content));
        }
    }
    Ok(files)
}
