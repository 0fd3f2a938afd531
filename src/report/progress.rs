//! What a person sees while a run works: one bar on a terminal, a plain line every few seconds anywhere else. Both go to
//! standard error; the summary table at the end goes to standard output and belongs to the verb.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::events::StepEvent;
use crate::output::note;
use crate::schedule::PhaseWork;
use crate::task::Ratio;
use crate::units::{duration, quantity};

/// Time between plain lines when standard error is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Rates are averages over about this many steps: steady to read, quick to show a change.
const RATE_STEPS: f64 = 20.0;

/// The display of one run.
#[derive(Debug)]
pub struct Progress {
    /// Of a run's hosts, one shows it.
    shown: bool,
    bar: Option<ProgressBar>,
    phases: Vec<PhaseWork>,
    /// Of one step: all of it, and the wait for its batch.
    seconds_a_step: Option<[f64; 2]>,
    /// The phase that `seconds_a_step` was measured in.
    phase: usize,
    last_line: Option<Instant>,
}

impl Progress {
    /// `done` steps of the whole run lie behind (a resumed run starts there).
    pub fn new(phases: Vec<PhaseWork>, done: u64, shown: bool) -> Progress {
        let total: u64 = phases.iter().map(|phase| phase.steps).sum();
        let bar = (shown && console::user_attended_stderr()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            // The template is a constant of this file; a fault in it shows in the first test.
            let style = ProgressStyle::with_template("{bar:24.cyan/dim} {pos}/{len}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            bar
        });
        Progress { shown, bar, phases, seconds_a_step: None, phase: 0, last_line: None }
    }

    /// Shows one finished step, with the metric `accuracy`.
    pub fn step(&mut self, step: &StepEvent, accuracy: Option<&Ratio>) {
        let times = [step.elapsed, step.waited].map(|time| time.as_secs_f64());
        if step.plan.phase != self.phase {
            self.seconds_a_step = None;
            self.phase = step.plan.phase;
        }
        let averages = match self.seconds_a_step {
            Some(averages) => std::array::from_fn(|i| averages[i] + (times[i] - averages[i]) / RATE_STEPS),
            None => times,
        };
        self.seconds_a_step = Some(averages);
        let [seconds, waiting] = averages;
        let line = format!(
            "phase {}/{}  epoch {:.2}  loss {:.4}{}  {} seq/s  {} tok/s  data wait {:.1} %  ETA {}",
            step.plan.phase + 1,
            self.phases.len(),
            step.epochs,
            step.metric("loss"),
            accuracy.map_or(String::new(), |a| format!("  {} {:.1} %", a.label, 100.0 * step.metric(a.name))),
            quantity(step.plan.global_batch as f64 / seconds),
            quantity(step.positions as f64 / seconds),
            100.0 * (waiting / seconds).min(1.0),
            duration(time_left(&self.phases, step.done, seconds)),
        );
        let total: u64 = self.phases.iter().map(|phase| phase.steps).sum();
        match &self.bar {
            Some(bar) => {
                bar.set_position(step.done);
                bar.set_message(line);
            }
            None if !self.shown => {}
            None if step.done == total || self.last_line.is_none_or(|at| at.elapsed() >= PLAIN_INTERVAL) => {
                note(format_args!("step {}/{total}  {line}", step.done));
                self.last_line = Some(Instant::now());
            }
            None => {}
        }
    }

    /// Prints a line that stays: above the bar, or like any other.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(line)),
            None if self.shown => note(line),
            None => {}
        }
    }

    /// Leaves the bar as it stands.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Time that the steps after `step` take, if each of this phase takes `seconds` and those of later phases in proportion
/// to their work.
fn time_left(phases: &[PhaseWork], step: u64, seconds: f64) -> Duration {
    let mut begin = 0;
    let mut flops_a_second = None;
    let mut left = 0.0;
    for phase in phases {
        let end = begin + phase.steps;
        // The step just done was step - 1, counted from 0.
        if step.saturating_sub(1) < end {
            let rate = *flops_a_second.get_or_insert(phase.flops_a_step / seconds);
            left += (end - step.max(begin)) as f64 * phase.flops_a_step / rate;
        }
        begin = end;
    }
    Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_counts_later_phases_by_their_work() {
        let phases = [PhaseWork { steps: 100, flops_a_step: 1.0 }, PhaseWork { steps: 10, flops_a_step: 4.0 }];
        // 40 steps of 0.5 s remain, then 10 steps of 2 s.
        assert_eq!(time_left(&phases, 60, 0.5), Duration::from_secs(40));
        // At the last step of phase 1, only phase 2 remains; inside it, its own rate counts.
        assert_eq!(time_left(&phases, 100, 0.5), Duration::from_secs(20));
        assert_eq!(time_left(&phases, 104, 3.0), Duration::from_secs(18));
        assert_eq!(time_left(&phases, 110, 3.0), Duration::ZERO);
    }
}
