//! The inputs of the trainer, independent of the task; `pretraining.rs` builds the job of a run file.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::divergence::AlarmSpec;
use super::evaluator::EvaluationSpec;
use super::probe::ProbeSpec;
use crate::batch::BatchSource;
use crate::checkpoint::{Best, RUN_FILE};
use crate::report::settings;
use crate::run::CheckpointSettings;
use crate::schedule::{PhaseWork, Schedule};
use crate::step::StepSpec;
use crate::units::{counted, thousands};

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
    /// The probe of each evaluation, for runs with one.
    pub probe: Option<ProbeSpec>,
    /// Steps between evaluations; 0 for the last step of each phase only.
    pub evaluate_every: u64,
    /// The choice of the best checkpoint; none for runs that keep the newest ones only.
    pub selection: Option<Selection>,
    /// The divergence alarm.
    pub alarm: AlarmSpec,
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

impl Job {
    /// Returns the settings of the run file by dotted keys.
    ///
    /// # Errors
    /// If the run file is not TOML.
    pub fn settings(&self) -> anyhow::Result<BTreeMap<String, Value>> {
        let Some((_, text)) = self.files.iter().find(|(name, _)| name == RUN_FILE) else { return Ok(BTreeMap::new()) };
        settings::of_run_file(RUN_FILE.as_ref(), text).map(|table| settings::by_dotted_key(&table))
    }
}

/// The choice of the best checkpoint: the evaluation with the best value of a metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The name of the metric.
    pub metric: String,
    /// Whether lower values are better, as of a loss.
    pub lower_is_better: bool,
    /// Evaluations without a better value after which the run stops; 0 never stops early.
    pub patience: u64,
}

impl Selection {
    /// Returns the best evaluation after one with `value` at `step`. An equal value is not better, NaN never is.
    pub fn updated(&self, best: Option<Best>, value: f64, step: u64) -> Option<Best> {
        let improves = |best: &Best| if self.lower_is_better { value < best.value } else { value > best.value };
        match best {
            Some(best) if !improves(&best) => Some(Best { evaluations_since: best.evaluations_since + 1, ..best }),
            None if value.is_nan() => None,
            _ => Some(Best { metric: self.metric.clone(), value, step, evaluations_since: 0 }),
        }
    }

    /// Returns the best evaluation of an earlier part of the run, if it is one of this metric: values of different metrics cannot
    /// be compared.
    pub fn resumed(&self, earlier: Option<Best>) -> Option<Best> {
        earlier.filter(|best| best.metric == self.metric)
    }

    /// Returns the best evaluation of an earlier part of the run, `earlier`, if that part has stopped early.
    pub fn stopped(&self, earlier: Option<Best>) -> Option<Best> {
        self.resumed(earlier).filter(|best| self.stops(Some(best)))
    }

    /// Returns the sentence about a run that stopped early after the evaluation `best`.
    pub fn sentence(best: &Best) -> String {
        let Best { metric, value, step, evaluations_since } = best;
        let since = counted(*evaluations_since, "evaluation");
        format!(
            "stopped early: {metric} has not improved for {since}; it was best at step {} ({value:.4})",
            thousands(*step)
        )
    }

    /// Returns whether a run whose best evaluation is `best` stops before its last step.
    pub fn stops(&self, best: Option<&Best>) -> bool {
        self.patience > 0 && best.is_some_and(|best| best.evaluations_since >= self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_stops_after_as_many_evaluations_without_a_better_value_as_its_patience() {
        let selection = Selection { metric: "f1".to_owned(), lower_is_better: false, patience: 2 };
        let mut best = None;
        let mut stops = Vec::new();
        for (step, value) in [(1, f64::NAN), (2, 0.5), (3, 0.5), (4, 0.7), (5, 0.6), (6, f64::NAN)] {
            best = selection.updated(best, value, step);
            stops.push(selection.stops(best.as_ref()));
        }
        assert_eq!(stops, [false, false, false, false, false, true]);
        assert_eq!(best.as_ref().map(|best| (best.value, best.step)), Some((0.7, 4)));
        assert!(!Selection { patience: 0, ..selection.clone() }.stops(None));
        assert_eq!(selection.stopped(best.clone()), best);
        assert_eq!(
            Selection { patience: 3, ..selection.clone() }.stopped(best.clone()),
            None,
            "a larger patience goes on"
        );
        let sentence = best.as_ref().map(Selection::sentence);
        let expected = "stopped early: f1 has not improved for 2 evaluations; it was best at step 4 (0.7000)";
        assert_eq!(sentence.as_deref(), Some(expected));
    }

    #[test]
    fn a_run_that_resumes_with_another_metric_selects_anew() {
        let selection = |metric: &str| Selection { metric: metric.to_owned(), lower_is_better: false, patience: 2 };
        let best = selection("f1").updated(None, 0.9, 4);
        assert_eq!(Selection { patience: 1, ..selection("f1") }.resumed(best.clone()), best);
        assert_eq!(selection("matthews").resumed(best.clone()), None);
        assert_eq!(selection("ema_f1").resumed(best), None);
    }

    #[test]
    fn the_lowest_loss_is_the_best() {
        let selection = Selection { metric: "ema_mlm_loss".to_owned(), lower_is_better: true, patience: 0 };
        let values = [(1, 5.0), (2, 4.0), (3, f64::NAN), (4, 4.0), (5, 4.5)];
        let best = values.into_iter().fold(None, |best, (step, value)| selection.updated(best, value, step));
        let best = best.unwrap();
        assert_eq!((best.metric.as_str(), best.value, best.step, best.evaluations_since), ("ema_mlm_loss", 4.0, 2, 3));
    }
}
