//! The divergence alarm of a run: applies the rule of [`crate::divergence`] to the loss of its task.

use super::evaluator::EvaluationSpec;
use crate::divergence::{Divergence, Monitor, Numbers, References};
use crate::metrics::MetricKind;
use crate::report::events::StepEvent;
use crate::run::{DivergenceAction, DivergenceSettings};
use crate::schedule::Schedule;
use crate::task::{Ratio, Task};

/// The exit code of a run that stopped because training has diverged.
pub const DIVERGED: u8 = 4;

/// The loss that the alarm is about, and what it is compared with.
#[derive(Clone, Debug, Default)]
pub struct AlarmSpec {
    /// The `[divergence]` table.
    pub settings: DivergenceSettings,
    /// The first term of the task's loss; without one, the alarm has the norms only.
    pub loss: Option<Ratio>,
    /// The references of each phase.
    pub references: Vec<References>,
}

impl AlarmSpec {
    /// Returns the alarm of a task that is evaluated as `evaluations` in each phase; `uniform` is the loss of a uniform guess. A
    /// squared error has no scale, so it is compared with nothing.
    pub fn new(
        settings: DivergenceSettings,
        task: &dyn Task,
        evaluations: &[EvaluationSpec],
        uniform: Option<f64>,
    ) -> AlarmSpec {
        let loss = task.ratios().iter().find(|ratio| ratio.kind == MetricKind::Loss).copied();
        let of_phase = |evaluation: &EvaluationSpec| References {
            uniform: uniform.filter(|_| loss.is_some()),
            baseline: loss.and_then(|loss| evaluation.baselines.get(loss.name)),
        };
        AlarmSpec { settings, loss, references: evaluations.iter().map(of_phase).collect() }
    }
}

/// The alarm of a run in training.
#[derive(Debug)]
pub struct Alarm {
    spec: AlarmSpec,
    /// The warm-up steps of the first phase.
    warmup: f64,
    monitor: Monitor,
    /// The last evaluation: the updates done before it, and the loss.
    evaluated: Option<(u64, f64)>,
    raised: bool,
}

impl Alarm {
    /// Returns the alarm of a run on `schedule` that continues with `monitor`.
    pub fn new(spec: AlarmSpec, schedule: &Schedule, monitor: Monitor) -> Alarm {
        Alarm { spec, warmup: schedule.phases()[0].warmup_steps(), monitor, evaluated: None, raised: false }
    }

    /// Adds a finished step whose numbers are finite; returns the sign of divergence if it appears.
    pub fn observe(&mut self, step: &StepEvent) -> Option<Divergence> {
        let plan = &step.plan;
        let warms_up = plan.phase == 0 && (plan.step_in_phase as f64) < self.warmup;
        let numbers = Numbers {
            loss: step.metric(self.spec.loss.map_or("loss", |loss| loss.name)),
            gradient_norm: step.metric("grad_norm"),
            trust_ratio: finite(step.median_trust_ratio()),
        };
        let sign = self.monitor.observe(step.done, numbers, self.references(plan.phase), warms_up)?;
        self.raised = true;
        Some(sign)
    }

    /// Returns the sentence about a sign after `done` updates.
    pub fn sentence(&self, sign: &Divergence, done: u64) -> String {
        sign.sentence(done, self.spec.loss.map_or("loss", |loss| loss.label))
    }

    /// Adds an evaluation after `done` updates.
    pub fn evaluated(&mut self, done: u64, value: impl Fn(&str) -> f64) {
        self.evaluated = self.spec.loss.map(|loss| (done, value(loss.name)));
    }

    /// Adds the checkpoint after `done` updates, whose last one was of phase `phase`.
    pub fn saved(&mut self, done: u64, phase: usize) {
        let held_out = self.evaluated.filter(|(step, _)| *step == done).map(|(_, loss)| loss);
        self.monitor.saved(done, held_out, self.references(phase));
    }

    /// Returns a sentence if the run ends after `done` updates, whose last one was of phase `phase`, with a model that has learned
    /// nothing. A run whose divergence was reported is not judged again.
    pub fn nothing_learned(&self, done: u64, phase: usize) -> Option<String> {
        let loss = self.spec.loss.filter(|_| !self.raised)?;
        let (_, held_out) = self.evaluated.filter(|(step, _)| *step == done)?;
        let found = self.monitor.nothing_learned(held_out, self.references(phase))?;
        Some(found.sentence(loss.label))
    }

    /// Returns what a checkpoint records of the alarm.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Returns whether the run must not go on as it is.
    pub fn interrupts(&self) -> bool {
        self.raised && self.spec.settings.action != DivergenceAction::Warn
    }

    /// Returns whether the run goes back to the last good checkpoint, after it has done so `count` times.
    pub fn rolls_back(&self, count: u64) -> bool {
        let DivergenceSettings { action, max_roll_backs } = self.spec.settings;
        action == DivergenceAction::RollBack && count < max_roll_backs
    }

    /// Continues from a checkpoint that recorded `monitor`.
    pub fn restart(&mut self, monitor: Monitor) {
        (self.monitor, self.evaluated, self.raised) = (monitor, None, false);
    }

    fn references(&self, phase: usize) -> References {
        self.spec.references.get(phase).copied().unwrap_or_default()
    }
}

/// Returns the value, or the largest number in place of one that is not finite.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::MAX }
}
