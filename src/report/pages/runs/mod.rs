//! The page about one or several runs: curves of their metrics, trust ratios, the use of the time, events, and the settings beside
//! each other.

mod charts;
mod settings;
mod trust_ratios;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::html::{document, escape, plots, table};
use super::plot::{NEUTRAL, Style, swatch};
use crate::checkpoint::METRICS_FILE;
use crate::report::goodput::{EVALUATION, Goodput, ROLL_BACK, START, TO, TRAIN};
use crate::report::log::{RunLog, Scalars};
use crate::units::{duration, thousands};

/// One run of the page.
#[derive(Clone, Debug, Default)]
pub struct ReportedRun {
    /// The name on the page, as the user wrote the directory.
    pub name: String,
    /// The lines of its metrics that count.
    pub log: RunLog,
    /// The use of its time; none for logs of earlier builds.
    pub goodput: Option<Goodput>,
    /// The run file of its newest checkpoint; null without one.
    pub settings: Value,
}

impl ReportedRun {
    /// Reads the run in `directory`.
    ///
    /// # Errors
    /// If it has no `metrics.jsonl`, or a file cannot be read.
    pub fn read(directory: &Path) -> anyhow::Result<ReportedRun> {
        let name = directory.display().to_string();
        let log = RunLog::read(directory)?.with_context(|| format!("{name} holds no {METRICS_FILE}"))?;
        Ok(ReportedRun {
            log,
            goodput: Goodput::read(directory)?,
            settings: crate::report::settings::read(directory)?,
            name,
        })
    }

    /// Returns the number of sequences that were trained on after each step.
    fn sequences(&self) -> Vec<(u64, f64)> {
        self.cumulative(|scalars| Some(scalars.get("sequences_per_second")? * scalars.get("seconds")?))
    }

    /// Returns the hours of training steps after each step.
    fn hours(&self) -> Vec<(u64, f64)> {
        self.cumulative(|scalars| Some(scalars.get("seconds")? / 3600.0))
    }

    fn cumulative(&self, of_step: impl Fn(&Scalars) -> Option<f64>) -> Vec<(u64, f64)> {
        let sum = |sum: &mut f64, (step, scalars)| {
            *sum += of_step(scalars).unwrap_or(0.0);
            Some((step, *sum))
        };
        std::iter::once((0, 0.0)).chain(self.log.lines(TRAIN).scan(0.0, sum)).collect()
    }
}

/// Returns the run directories that `path` stands for: itself, or those of the seeds or trials below it.
///
/// # Errors
/// If neither holds a `metrics.jsonl`, or a directory cannot be listed.
pub fn run_directories(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.join(METRICS_FILE).exists() {
        return Ok(vec![path.to_path_buf()]);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
    let entries = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut below = entries.with_context(|| format!("cannot list {}", path.display()))?;
    below.retain(|directory| directory.join(METRICS_FILE).exists());
    below.sort();
    if below.is_empty() {
        bail!(
            "{} holds no {METRICS_FILE}, and neither does a directory in it; pass the [checkpoint] directory of a run that has begun",
            path.display()
        );
    }
    Ok(below)
}

/// Builds the page.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn page(runs: &[ReportedRun]) -> anyhow::Result<String> {
    let title = match runs {
        [run] => format!("Run {}", run.name),
        runs => format!("{} runs", runs.len()),
    };
    let mut body = format!("<h1>{}</h1>\n", escape(&title));
    body += &key(runs);
    body += &overview(runs);
    for (heading, figures) in charts::sections(runs)? {
        if figures.iter().any(|figure| !figure.is_empty()) {
            body += &format!("<h2>{heading}</h2>\n{}", plots(&figures));
        }
    }
    let maps = runs.iter().map(trust_ratios::figure).collect::<anyhow::Result<Vec<_>>>()?;
    if maps.iter().any(|figure| !figure.is_empty()) {
        body += &format!("<h2>Trust ratios by layer</h2>\n{}", plots(&maps));
    }
    body += &time(runs);
    body += &events(runs);
    body += &settings::section(runs);
    Ok(document(&title, &body))
}

/// Returns the key of the colours and styles.
fn key(runs: &[ReportedRun]) -> String {
    let run = |(index, run): (usize, &ReportedRun)| {
        format!("<li>{}<code>{}</code></li>\n", swatch(index, Style::Line), escape(&run.name))
    };
    let styles = [(Style::Line, "training"), (Style::Marked, "held-out"), (Style::Dashed, "baseline")];
    let style = |(style, text)| format!("<li>{}{text}</li>\n", swatch(NEUTRAL, style));
    let runs: String = runs.iter().enumerate().map(run).collect();
    format!("<ul class=\"key\">\n{runs}{}</ul>\n", styles.map(style).concat())
}

/// Returns the table of final values.
fn overview(runs: &[ReportedRun]) -> String {
    let metrics = charts::held_out_metrics(runs);
    let labels: Vec<String> = metrics.iter().map(|name| name.replace('_', " ")).collect();
    let mut head = vec!["run", "steps", "sequences"];
    head.extend(labels.iter().map(String::as_str));
    head.extend(["sequences/s", "time in steps", "skipped"]);
    let row = |run: &ReportedRun| {
        let (sequences, hours) = (run.sequences(), run.hours());
        let [sequences, hours] = [&sequences, &hours].map(|sums| sums.last().map_or(0.0, |last| last.1));
        let mut cells = vec![run.name.clone(), thousands(run.log.last_step()), thousands(sequences.round() as u64)];
        cells.extend(metrics.iter().map(|name| last_value(run, name)));
        let skipped = run.log.series(TRAIN, "skipped").into_iter().filter(|(_, skipped)| *skipped > 0.0).count();
        let rate = if hours > 0.0 { format!("{:.1}", sequences / hours / 3600.0) } else { String::new() };
        let time = duration(Duration::try_from_secs_f64(3600.0 * hours).unwrap_or_default());
        cells.extend([rate, time, thousands(skipped as u64)]);
        cells
    };
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    format!("{}<p>The last evaluation on held-out examples, with its baseline in brackets.</p>\n", table(&head, &rows))
}

/// Formats the value of the last evaluation of a metric, with its baseline.
fn last_value(run: &ReportedRun, name: &str) -> String {
    let last = run.log.lines(EVALUATION).rev().find_map(|(_, scalars)| Some((scalars.get(name)?, scalars)));
    last.map_or(String::new(), |(value, scalars)| match scalars.get(&format!("{name}_baseline")) {
        Some(baseline) => format!("{value:.4} ({baseline:.4})"),
        None => format!("{value:.4}"),
    })
}

/// Returns the table of the use of the time.
fn time(runs: &[ReportedRun]) -> String {
    let known: Vec<(&str, &Goodput)> =
        runs.iter().filter_map(|run| Some((run.name.as_str(), run.goodput.as_ref()?))).collect();
    let Some((_, first)) = known.first() else { return String::new() };
    let kinds = first.shares().map(|(name, _)| name.replace('_', " "));
    let mut head = vec!["run", "time", "starts"];
    head.extend(kinds.iter().map(String::as_str));
    let row = |(name, goodput): &(&str, &Goodput)| {
        let time = duration(Duration::try_from_secs_f64(goodput.seconds).unwrap_or_default());
        let shares = goodput.shares().map(|(_, share)| format!("{:.1} %", 100.0 * share));
        [name.to_string(), time, goodput.starts.to_string()].into_iter().chain(shares).collect()
    };
    let rows: Vec<Vec<String>> = known.iter().map(row).collect();
    format!("<h2>Use of the time</h2>\n{}", table(&head, &rows))
}

/// Returns the list of resumes, divergences and roll-backs.
fn events(runs: &[ReportedRun]) -> String {
    let mut items = Vec::new();
    for run in runs {
        let mut add = |step: u64, text: String| items.push(format!("{}, step {}: {text}", run.name, thousands(step)));
        for (step, _) in run.log.lines(START).filter(|(step, _)| *step > 0) {
            add(step, "resumed".to_owned());
        }
        for (step, sign) in run.log.lines("divergence") {
            let values: Vec<String> = sign.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
            add(step, format!("diverged ({})", values.join(", ")));
        }
        for (step, scalars) in run.log.lines(ROLL_BACK) {
            add(step, format!("back to step {}", thousands(scalars.get(TO).map_or(0, |to| *to as u64))));
        }
    }
    let items: String = items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
    if items.is_empty() { String::new() } else { format!("<h2>Events</h2>\n<ul>\n{items}</ul>\n") }
}
