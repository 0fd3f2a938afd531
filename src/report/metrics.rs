//! The metrics log of a run: the same scalars as lines of `metrics.jsonl` and in a TensorBoard event file. Both are only
//! appended to. A resumed run repeats the steps after its checkpoint; of several lines for one step, the last one is valid. Earlier
//! ones stay, because [`goodput`](super::goodput) counts them as lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Map, Value};

use super::lines::for_each_line;
use super::tensorboard::EventWriter;
use crate::checkpoint::METRICS_FILE;
use crate::files;

/// The kind of the line with the trust ratio of each parameter tensor.
pub const TRUST_RATIOS: &str = "trust_ratios";

/// The `metrics.jsonl` and the TensorBoard event file of a run, open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    lines: File,
    events: EventWriter,
    settings: BTreeMap<String, Value>,
}

impl MetricsLog {
    /// Opens the logs in the run directory `run`, which is created if missing. `done` is the number of updates done: 0 in a
    /// new run, the checkpoint's step in a resumed one. TensorBoard shows the `settings`, which have dotted keys.
    ///
    /// # Errors
    /// If a file cannot be opened or written.
    pub fn open(run: &Path, done: u64, settings: BTreeMap<String, Value>) -> anyhow::Result<MetricsLog> {
        std::fs::create_dir_all(run).with_context(|| format!("cannot create {}", run.display()))?;
        let path = run.join(METRICS_FILE);
        let lines = open_at_line_start(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let events = event_file(run, done, &settings)?;
        Ok(MetricsLog { path, lines, events, settings })
    }

    /// Goes on after a return to the state after `done` updates, with a new event file: TensorBoard discards the points of the
    /// lost steps.
    ///
    /// # Errors
    /// If the file cannot be created or written.
    pub fn rolled_back(&mut self, done: u64) -> anyhow::Result<()> {
        self.events = event_file(self.run(), done, &self.settings)?;
        Ok(())
    }

    /// Records in the event file that the run has ended.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn ended(&mut self) -> anyhow::Result<()> {
        self.events.ended()
    }

    /// Returns the run directory.
    pub fn run(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Appends the scalars of `step` (updates done) as one line and one event. `kind` is `train`, `evaluation` or another. The
    /// TensorBoard tag is `kind/name`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn record(&mut self, kind: &str, step: u64, scalars: &[(impl AsRef<str>, f64)]) -> anyhow::Result<()> {
        self.record_line(kind, step, scalars)?;
        self.events.scalars(kind, step, scalars)
    }

    /// Appends the scalars of `step` as one line only. The line also holds `kind`, `step` and `time` (seconds since 1970); values
    /// that are not finite are null, because JSON has no NaN.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn record_line(&mut self, kind: &str, step: u64, scalars: &[(impl AsRef<str>, f64)]) -> anyhow::Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64());
        let mut object = Map::new();
        object.insert("kind".into(), kind.into());
        object.insert("step".into(), step.into());
        object.insert("time".into(), time.into());
        object.extend(scalars.iter().map(|(name, value)| (name.as_ref().to_owned(), Value::from(*value))));
        let line = Value::Object(object).to_string() + "\n";
        // One unbuffered write per line: a crash loses no finished line. (A concurrent reader may see only the beginning of a
        // line, because a write becomes visible page by page.)
        let written = self.lines.write_all(line.as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Creates the event file of a start after `done` updates.
fn event_file(run: &Path, done: u64, settings: &BTreeMap<String, Value>) -> anyhow::Result<EventWriter> {
    let mut events = EventWriter::create(run, done + 1)?;
    events.settings(settings)?;
    Ok(events)
}

/// Reads the scalars of `step` and `kind` from the `metrics.jsonl` of the run directory `run`: those of the last such line,
/// without times and values that were not finite. None without such a line or file. Incomplete lines are skipped.
///
/// # Errors
/// If the file cannot be read.
pub fn recorded(run: &Path, kind: &str, step: u64) -> anyhow::Result<Option<Vec<(String, f64)>>> {
    let mut last = None;
    for_each_line(run, |object: Map<String, Value>| {
        if object.get("kind") == Some(&kind.into()) && object.get("step") == Some(&step.into()) {
            last = Some(object);
        }
    })?;
    let scalars = |object: Map<String, Value>| {
        let values =
            object.into_iter().filter(|(name, _)| !["kind", "step", "time", "seconds"].contains(&name.as_str()));
        values.filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
    };
    Ok(last.map(scalars))
}

/// Opens a file for appending. Adds a newline if its last line is incomplete.
fn open_at_line_start(path: &Path) -> std::io::Result<File> {
    let mut file = files::append(path)?;
    if file.seek(SeekFrom::End(0))? > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_one_line_and_an_incomplete_line_damages_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("runs/one");
        let path = run.join(METRICS_FILE);
        let mut log = MetricsLog::open(&run, 0, BTreeMap::new()).unwrap();
        for step in 1..=3 {
            log.record("train", step, &[("loss", 7.0 / step as f64), ("gradient_norm", f64::INFINITY)]).unwrap();
        }
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        MetricsLog::open(&run, 3, BTreeMap::new()).unwrap().record("evaluation", 3, &[("mlm_accuracy", 0.25)]).unwrap();

        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Option<Value>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
        assert_eq!(lines.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
        let second = lines[1].as_ref().unwrap();
        assert_eq!((&second["kind"], &second["step"], &second["loss"]), (&"train".into(), &2.into(), &3.5.into()));
        assert_eq!(second["gradient_norm"], Value::Null);
        assert_eq!(lines[3].as_ref().unwrap()["mlm_accuracy"], 0.25);
    }

    #[test]
    fn the_last_record_of_a_step_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = MetricsLog::open(folder.path(), 0, BTreeMap::new()).unwrap();
        log.record("evaluation", 0, &[("mlm_loss", 9.0)]).unwrap();
        log.record("evaluation", 0, &[("mlm_loss", 8.5), ("nsp_loss", f64::NAN), ("seconds", 2.0)]).unwrap();
        log.record("train", 0, &[("mlm_loss", 7.0)]).unwrap();
        log.record("evaluation", 10, &[("mlm_loss", 6.0)]).unwrap();
        std::fs::OpenOptions::new().append(true).open(&log.path).unwrap().write_all(b"{\"kind\":\"eval").unwrap();
        assert_eq!(recorded(folder.path(), "evaluation", 0).unwrap(), Some(vec![("mlm_loss".to_owned(), 8.5)]));
        assert_eq!(recorded(folder.path(), "evaluation", 5).unwrap(), None);
    }
}
