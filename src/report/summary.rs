//! The summary of a run: the table that is printed at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::CellAlignment;

use super::evaluation::Evaluation;
use super::events::StepEvent;
use super::goodput::Goodput;
use crate::output::table;
use crate::schedule::{Phase, Schedule};
use crate::task::Ratio;
use crate::units::{duration, quantity, thousands};

/// The totals of one phase in this process.
#[derive(Clone, Debug, Default)]
struct PhaseSummary {
    name: String,
    sequence_length: usize,
    steps: u64,
    time: Duration,
    waited: Duration,
    sequences: usize,
    /// Epochs over the phase's examples up to the last step.
    epochs: f64,
    last_loss: f64,
    /// Label and value of the task's first accuracy.
    last_accuracy: Option<(&'static str, f64)>,
}

/// The totals of a run in this process.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    phases: Vec<PhaseSummary>,
    directory: PathBuf,
    /// The scalars of the first evaluation of the run, and its step.
    first_evaluation: Option<(u64, Vec<(String, f64)>)>,
    /// The last evaluation and its step.
    last_evaluation: Option<(u64, Evaluation)>,
    last_checkpoint: Option<PathBuf>,
    /// The use of the time of all starts of the run.
    goodput: Option<String>,
    /// The sentence about the first divergence.
    divergence: Option<String>,
    /// The sentence about a run that stopped before its last step.
    stopped_early: Option<String>,
    /// The sentence about a model that has learned nothing.
    nothing_learned: Option<String>,
}

impl Summary {
    /// Creates the summary of a run on `schedule` in `directory`.
    pub fn new(schedule: &Schedule, directory: &Path) -> Summary {
        let phase = |phase: &Phase| PhaseSummary {
            name: phase.name.clone(),
            sequence_length: phase.sequence_length,
            ..PhaseSummary::default()
        };
        Summary {
            phases: schedule.phases().iter().map(phase).collect(),
            directory: directory.to_path_buf(),
            ..Summary::default()
        }
    }

    /// Adds a step, with the metric `accuracy`.
    pub fn step(&mut self, step: &StepEvent, accuracy: Option<&Ratio>) {
        let phase = &mut self.phases[step.plan.phase];
        phase.steps += 1;
        phase.time += step.elapsed;
        phase.waited += step.waited;
        phase.epochs = step.epochs;
        phase.sequences += step.plan.global_batch;
        phase.last_loss = step.metric("loss");
        phase.last_accuracy = accuracy.map(|accuracy| (accuracy.label, step.metric(accuracy.name)));
    }

    /// Adds an evaluation after `step` updates.
    pub fn evaluation(&mut self, step: u64, evaluation: Evaluation) {
        self.first_evaluation.get_or_insert_with(|| (step, evaluation.scalars()));
        self.last_evaluation = Some((step, evaluation));
    }

    /// Sets the evaluation before the first step of a resumed run, by its [`Evaluation::scalars`]. Later ones are compared
    /// with it.
    pub fn evaluation_before_first_step(&mut self, scalars: Vec<(String, f64)>) {
        self.first_evaluation = Some((0, scalars));
    }

    /// Sets the use of the time of all starts of the run.
    pub fn goodput(&mut self, goodput: &Goodput) {
        self.goodput = Some(goodput.to_text());
    }

    /// Adds the sentence about a divergence; the first one is shown.
    pub fn diverged(&mut self, sentence: String) {
        self.divergence.get_or_insert(sentence);
    }

    /// Sets the sentence about a model that has learned nothing.
    pub fn nothing_learned(&mut self, sentence: String) {
        self.nothing_learned = Some(sentence);
    }

    /// Sets the sentence about a run that stopped before its last step.
    pub fn stopped_early(&mut self, sentence: Option<String>) {
        self.stopped_early = sentence;
    }

    /// Sets the newest checkpoint.
    pub fn newest_checkpoint(&mut self, path: Option<PathBuf>) {
        self.last_checkpoint = path;
    }

    /// Returns the newest checkpoint of this process.
    pub fn last_checkpoint(&self) -> Option<&Path> {
        self.last_checkpoint.as_deref()
    }

    /// Formats the table and the lines below it.
    pub fn to_text(&self) -> String {
        let mut table = table::ruled();
        let accuracy = self.phases.iter().find_map(|phase| phase.last_accuracy).map_or("accuracy", |(label, _)| label);
        table.set_header([
            "phase",
            "sequence length",
            "steps",
            "epochs",
            "time",
            "seq/s",
            "loss",
            accuracy,
            "data wait",
        ]);
        for phase in self.phases.iter().filter(|phase| phase.steps > 0) {
            let seconds = phase.time.as_secs_f64();
            table.add_row([
                phase.name.clone(),
                phase.sequence_length.to_string(),
                thousands(phase.steps),
                format!("{:.2}", phase.epochs),
                duration(phase.time),
                quantity(phase.sequences as f64 / seconds),
                format!("{:.4}", phase.last_loss),
                phase.last_accuracy.map_or(String::new(), |(_, value)| format!("{:.1} %", 100.0 * value)),
                format!("{:.1} %", 100.0 * phase.waited.as_secs_f64() / seconds),
            ]);
        }
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        let mut lines = vec![table.to_string()];
        lines.extend(self.goodput.iter().map(|goodput| format!("goodput            {goodput}")));
        lines.extend(self.evaluation_lines());
        lines.extend(self.stopped_early.iter().chain(&self.divergence).chain(&self.nothing_learned).cloned());
        if let Some(checkpoint) = &self.last_checkpoint {
            lines.push(format!("newest checkpoint  {}", checkpoint.display()));
        }
        let directory = self.directory.display();
        lines.push(format!("metrics            {directory}/metrics.jsonl, tensorboard --logdir {directory}"));
        lines.join("\n")
    }

    /// Formats the last evaluation beside the first one and the baselines.
    fn evaluation_lines(&self) -> Vec<String> {
        let (Some((from, first)), Some((to, last))) = (&self.first_evaluation, &self.last_evaluation) else {
            return Vec::new();
        };
        let mut lines = vec![last.to_table_since(*to, (*from, first))];
        if *from > 0 {
            lines.push(
                "metrics.jsonl has no evaluation of step 0; the first one of this process is shown instead".to_owned(),
            );
        }
        if baselines(first) != baselines(&last.scalars()) {
            lines.push(format!(
                "step {from} was evaluated on other examples, for example of another sequence length; its baseline differs"
            ));
        }
        lines.extend(last.verdicts());
        lines
    }
}

/// Returns the baselines among the scalars of an evaluation, with the digits that survive a round trip through JSON.
fn baselines(scalars: &[(String, f64)]) -> Vec<String> {
    let baselines = scalars.iter().filter(|(name, _)| name.ends_with("_baseline"));
    baselines.map(|(name, value)| format!("{name} {value:.6}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricKind;
    use crate::report::baselines::Baselines;

    fn evaluation(loss: f64) -> Evaluation {
        let ratio = Ratio { name: "mlm_loss", label: "MLM loss", denominator: 0, kind: MetricKind::Loss };
        Evaluation::new(&[ratio], &[100.0 * loss, 100.0], &Baselines::default().with("mlm_loss", 5.0), 100)
    }

    /// The lines about evaluations, without spaces of alignment.
    fn lines(summary: &Summary) -> Vec<String> {
        let text = summary.evaluation_lines().join("\n");
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn the_last_evaluation_is_compared_with_that_of_step_0() {
        let mut summary = Summary::default();
        assert!(lines(&summary).is_empty());
        summary.evaluation(0, evaluation(9.0));
        summary.evaluation(4, evaluation(7.0));
        summary.evaluation(8, evaluation(6.0));
        let found = lines(&summary);
        assert!(found.contains(&"held-out step 0 step 8 baseline difference".to_owned()), "{found:?}");
        assert!(found.contains(&"MLM loss 9.0000 6.0000 5.0000 +1.0000".to_owned()), "{found:?}");
        assert!(found.last().is_some_and(|line| line.contains("MLM: no better than the label frequencies")));

        assert!(!found.iter().any(|line| line.contains("other examples")), "{found:?}");

        let mut resumed = Summary::default();
        resumed.evaluation_before_first_step(evaluation(9.0).scalars());
        resumed.evaluation(8, evaluation(6.0));
        assert_eq!(lines(&resumed), found);
    }

    #[test]
    fn evaluations_of_different_examples_are_told_apart() {
        let mut summary = Summary::default();
        let mut first = evaluation(9.0).scalars();
        first.iter_mut().filter(|(name, _)| name.ends_with("_baseline")).for_each(|(_, value)| *value += 0.25);
        summary.evaluation_before_first_step(first);
        summary.evaluation(8, evaluation(6.0));
        let found = lines(&summary);
        assert!(found.iter().any(|line| line.starts_with("step 0 was evaluated on other examples")), "{found:?}");
    }

    #[test]
    fn a_resumed_run_without_the_log_of_step_0_says_what_it_compares_with() {
        let mut summary = Summary::default();
        summary.evaluation(4, evaluation(7.0));
        summary.evaluation(8, evaluation(4.0));
        let found = lines(&summary);
        assert!(found.contains(&"held-out step 4 step 8 baseline difference".to_owned()), "{found:?}");
        assert!(found.iter().any(|line| line.contains("no evaluation of step 0")), "{found:?}");
    }
}
