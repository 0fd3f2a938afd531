//! The training job of a pretraining run file.

use std::sync::Arc;

use anyhow::Context;

use super::divergence::AlarmSpec;
use super::evaluator::EvaluationSpec;
use super::job::{Job, Selection};
use super::probe::ProbeSpec;
use crate::batch::pretraining::RowForm;
use crate::batch::{BatchSource, IGNORED_LABEL};
use crate::bert::{BertConfig, BertPretraining, Head, Kernels, Layers, Recompute};
use crate::checkpoint::{RUN_FILE, TOKENIZER_FILES};
use crate::data::{Batches, Dataset, ExampleConfig, PreparedData, Split, Tokenizer};
use crate::files;
use crate::metrics::LabelFrequencies;
use crate::predict::forward::ForwardSettings;
use crate::predict::probe::ProbeData;
use crate::report::baselines::Baselines;
use crate::run::initial_state::data_fingerprint;
use crate::run::weights::config_json;
use crate::run::{EvaluateSettings, Run, preflight};
use crate::schedule::Phase;
use crate::step::EvalSpec;
use crate::task::{Precision, Ratio};

/// Examples that are read at a time to count their labels.
const COUNTED_AT_ONCE: u64 = 256;

/// Returns the evaluation of `model` on the held-out examples of `dataset`, and counts their labels for the baselines.
///
/// # Errors
/// If the examples cannot be read.
pub fn evaluation_spec(
    model: &BertConfig,
    precision: Precision,
    dataset: Arc<Dataset>,
    settings: &EvaluateSettings,
) -> anyhow::Result<EvaluationSpec> {
    let examples = dataset.config();
    let task = BertPretraining {
        model: model.clone(),
        rows: RowForm {
            sequence_length: examples.sequence_length,
            max_predictions: examples.max_predictions_per_seq,
            sequences_per_row: 1,
        },
        spare_rows: false,
        sentence_pairs: examples.mode.is_pair(),
        recompute: Recompute::default(),
        layers: Layers::default(),
        kernels: Kernels::default(),
    };
    let mut spec = EvaluationSpec {
        step: EvalSpec {
            task: Arc::new(task),
            precision,
            rows: settings.micro_batch_size,
            replicas: 1,
            outputs: false,
        },
        source: Arc::new(Batches { dataset: dataset.clone(), sequences_per_row: 1 }),
        examples: settings.examples,
        baselines: Baselines::default(),
        scorer: None,
    };
    spec.baselines = baselines(&dataset, spec.count())?;
    Ok(spec)
}

/// Returns the baselines of the first `examples` examples of `dataset`: for MLM, the entropy of their masked tokens and the
/// rate of the most frequent one; for NSP, the entropy of their labels and the rate of the more frequent one. All examples
/// are counted on every host, so all hosts have the same baselines.
///
/// # Errors
/// If the examples cannot be read.
pub fn baselines(dataset: &Dataset, examples: u64) -> anyhow::Result<Baselines> {
    let mut tokens = LabelFrequencies::new(dataset.prepared().vocabulary().len());
    let mut second_segments = LabelFrequencies::new(2);
    for first in (0..examples).step_by(COUNTED_AT_ONCE as usize) {
        let batch = dataset.batch(first, COUNTED_AT_ONCE.min(examples - first) as usize)?;
        let masked = batch.masked_lm_ids.iter().zip(&batch.masked_lm_weights).filter(|(_, weight)| **weight > 0.0);
        tokens.extend(masked.map(|(&id, _)| id as usize));
        let labels = batch.next_sentence_labels.into_iter().filter(|&label| label != IGNORED_LABEL);
        second_segments.extend(labels.map(|label| label as usize));
    }
    let baselines = Baselines::default().with_labels("mlm_loss", "mlm_accuracy", &tokens);
    Ok(baselines.with_labels("nsp_loss", "nsp_accuracy", &second_segments))
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
                evaluation_spec(&run.model, run.precision, dataset, &run.evaluate)?
            }
        };
        evaluations.push((examples, spec));
    }
    let evaluations: Vec<EvaluationSpec> = evaluations.into_iter().map(|(_, spec)| spec).collect();
    let uniform = Some((run.model.vocab_size as f64).ln());
    let alarm = AlarmSpec::new(run.divergence, &*steps[0].task, &evaluations, uniform);
    Ok(Job {
        name: run.name.clone(),
        seed: run.seed,
        schedule: run.schedule.clone(),
        skip_non_finite: run.skip_non_finite,
        batches: batches.collect(),
        steps,
        evaluations,
        alarm,
        probe: probe_spec(run, prepared)?,
        evaluate_every: run.evaluate.every,
        selection: selection(run)?,
        checkpoint: run.checkpoint.clone(),
        work: run.work(),
        fingerprint: run.fingerprint(&data_fingerprint(prepared.manifest())),
        vocabulary_sha256: prepared.vocabulary().sha256().to_owned(),
        files: copied_files(run, prepared)?,
    })
}

/// Returns the choice of the best checkpoint of `run`, if it makes one.
///
/// # Errors
/// If the run has no metric of this name.
pub fn selection(run: &Run) -> anyhow::Result<Option<Selection>> {
    let of_metric = |(ratio, name): (Ratio, &String)| Selection {
        metric: name.clone(),
        lower_is_better: ratio.kind.is_loss(),
        patience: run.evaluate.patience,
    };
    Ok(run.selection_metric()?.zip(run.evaluate.metric.as_ref()).map(of_metric))
}

/// Returns the probe of a run, if it has one. Texts are truncated to the sequence length of each phase.
///
/// # Errors
/// If its file cannot be read, misses a column, or has too few rows of a label.
fn probe_spec(run: &Run, prepared: &PreparedData) -> anyhow::Result<Option<ProbeSpec>> {
    let Some(file) = &run.evaluate.probe else { return Ok(None) };
    let tokenizer = Tokenizer::open(&prepared.tokenizer_directory(), false)?;
    let columns = run.evaluate.probe_columns();
    let of_phase = |phase: &Phase| {
        let data = ProbeData::read(file, None, &columns, &tokenizer, phase.sequence_length);
        let data = data.context("[evaluate] probe")?;
        run.model.validate_segments(data.segments()).context("[evaluate] probe_text_pair")?;
        Ok(Arc::new(data))
    };
    let data = run.schedule.phases().iter().map(of_phase).collect::<anyhow::Result<_>>()?;
    let settings = ForwardSettings { precision: run.precision, micro_batch_size: run.evaluate.micro_batch_size };
    Ok(Some(ProbeSpec { model: run.model.clone(), settings, data }))
}

/// Reads the run file, the model's configuration and the tokenizer, as they go into checkpoints.
fn copied_files(run: &Run, prepared: &PreparedData) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let config = config_json(&run.model, &Head::Pretraining)?;
    let mut files = vec![
        (RUN_FILE.to_owned(), run.text.clone().into_bytes()),
        ("config.json".to_owned(), serde_json::to_vec_pretty(&config)?),
    ];
    let (tokenizer, recorded) = (prepared.tokenizer_directory(), &prepared.manifest().tokenizer);
    for name in TOKENIZER_FILES {
        let path = tokenizer.join(name);
        if recorded.contains_key(name) || path.exists() {
            let content = files::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.push((name.to_owned(), content));
        }
    }
    Ok(files)
}
