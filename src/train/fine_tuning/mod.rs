//! Fine-tuning runs: the job of a run file, the metrics of its held-out examples, and the launch for one or several seeds.

pub mod launch;
pub mod scorer;

use std::sync::Arc;

use self::scorer::TaskScorer;
use super::divergence::AlarmSpec;
use super::evaluator::EvaluationSpec;
use super::job::{Job, Selection};
use crate::bert::Head;
use crate::run::fine_tuning::FineTuning;
use crate::run::initial_state::Resumable;
use crate::schedule::PhaseWork;
use crate::step::EvalSpec;

pub use launch::{FineTuneEvent, FineTuneOptions, SeedResult, fine_tune};

/// Returns the evaluation of a run on its held-out examples.
///
/// # Errors
/// If the examples cannot be scored.
pub fn evaluation_spec(run: &FineTuning) -> anyhow::Result<EvaluationSpec> {
    let (data, settings) = (&run.data, &run.run.evaluate);
    let scorer = TaskScorer::new(data)?;
    Ok(EvaluationSpec {
        step: EvalSpec {
            task: run.task.clone(),
            precision: run.run.precision,
            rows: settings.micro_batch_size,
            replicas: 1,
            outputs: true,
        },
        source: data.dev.clone(),
        examples: data.dev.len(),
        baselines: scorer.ratio_baselines(&data.head),
        scorer: Some(Arc::new(scorer)),
    })
}

/// Builds the job of `run` on `replicas` devices; `evaluation` is its [`evaluation_spec`].
///
/// # Errors
/// If the batch does not divide among the devices, or a setting is impossible.
pub fn fine_tuning_job(run: &FineTuning, evaluation: EvaluationSpec, replicas: usize) -> anyhow::Result<Job> {
    let settings = &run.run;
    let work = PhaseWork {
        steps: run.schedule.steps(),
        flops_per_step: run.task.training_flops() * settings.train.global_batch as f64,
    };
    let classes = match &run.data.head {
        Head::QuestionAnswering => Some(settings.task.sequence_length),
        head => head.labels().map(<[String]>::len),
    };
    let uniform = classes.map(|classes| (classes as f64).ln());
    let evaluations = vec![evaluation];
    let alarm = AlarmSpec::new(settings.divergence, &*run.task, &evaluations, uniform);
    Ok(Job {
        name: settings.name.clone(),
        seed: settings.seed,
        schedule: run.schedule.clone(),
        skip_non_finite: settings.skip_non_finite,
        steps: vec![run.step_spec(replicas)?],
        batches: vec![run.data.train.clone()],
        evaluations,
        alarm,
        evaluate_every: run.evaluate_every(),
        probe: None,
        selection: Some(Selection {
            metric: settings.evaluate.metric(settings.task.kind)?.to_owned(),
            lower_is_better: false,
            patience: settings.evaluate.patience,
        }),
        checkpoint: settings.checkpoint.clone(),
        work: vec![work],
        fingerprint: run.fingerprint(),
        vocabulary_sha256: run.tokenizer().vocabulary.vocabulary.sha256().to_owned(),
        files: run.copied_files()?,
    })
}
