//! The results of a study as an HTML page.

use std::collections::BTreeMap;

use super::points::Point;
use super::results::{CellResult, Results, TrialRow};
use super::table::{steps, value};
use super::trial::{Ending, LEARNING_RATE, number};
use crate::metrics::Spread;
use crate::report::pages::html::{document, escape, plots, table};
use crate::report::pages::plot::{Axis, NEUTRAL, Scale, Series, Style, Unit, lines, swatch};
use crate::units::thousands;

const BATCH: Axis<'static> = Axis { label: "global batch", scale: Scale::Log, unit: Unit::Number };

/// Builds the page.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn page(results: &Results) -> anyhow::Result<String> {
    let mut body = format!("<h1>Study {}</h1>\n", escape(&results.name));
    body += &format!(
        "<p>{} of {} trials have ended; {:.1} hours in training steps. Lower values of {} are better{}.</p>\n",
        results.ended,
        results.trials,
        results.seconds / 3600.0,
        escape(&results.metric),
        results.baseline.map_or(String::new(), |baseline| format!("; the baseline is {baseline:.4}"))
    );
    let optimizers = optimizers(results);
    let entry = |(i, name): (usize, &&str)| format!("<li>{}{}</li>\n", swatch(i, Style::Marked), escape(name));
    body += &format!("<ul class=\"key\">\n{}</ul>\n", optimizers.iter().enumerate().map(entry).collect::<String>());
    let mut sequences: Vec<u64> = results.cells.iter().map(|cell| cell.sequences).collect();
    sequences.dedup();
    for sequences in sequences {
        body += &section(results, &optimizers, sequences)?;
    }
    if !results.kept.is_empty() {
        let items: String = results.kept.iter().map(|kept| format!("<li>{}</li>\n", escape(&kept.to_text()))).collect();
        body += &format!("<h2>Largest batch without loss</h2>\n<ul>\n{items}</ul>\n");
    }
    let edges: String = results.edges().iter().map(|edge| format!("<li>{}</li>\n", escape(edge))).collect();
    if !edges.is_empty() {
        body += &format!("<h2>Best settings at an edge</h2>\n<ul>\n{edges}</ul>\n");
    }
    body += &trials(&results.rows, &results.metric);
    Ok(document(&format!("Study {}", results.name), &body))
}

fn optimizers(results: &Results) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for cell in &results.cells {
        if !names.contains(&cell.optimizer.as_str()) {
            names.push(&cell.optimizer);
        }
    }
    names
}

/// Returns the section of one number of sequences.
fn section(results: &Results, optimizers: &[&str], sequences: u64) -> anyhow::Result<String> {
    let mut figures = vec![by_batch(results, optimizers, sequences)?];
    if results.target.is_some() {
        figures.push(steps_to_target(results, optimizers, sequences)?);
    }
    figures.extend(sensitivity(results, optimizers, sequences)?);
    let mut head = vec!["optimizer", "batch", "steps", &results.metric, "steps to target", "trials", "diverged"];
    head.push("best settings");
    let row = |cell: &CellResult| {
        vec![
            cell.optimizer.clone(),
            thousands(cell.batch),
            thousands(cell.steps),
            value(cell),
            steps(cell),
            cell.tuned.to_string(),
            cell.diverged.to_string(),
            cell.best.as_ref().map_or(String::new(), settings),
        ]
    };
    let rows: Vec<Vec<String>> = results.cells.iter().filter(|cell| cell.sequences == sequences).map(row).collect();
    Ok(format!("<h2>{} sequences</h2>\n{}{}", thousands(sequences), plots(&figures), table(&head, &rows)))
}

/// Draws the mean over the reported seeds against the batch, with the smallest and largest value dashed.
fn by_batch(results: &Results, optimizers: &[&str], sequences: u64) -> anyhow::Result<String> {
    let mut series = Vec::new();
    for (colour, optimizer) in optimizers.iter().enumerate() {
        let points = |of: &dyn Fn(&CellResult) -> Option<f64>| -> Vec<(f64, f64)> {
            results.of(optimizer, sequences).filter_map(|cell| Some((cell.batch as f64, of(cell)?))).collect()
        };
        let extreme = |fold: fn(f64, f64) -> f64| move |cell: &CellResult| cell.values.iter().copied().reduce(fold);
        series.push(Series { points: points(&extreme(f64::min)), colour, style: Style::Dashed });
        series.push(Series { points: points(&extreme(f64::max)), colour, style: Style::Dashed });
        series.push(Series { points: points(&|cell| cell.mean), colour, style: Style::Marked });
    }
    let y = Axis { label: "", scale: Scale::Linear, unit: Unit::Number };
    lines(&format!("{} by batch; dashed: smallest and largest seed", results.metric), BATCH, y, &series)
}

/// Draws the steps to the target against the batch, and the line of perfect scaling from the smallest batch: half the steps for twice the
/// batch.
fn steps_to_target(results: &Results, optimizers: &[&str], sequences: u64) -> anyhow::Result<String> {
    let mut series = Vec::new();
    let mut perfect: Option<(f64, f64)> = None;
    for (colour, optimizer) in optimizers.iter().enumerate() {
        let reached = results.of(optimizer, sequences).filter(|cell| !cell.steps_to_target.is_empty());
        let points: Vec<(f64, f64)> =
            reached.map(|cell| (cell.batch as f64, Spread::of(&cell.steps_to_target).mean)).collect();
        // The optimizer with the fewest sequences to the target at its smallest batch sets the line.
        perfect = points.first().copied().into_iter().chain(perfect).min_by(|a, b| (a.0 * a.1).total_cmp(&(b.0 * b.1)));
        series.push(Series { points, colour, style: Style::Marked });
    }
    if let Some((batch, steps)) = perfect {
        let line = |cell: &CellResult| (cell.batch as f64, steps * batch / cell.batch as f64);
        let points = optimizers.first().map(|first| results.of(first, sequences).map(line).collect());
        series.push(Series { points: points.unwrap_or_default(), colour: NEUTRAL, style: Style::Dashed });
    }
    let y = Axis { label: "", scale: Scale::Log, unit: Unit::Number };
    lines("Steps to the target by batch; dashed: perfect scaling", BATCH, y, &series)
}

/// Draws, for each batch, the value of every tuning trial that finished against its learning rate; the best one of each rate is joined.
fn sensitivity(results: &Results, optimizers: &[&str], sequences: u64) -> anyhow::Result<Vec<String>> {
    let mut batches: Vec<u64> =
        results.cells.iter().filter(|cell| cell.sequences == sequences).map(|cell| cell.batch).collect();
    batches.dedup();
    let x = Axis { label: "peak learning rate, as in the study file", scale: Scale::Log, unit: Unit::Number };
    let y = Axis { label: "", scale: Scale::Linear, unit: Unit::Number };
    let of_batch = |batch: &u64| {
        let mut series = Vec::new();
        for (colour, optimizer) in optimizers.iter().enumerate() {
            let mut best: BTreeMap<u64, f64> = BTreeMap::new();
            let of_cell =
                |row: &&TrialRow| row.optimizer == *optimizer && row.batch == *batch && row.sequences == sequences;
            for row in results.rows.iter().filter(of_cell) {
                let rate = row.settings.get(LEARNING_RATE).and_then(number);
                if let (Some(rate), Some(value)) = (rate, row.result.value) {
                    // Positive numbers have the order of their bits.
                    best.entry(rate.to_bits()).and_modify(|least| *least = least.min(value)).or_insert(value);
                }
            }
            let points = best.into_iter().map(|(rate, value)| (f64::from_bits(rate), value)).collect();
            series.push(Series { points, colour, style: Style::Marked });
        }
        lines(&format!("Batch {}: {} by learning rate", thousands(*batch), results.metric), x, y, &series)
    };
    batches.iter().map(of_batch).collect()
}

/// Returns the table of all trials.
fn trials(rows: &[TrialRow], metric: &str) -> String {
    let head = ["optimizer", "batch", "sequences", "seed", metric, "settings", "minutes", "directory"];
    let row = |row: &TrialRow| {
        vec![
            row.optimizer.clone(),
            thousands(row.batch),
            thousands(row.sequences),
            row.seed.to_string(),
            match (row.result.ending, row.result.value) {
                (Ending::Diverged, _) => format!("diverged after {} steps", thousands(row.result.steps)),
                (Ending::Finished, value) => value.map_or(String::new(), |value| format!("{value:.4}")),
            },
            settings(&row.settings),
            format!("{:.1}", row.result.seconds / 60.0),
            row.directory.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = rows.iter().map(row).collect();
    format!("<h2>All trials</h2>\n{}", table(&head, &rows))
}

/// Formats settings: `beta2 0.98, learning_rate 0.003`, keys without the tables that they are in.
fn settings(point: &Point) -> String {
    let short = |(key, value): (&String, &toml::Value)| format!("{} {value}", key.rsplit('.').next().unwrap_or(key));
    point.iter().map(short).collect::<Vec<_>>().join(", ")
}
