//! The progress display of a run on standard error: a progress bar on a terminal, otherwise a line every few seconds.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::events::StepEvent;
use crate::output::{log, shows_bars};
use crate::schedule::PhaseWork;
use crate::task::Ratio;
use crate::units::{duration, quantity};

/// Time between lines when standard error is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);
/// Rates are moving averages over about this many steps.
const RATE_STEPS: f64 = 20.0;

/// The progress display of one run.
#[derive(Debug)]
pub struct Progress {
    /// Whether this host shows the display. One host of a run does.
    shown: bool,
    bar: Option<ProgressBar>,
    phases: Vec<PhaseWork>,
    /// Average seconds of one step, and of the wait for its batch.
    seconds_per_step: Option<[f64; 2]>,
    /// The phase in which `seconds_per_step` was measured.
    phase: usize,
    last_line: Option<Instant>,
}

impl Progress {
    /// Creates the display of a run with `phases`, of which `done` steps are done (more than 0 in a resumed run).
    pub fn new(phases: Vec<PhaseWork>, done: u64, shown: bool) -> Progress {
        let total: u64 = phases.iter().map(|phase| phase.steps).sum();
        let bar = (shown && shows_bars()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            // The template is constant, so an invalid one would show in the first test.
            let style = ProgressStyle::with_template("{bar:24.cyan/dim} {pos}/{len}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            bar
        });
        Progress { shown, bar, phases, seconds_per_step: None, phase: 0, last_line: None }
    }

    /// Shows a finished step, with the metric `accuracy`.
    pub fn step(&mut self, step: &StepEvent, accuracy: Option<&Ratio>) {
        let times = [step.elapsed, step.waited].map(|time| time.as_secs_f64());
        if step.plan.phase != self.phase {
            self.seconds_per_step = None;
            self.phase = step.plan.phase;
        }
        let averages = match self.seconds_per_step {
            Some(averages) => std::array::from_fn(|i| averages[i] + (times[i] - averages[i]) / RATE_STEPS),
            None => times,
        };
        self.seconds_per_step = Some(averages);
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
                log(format_args!("step {}/{total}  {line}", step.done));
                self.last_line = Some(Instant::now());
            }
            None => {}
        }
    }

    /// Prints a permanent line, above the progress bar if there is one.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| log(line)),
            None if self.shown => log(line),
            None => {}
        }
    }

    /// Stops the progress bar and leaves it on the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Estimates the time of the steps after `step`, if each step of this phase takes `seconds` and steps of later phases take
/// time in proportion to their work.
fn time_left(phases: &[PhaseWork], step: u64, seconds: f64) -> Duration {
    let mut begin = 0;
    let mut flops_per_second = None;
    let mut left = 0.0;
    for phase in phases {
        let end = begin + phase.steps;
        // The last finished step is step - 1, counted from 0.
        if step.saturating_sub(1) < end {
            let rate = *flops_per_second.get_or_insert(phase.flops_per_step / seconds);
            left += (end - step.max(begin)) as f64 * phase.flops_per_step / rate;
        }
        begin = end;
    }
    Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_proportional_to_the_work_of_later_phases() {
        let phases = [PhaseWork { steps: 100, flops_per_step: 1.0 }, PhaseWork { steps: 10, flops_per_step: 4.0 }];
        // 40 steps of 0.5 s remain, then 10 steps of 2 s.
        assert_eq!(time_left(&phases, 60, 0.5), Duration::from_secs(40));
        // After the last step of phase 1, only phase 2 remains. Within phase 2, its own rate applies.
        assert_eq!(time_left(&phases, 100, 0.5), Duration::from_secs(20));
        assert_eq!(time_left(&phases, 104, 3.0), Duration::from_secs(18));
        assert_eq!(time_left(&phases, 110, 3.0), Duration::ZERO);
    }
}
