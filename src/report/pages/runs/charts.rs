//! The curves of runs: losses and other metrics, the optimizer, throughput.

use std::collections::BTreeMap;

use super::ReportedRun;
use crate::report::goodput::{EVALUATION, TRAIN};
use crate::report::pages::plot::{Axis, Scale, Series, Style, Unit, lines};

const STEPS: Axis<'static> = Axis { label: "step", scale: Scale::Linear, unit: Unit::Number };

/// Returns the sections of plots with their headings.
pub fn sections(runs: &[ReportedRun]) -> anyhow::Result<[(&'static str, Vec<String>); 3]> {
    Ok([("Quality", quality(runs)?), ("Optimizer", optimizer(runs)?), ("Throughput", throughput(runs)?)])
}

/// Returns the names of the metrics of evaluations, losses first.
pub fn held_out_metrics(runs: &[ReportedRun]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in runs.iter().flat_map(|run| run.log.names(EVALUATION)) {
        let about = name.ends_with("_baseline") || ["examples", "seconds"].contains(&name);
        if !about && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names.sort_by_key(|name| (!name.ends_with("loss"), name.clone()));
    names
}

/// Draws each metric of the evaluations with its baseline and, if training reports it, its value on the batches. Several runs are
/// also compared by sequences and by hours.
fn quality(runs: &[ReportedRun]) -> anyhow::Result<Vec<String>> {
    let metrics = held_out_metrics(runs);
    let mut figures = Vec::new();
    for name in &metrics {
        figures.push(metric(runs, name, STEPS, &|_, step| step as f64)?);
    }
    if let (Some(loss), true) = (metrics.first(), runs.len() > 1) {
        for (label, position) in [
            ("sequences", ReportedRun::sequences as fn(&ReportedRun) -> Vec<(u64, f64)>),
            ("hours of training steps", ReportedRun::hours),
        ] {
            let positions: Vec<BTreeMap<u64, f64>> =
                runs.iter().map(|run| position(run).into_iter().collect()).collect();
            let at = |run: usize, step| positions[run].range(..=step).next_back().map_or(0.0, |(_, at)| *at);
            let axis = Axis { label, scale: Scale::Linear, unit: Unit::Number };
            figures.push(metric(runs, loss, axis, &at)?);
        }
    }
    Ok(figures)
}

/// Draws the metric `name` over the position of each step on the axis `x`.
fn metric(
    runs: &[ReportedRun],
    name: &str,
    x: Axis<'_>,
    position: &dyn Fn(usize, u64) -> f64,
) -> anyhow::Result<String> {
    let mut series = Vec::new();
    for (colour, run) in runs.iter().enumerate() {
        let of = |kind: &str, name: &str| {
            run.log.series(kind, name).into_iter().map(|(step, value)| (position(colour, step), value)).collect()
        };
        series.push(Series { points: of(TRAIN, name), colour, style: Style::Line });
        series.push(Series { points: of(EVALUATION, &format!("{name}_baseline")), colour, style: Style::Dashed });
        series.push(Series { points: of(EVALUATION, name), colour, style: Style::Marked });
    }
    let y = Axis { label: "", scale: Scale::Linear, unit: if is_share(name) { Unit::Share } else { Unit::Number } };
    let by = if x.label == STEPS.label { String::new() } else { format!(" by {}", x.label) };
    lines(&format!("{}{by}", name.replace('_', " ")), x, y, &series)
}

fn is_share(name: &str) -> bool {
    ["accuracy", "f1", "exact_match"].iter().any(|end| name.ends_with(end))
}

fn optimizer(runs: &[ReportedRun]) -> anyhow::Result<Vec<String>> {
    let mut figures = vec![
        training(runs, &["learning_rate"], "Learning rate", Scale::FromZero, Unit::Number)?,
        training(runs, &["grad_norm"], "Global norm of the gradients", Scale::Log, Unit::Number)?,
    ];
    // With several runs, minima and maxima would hide each other.
    let ratios: &[&str] = match runs {
        [_] => &["trust_ratio_median", "trust_ratio_min", "trust_ratio_max"],
        _ => &["trust_ratio_median"],
    };
    let caption = if ratios.len() > 1 { "Trust ratio: median, minimum, maximum" } else { "Trust ratio, median" };
    figures.push(training(runs, ratios, caption, Scale::Log, Unit::Number)?);
    Ok(figures)
}

fn throughput(runs: &[ReportedRun]) -> anyhow::Result<Vec<String>> {
    Ok(vec![
        training(runs, &["sequences_per_second"], "Sequences per second", Scale::FromZero, Unit::Number)?,
        training(runs, &["tokens_per_second"], "Token positions per second", Scale::FromZero, Unit::Number)?,
        training(runs, &["waiting_for_data"], "Time waiting for data", Scale::FromZero, Unit::Share)?,
        training(runs, &["padding"], "Positions without a token", Scale::FromZero, Unit::Share)?,
    ])
}

/// Draws scalars of training steps: the first one of each run as a line, others dashed.
fn training(runs: &[ReportedRun], names: &[&str], caption: &str, scale: Scale, unit: Unit) -> anyhow::Result<String> {
    let mut series = Vec::new();
    for (colour, run) in runs.iter().enumerate() {
        for (i, name) in names.iter().enumerate() {
            let points = run.log.series(TRAIN, name).into_iter().map(|(step, value)| (step as f64, value)).collect();
            series.push(Series { points, colour, style: if i == 0 { Style::Line } else { Style::Dashed } });
        }
    }
    lines(caption, STEPS, Axis { label: "", scale, unit }, &series)
}
