//! The summary of a run: the table that is printed at its end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use super::evaluation::Evaluation;
use super::events::StepEvent;
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
    compiling: Duration,
    evaluating: Duration,
    saving: Duration,
    /// First and last evaluation, with their steps.
    evaluations: Option<[(u64, Evaluation); 2]>,
    last_checkpoint: Option<PathBuf>,
}

impl Summary {
    /// Creates the summary of a run on `schedule` in `directory` that took `compiling` to compile.
    pub fn new(schedule: &Schedule, directory: &Path, compiling: Duration) -> Summary {
        let phase = |phase: &Phase| PhaseSummary {
            name: phase.name.clone(),
            sequence_length: phase.sequence_length,
            ..PhaseSummary::default()
        };
        Summary {
            phases: schedule.phases().iter().map(phase).collect(),
            directory: directory.to_path_buf(),
            compiling,
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
    pub fn evaluation(&mut self, step: u64, evaluation: Evaluation, took: Duration) {
        self.evaluating += took;
        let last = (step, evaluation);
        let first = self.evaluations.take().map_or_else(|| last.clone(), |[first, _]| first);
        self.evaluations = Some([first, last]);
    }

    /// Adds a checkpoint.
    pub fn saved(&mut self, path: PathBuf, took: Duration) {
        self.saving += took;
        self.last_checkpoint = Some(path);
    }

    /// Returns the newest checkpoint of this process.
    pub fn last_checkpoint(&self) -> Option<&Path> {
        self.last_checkpoint.as_deref()
    }

    /// Formats the table and the lines below it.
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
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
        lines.push(format!(
            "time outside of steps: compilation {}, evaluation {}, checkpoints {}",
            duration(self.compiling),
            duration(self.evaluating),
            duration(self.saving)
        ));
        if let Some([(from, first), (to, last)]) = &self.evaluations {
            lines.push(format!("held-out, step {from} to {to}: {}", first.to_text_with(last)));
        }
        if let Some(checkpoint) = &self.last_checkpoint {
            lines.push(format!("newest checkpoint  {}", checkpoint.display()));
        }
        let directory = self.directory.display();
        lines.push(format!("metrics            {directory}/metrics.jsonl, tensorboard --logdir {directory}"));
        lines.join("\n")
    }
}
