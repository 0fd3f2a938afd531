//! The inputs of the trainer, independent of the task; `pretraining.rs` builds the job of a run file.

use std::sync::Arc;

use crate::batch::BatchSource;
use crate::run::CheckpointSettings;
use crate::schedule::{PhaseWork, Schedule};
use crate::step::{EvalSpec, StepSpec};

/// The inputs of the trainer for one run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The name of the run.
    pub name: String,
    /// The seed of the run.
    pub seed: u64,
    /// The schedule.
    pub schedule: Schedule,
    /// Updates with a gradient that is not finite that may be skipped before the run stops.
    pub skip_non_finite: u64,
    /// The step of each phase, on all devices of the run.
    pub steps: Vec<StepSpec>,
    /// The training batches of each phase.
    pub batches: Vec<Arc<dyn BatchSource>>,
    /// The evaluation of each phase.
    pub evaluations: Vec<EvaluationSpec>,
    /// Steps between evaluations; 0 for the last step of each phase only.
    pub evaluate_every: u64,
    /// The `[checkpoint]` table.
    pub checkpoint: CheckpointSettings,
    /// The work of one step of each phase with one example per row, for the estimate of the time left.
    pub work: Vec<PhaseWork>,
    /// The identity of the settings and the data, which a resumed run must share.
    pub fingerprint: String,
    /// The sha256 of the vocabulary; empty for tasks without one.
    pub vocabulary_sha256: String,
    /// Names and contents of files that are copied into every checkpoint.
    pub files: Vec<(String, Vec<u8>)>,
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
}

impl PartialEq for EvaluationSpec {
    fn eq(&self, other: &EvaluationSpec) -> bool {
        self.step == other.step && self.examples == other.examples && Arc::ptr_eq(&self.source, &other.source)
    }
}
