//! Reading a `metrics.jsonl`: the lines that count. Of several lines of one kind and step the last one counts, and lines of steps that
//! a crash or a roll-back lost do not.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::goodput::{ROLL_BACK, START, TO};
use super::lines::for_each_line;

/// Kinds of lines about the run as a whole, which stay when steps are lost.
const ABOUT_THE_RUN: [&str; 4] = [START, ROLL_BACK, "divergence", "goodput"];

/// The finite scalars of one line, by name.
pub type Scalars = BTreeMap<String, f64>;

/// A line that counts.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    /// Seconds since 1970.
    time: Option<f64>,
    scalars: Scalars,
}

/// The lines of a run that count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunLog {
    kinds: BTreeMap<String, BTreeMap<u64, Line>>,
}

impl RunLog {
    /// Reads the `metrics.jsonl` of the run directory `run`. None if there is no such file. Incomplete lines are skipped.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(run: &Path) -> anyhow::Result<Option<RunLog>> {
        let mut log = RunLog::default();
        Ok(for_each_line(run, |line| log.add(line))?.then_some(log))
    }

    /// Adds a line; one without kind or step counts for nothing.
    fn add(&mut self, mut line: Map<String, Value>) {
        let (Some(Value::String(kind)), Some(step)) =
            (line.remove("kind"), line.remove("step").as_ref().and_then(Value::as_u64))
        else {
            return;
        };
        match kind.as_str() {
            START => self.lose_after(step),
            ROLL_BACK => self.lose_after(line.get(TO).and_then(Value::as_f64).map_or(step, |to| to as u64)),
            _ => {}
        }
        let finite = |(name, value): (String, Value)| Some((name, value.as_f64().filter(|value| value.is_finite())?));
        let time = line.remove("time").and_then(|time| time.as_f64());
        let scalars = line.into_iter().filter_map(finite).collect();
        self.kinds.entry(kind).or_default().insert(step, Line { time, scalars });
    }

    fn lose_after(&mut self, step: u64) {
        for (kind, lines) in &mut self.kinds {
            if !ABOUT_THE_RUN.contains(&kind.as_str()) {
                lines.retain(|&of_line, _| of_line <= step);
            }
        }
    }

    /// Returns the lines of `kind` in the order of their steps.
    pub fn lines(&self, kind: &str) -> impl DoubleEndedIterator<Item = (u64, &Scalars)> {
        self.kinds.get(kind).into_iter().flatten().map(|(&step, line)| (step, &line.scalars))
    }

    /// Returns the time of the line of `kind` and `step`, in seconds since 1970.
    pub fn time(&self, kind: &str, step: u64) -> Option<f64> {
        self.kinds.get(kind)?.get(&step)?.time
    }

    /// Returns the values of one scalar with their steps.
    pub fn series(&self, kind: &str, name: &str) -> Vec<(u64, f64)> {
        self.lines(kind).filter_map(|(step, scalars)| Some((step, *scalars.get(name)?))).collect()
    }

    /// Returns the names of all scalars of `kind`, in alphabetical order.
    pub fn names(&self, kind: &str) -> Vec<&str> {
        let names = self.lines(kind).flat_map(|(_, scalars)| scalars.keys().map(String::as_str));
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// Returns the last step that counts.
    pub fn last_step(&self) -> u64 {
        let last = |lines: &BTreeMap<u64, Line>| lines.last_key_value().map(|(&step, _)| step);
        let kinds = self.kinds.iter().filter(|(kind, _)| !ABOUT_THE_RUN.contains(&kind.as_str()));
        kinds.filter_map(|(_, lines)| last(lines)).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::METRICS_FILE;

    fn read(lines: &[&str]) -> RunLog {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(METRICS_FILE), lines.join("\n")).unwrap();
        RunLog::read(folder.path()).unwrap().unwrap()
    }

    #[test]
    fn steps_lost_by_a_crash_or_a_roll_back_do_not_count() {
        let log = read(&[
            r#"{"kind":"start","step":0,"time":1.0,"seconds":1.0}"#,
            r#"{"kind":"train","step":1,"time":2.0,"loss":9.0}"#,
            r#"{"kind":"train","step":2,"time":3.0,"loss":8.0}"#,
            r#"{"kind":"evaluation","step":2,"time":3.5,"mlm_loss":8.5}"#,
            r#"{"kind":"start","step":1,"time":4.0,"seconds":1.0}"#,
            r#"{"kind":"train","step":2,"time":5.0,"loss":7.0}"#,
            r#"{"kind":"train","step":3,"time":6.0,"loss":70.0}"#,
            r#"{"kind":"roll_back","step":3,"time":6.5,"to_step":2.0}"#,
            r#"{"kind":"train","step":4,"time":7.0,"loss":null}"#,
            r#"{"kind":"train","step":5,"ti"#,
        ]);
        assert_eq!(log.series("train", "loss"), [(1, 9.0), (2, 7.0)]);
        assert_eq!(log.lines("evaluation").count(), 0);
        assert_eq!(log.lines(ROLL_BACK).map(|(step, _)| step).collect::<Vec<_>>(), [3]);
        assert_eq!(log.last_step(), 4);
        assert_eq!(log.names("train"), ["loss"]);
    }

    #[test]
    fn a_directory_without_metrics_has_no_log() {
        assert_eq!(RunLog::read(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }
}
