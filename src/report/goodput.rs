//! The use of the wall time of a run over all its starts, computed from its `metrics.jsonl`: the share in which training advanced
//! (goodput), and where the rest went.
//!
//! Each start of a run writes a line `start` with the time that it took to begin; lines of steps, evaluations and checkpoints have
//! their seconds. A step with a later line is one that a crash lost and that was repeated. The time between two starts does not
//! count, nor does the time from the last line of a crashed process to its crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::lines::for_each_line;
use crate::units::{counted, duration};

/// The kind of the line about a start of a run.
pub const START: &str = "start";
/// The kind of the line about a training step.
pub const TRAIN: &str = "train";
/// The kind of the line about an evaluation.
pub const EVALUATION: &str = "evaluation";
/// The kind of the line about a checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

/// The kind of the line about a return to an earlier checkpoint.
pub const ROLL_BACK: &str = "roll_back";
/// The kind of the line about the use of the time.
pub const GOODPUT: &str = "goodput";
/// The key of the step that the run goes back to.
pub const TO: &str = "to_step";

/// Seconds of wall time by their use, over all starts of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Goodput {
    /// The number of starts.
    pub starts: u64,
    /// All seconds.
    pub seconds: f64,
    /// In steps whose updates are part of the run, without waiting for data.
    pub steps: f64,
    /// In steps whose updates were lost by a crash or by going back to a checkpoint.
    pub repeated_steps: f64,
    /// Waiting for the batch of a step.
    pub waiting_for_data: f64,
    /// Compiling programs, or loading them.
    pub compiling: f64,
    /// In evaluations.
    pub evaluating: f64,
    /// In which no step ran because of a checkpoint.
    pub saving: f64,
}

/// The parts of a line that matter here.
#[derive(Deserialize)]
struct Line {
    kind: String,
    step: u64,
    time: f64,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    waiting_for_data: Option<f64>,
    #[serde(default)]
    compiling: f64,
    /// The value of [`TO`].
    #[serde(default)]
    to_step: Option<f64>,
}

impl Goodput {
    /// Reads the `metrics.jsonl` of the run directory `run`. Returns none without a line `start`, as in logs of earlier builds.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(run: &Path) -> anyhow::Result<Option<Goodput>> {
        let mut count = Count::default();
        for_each_line(run, |line: Line| count.add(&line))?;
        Ok(count.end())
    }

    /// Returns the shares of the wall time by name; they sum up to 1.
    pub fn shares(&self) -> [(&'static str, f64); 7] {
        let known = [
            ("steps", self.steps),
            ("waiting_for_data", self.waiting_for_data),
            ("compiling", self.compiling),
            ("evaluating", self.evaluating),
            ("saving", self.saving),
            ("repeated_steps", self.repeated_steps),
        ];
        let other = self.seconds - known.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let share = |seconds: f64| if self.seconds > 0.0 { seconds / self.seconds } else { 0.0 };
        let [steps, waiting, compiling, evaluating, saving, repeated] = known.map(|(name, s)| (name, share(s)));
        [steps, waiting, compiling, evaluating, saving, repeated, ("other", share(other))]
    }

    /// Returns all values by name, for metrics files and JSON: the shares, `seconds` and `starts`.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let totals = [("seconds", self.seconds), ("starts", self.starts as f64)];
        self.shares().into_iter().chain(totals).collect()
    }

    /// Formats the shares: `91.2 % of 2 h 03 min in 3 starts; waiting for data 0.3 %, compiling 3.1 %, …`.
    pub fn to_text(&self) -> String {
        let [(_, steps), rest @ ..] = self.shares();
        let rest = rest.map(|(name, share)| format!("{} {:.1} %", name.replace('_', " "), 100.0 * share));
        let time = duration(Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX));
        format!("{:.1} % of {time} in {}; {}", 100.0 * steps, counted(self.starts, "start"), rest.join(", "))
    }
}

/// The lines of a log so far.
#[derive(Default)]
struct Count {
    sum: Goodput,
    /// The seconds of each step that no later start has repeated, without waiting.
    steps: BTreeMap<u64, f64>,
    /// Begin and end of the current start, in seconds since 1970, and the seconds that its lines account for.
    current: Option<(f64, f64, f64)>,
}

impl Count {
    fn add(&mut self, line: &Line) {
        if line.kind == START {
            self.end_start();
            self.sum.starts += 1;
            self.sum.compiling += line.compiling;
            self.current = Some((line.time - line.seconds, line.time, line.seconds));
            self.lose_after(line.step);
            return;
        }
        if line.kind == GOODPUT {
            return;
        }
        if let (ROLL_BACK, Some(to)) = (line.kind.as_str(), line.to_step) {
            self.lose_after(to as u64);
        }
        let Some((_, end, accounted)) = &mut self.current else { return };
        *end = end.max(line.time);
        match line.kind.as_str() {
            TRAIN => {
                let waiting = line.seconds * line.waiting_for_data.unwrap_or(0.0);
                self.sum.waiting_for_data += waiting;
                self.steps.insert(line.step, line.seconds - waiting);
            }
            EVALUATION => self.sum.evaluating += line.seconds,
            CHECKPOINT => self.sum.saving += line.seconds,
            _ => return,
        }
        *accounted += line.seconds;
    }

    /// Counts the steps after `step` as lost.
    fn lose_after(&mut self, step: u64) {
        let lost = self.steps.split_off(&(step + 1));
        self.sum.repeated_steps += lost.into_values().sum::<f64>();
    }

    /// Adds the wall time of the current start. A clock that was set back does not make it shorter than its parts.
    fn end_start(&mut self) {
        if let Some((begin, end, accounted)) = self.current.take() {
            self.sum.seconds += (end - begin).max(accounted);
        }
    }

    fn end(mut self) -> Option<Goodput> {
        self.end_start();
        self.sum.steps = self.steps.into_values().sum();
        (self.sum.starts > 0).then_some(self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::METRICS_FILE;

    fn goodput(lines: &str) -> Option<Goodput> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(METRICS_FILE), lines).unwrap();
        Goodput::read(folder.path()).unwrap()
    }

    #[test]
    fn time_is_counted_over_starts_and_lost_steps_are_repeated_ones() {
        let log = r#"{"kind":"train","step":9,"time":1.0,"seconds":5.0}
{"kind":"start","step":0,"time":110.0,"seconds":10.0,"compiling":6.0}
{"kind":"evaluation","step":0,"time":112.0,"seconds":2.0,"mlm_loss":9.0}
{"kind":"train","step":1,"time":116.0,"seconds":4.0,"waiting_for_data":0.25,"loss":9.0}
{"kind":"checkpoint","step":1,"time":117.0,"seconds":1.0}
{"kind":"train","step":2,"time":121.0,"seconds":4.0,"waiting_for_data":0.0,"loss":null}
{"kind":"train","step":3,"time":125.0,"seconds":4.0,"waiting_for_data":null}
{"kind":"trai
{"kind":"start","step":1,"time":1005.0,"seconds":5.0,"compiling":1.0}
{"kind":"train","step":2,"time":1009.0,"seconds":4.0,"waiting_for_data":0.5}
{"kind":"divergence","step":2,"time":1009.0,"loss":8.0}
{"kind":"goodput","step":2,"time":1011.0,"seconds":9.0}
"#;
        let found = goodput(log).unwrap();
        let expected = Goodput {
            starts: 2,
            seconds: 25.0 + 9.0,
            steps: 3.0 + 2.0,
            repeated_steps: 8.0,
            waiting_for_data: 1.0 + 2.0,
            compiling: 7.0,
            evaluating: 2.0,
            saving: 1.0,
        };
        assert_eq!(found, expected);
        assert!((found.shares().iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(found.shares()[6], ("other", 8.0 / 34.0));
        assert_eq!(
            found.to_text(),
            "14.7 % of 34 s in 2 starts; waiting for data 8.8 %, compiling 20.6 %, evaluating 5.9 %, saving 2.9 %, repeated steps \
             23.5 %, other 23.5 %"
        );
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_shorten_the_time_and_logs_without_starts_have_none() {
        let log = r#"{"kind":"start","step":0,"time":1000.0,"seconds":10.0,"compiling":6.0}
{"kind":"train","step":1,"time":3.0,"seconds":4.0,"waiting_for_data":0.0}
"#;
        assert_eq!(goodput(log).unwrap().seconds, 14.0);
        assert_eq!(goodput("{\"kind\":\"train\",\"step\":1,\"time\":3.0,\"loss\":4.0}\n"), None);
        assert_eq!(Goodput::read(Path::new("nowhere")).unwrap(), None);
    }
}
