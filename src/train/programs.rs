//! The compiled programs of a job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::evaluator::Evaluator;
use super::job::Job;
use crate::plan::saved::SavedSteps;
use crate::runtime::compile::Compiled;
use crate::runtime::devices::Devices;
use crate::step::TrainStep;

/// The compiled programs of a job: the step and the evaluation of each phase. Phases of one shape share them.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The step of each phase.
    pub steps: Vec<Arc<Compiled>>,
    /// The evaluation of each phase.
    pub evaluators: Vec<Arc<Evaluator>>,
    /// The time that compilation took.
    pub took: Duration,
}

impl Programs {
    /// Compiles the programs of `job`, or loads its steps from `saved`.
    ///
    /// # Errors
    /// If a program cannot be compiled, or `saved` holds other programs.
    pub fn new(job: &Job, devices: &Devices, saved: Option<&SavedSteps>) -> anyhow::Result<Programs> {
        let begin = Instant::now();
        let steps = once_each(&job.steps, |phase, spec| {
            let build = || Ok(TrainStep::build(spec)?.program);
            match saved {
                Some(saved) => saved.load(phase, devices, build),
                None => Compiled::new(devices, build),
            }
        })?;
        let evaluators = once_each(&job.evaluations, |_, spec| Evaluator::new(spec, devices))?;
        Ok(Programs { steps, evaluators, took: begin.elapsed() })
    }

    /// Returns the same programs for another run, which does not compile them again.
    #[must_use]
    pub fn reused(&self) -> Programs {
        Programs { took: Duration::ZERO, ..self.clone() }
    }

    /// Returns the most memory that a program has in use on one device, by the figures of the plugin; none if it has none.
    pub fn peak_bytes(&self) -> Option<u64> {
        let programs = self.steps.iter().map(Arc::as_ref).chain(self.evaluators.iter().map(|each| each.compiled()));
        let peaks = programs.filter_map(|program| program.executable.memory_stats().ok());
        peaks.map(|memory| memory.peak_estimate().max(0) as u64).max()
    }
}

/// Calls `make` with each of `specs` and its index; equal elements share one result.
fn once_each<S: PartialEq, M>(
    specs: &[S],
    mut make: impl FnMut(usize, &S) -> anyhow::Result<M>,
) -> anyhow::Result<Vec<Arc<M>>> {
    let mut results: Vec<Arc<M>> = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        results.push(match specs[..i].iter().position(|earlier| earlier == spec) {
            Some(earlier) => results[earlier].clone(),
            None => Arc::new(make(i, spec)?),
        });
    }
    Ok(results)
}
