//! The statistics page of prepared data: one self-contained HTML file with tables and plots.

use std::fmt::Write as _;

use super::html::{document, escape, plots, table};
use super::plot::{Axis, Bar, Scale, Series, Style, Unit, bars, lines};
use crate::data::{HistogramBin, LengthSummary, Manifest, PackedLengths, PositionSlice, Source, Survey};
use crate::units::{byte_size, counted, thousands};

/// Builds the page. `name` is the directory as the user wrote it.
///
/// # Errors
/// If a plot cannot be drawn.
pub fn page(name: &str, manifest: &Manifest, surveys: &[Survey]) -> anyhow::Result<String> {
    let mut body = format!("<h1>Prepared data <code>{}</code></h1>\n", escape(name));
    body += &overview(manifest, surveys);
    for survey in surveys {
        body += &split(survey)?;
    }
    body += &sources(manifest);
    body += &inputs(manifest);
    Ok(document(name, &body))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn share(part: u64, whole: u64) -> String {
    percent(part as f64 / whole.max(1) as f64)
}

fn overview(manifest: &Manifest, surveys: &[Survey]) -> String {
    let each = |value: &dyn Fn(&Survey) -> String| surveys.iter().map(value).collect::<Vec<_>>();
    let row = |name: &str, value: &dyn Fn(&Survey) -> String| {
        std::iter::once(name.to_owned()).chain(each(value)).collect::<Vec<String>>()
    };
    let mut rows = vec![
        row("documents", &|s| thousands(s.counts.documents)),
        row("sentences", &|s| thousands(s.counts.sentences)),
        row("tokens", &|s| thousands(s.counts.tokens)),
        row("unknown tokens ([UNK])", &|s| percent(s.coverage.unknown)),
        row("duplicate documents", &|s| {
            format!("{} ({})", thousands(s.duplicates.repeats), share(s.duplicates.repeats, s.counts.documents))
        }),
        row("tokens in duplicate documents", &|s| share(s.duplicates.tokens, s.counts.tokens)),
        row("vocabulary in use", &|s| {
            format!("{} of {}", thousands(s.coverage.used as u64), thousands(s.coverage.vocabulary_size as u64))
        }),
        row("padding without packing", &|s| percent(s.examples.padding)),
    ];
    if surveys.iter().any(|survey| survey.packed.is_some()) {
        let of_packed = |value: fn(&PackedLengths) -> String| {
            move |survey: &Survey| survey.packed.as_ref().map_or_else(String::new, value)
        };
        rows.push(row("padding with packing", &of_packed(|packed| percent(1.0 - packed.fill))));
        rows.push(row("rows per sequence (packed)", &of_packed(|packed| format!("{:.3}", packed.rows_per_sequence))));
    }
    let head: Vec<String> = std::iter::once(String::new()).chain(each(&|s| s.split.to_string())).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let notes = [
        (manifest.reading.replaced_bytes, "Replaced", "byte", " of invalid UTF-8"),
        (manifest.reading.overlong_lines, "Split", "line", " of more than 1 MiB"),
        (manifest.overlong_documents, "Split", "document", " of more than a shard or 16 MiB"),
    ];
    let removed = manifest.removed.iter().map(|(rule, removed)| {
        format!(
            "Removed by {}: {} ({}).",
            escape(rule),
            counted(removed.documents, "document"),
            byte_size(removed.bytes as f64),
        )
    });
    let notes: Vec<String> = notes
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, action, noun, which)| format!("{action} {}{which}.", counted(*count, noun)))
        .chain(removed)
        .collect();
    format!("{}<p>{}</p>\n", table(&head, &rows), notes.join(" "))
}

fn split(survey: &Survey) -> anyhow::Result<String> {
    let mut html = format!("<h2>{}</h2>\n", escape(&survey.split.to_string()));
    html += &lengths(survey);
    let length = survey.examples.sequence_length;
    let mut figures = vec![
        histogram(&survey.tokens_of_documents, "documents", "Document length in tokens")?,
        histogram(&survey.tokens_of_sentences, "sentences", "Sentence length in tokens")?,
        histogram(
            &survey.examples.histogram,
            "examples",
            &format!("Example length in tokens, at sequence length {length}"),
        )?,
    ];
    if let Some(packed) = &survey.packed {
        let PackedLengths { sequences_per_row, batch, rows, .. } = packed;
        let caption = format!("Tokens per packed row of {length} positions ({})", counted(*rows, "row"));
        figures.push(histogram(&packed.tokens_of_rows, "rows", &caption)?);
        let caption =
            format!("Examples per packed row (at most {sequences_per_row}; {batch} examples packed together)");
        figures.push(histogram(&packed.examples_of_rows, "rows", &caption)?);
    }
    figures.push(coverage(survey)?);
    figures.extend(masks(survey)?);
    html += &plots(&figures);
    let frequent = survey.coverage.most_frequent.iter().filter(|(_, count)| *count > 0).fold(
        String::new(),
        |mut list, (token, count)| {
            let _ = write!(list, "<code>{}</code> {}  ", escape(token), share(*count, survey.counts.tokens));
            list
        },
    );
    html += &format!(
        "<p>{} of the tokens are word continuations (<code>##</code>). {} tokens of the vocabulary occur fewer than ten times. \
         Most frequent: {frequent}</p>\n",
        percent(survey.coverage.continuations),
        thousands(survey.coverage.rare as u64)
    );
    Ok(html)
}

/// Draws the share of the text that the most frequent tokens cover.
fn coverage(survey: &Survey) -> anyhow::Result<String> {
    let points = survey.coverage.cumulative.iter().map(|&(n, share)| (n as f64, share)).collect();
    let x = Axis { label: "n", scale: Scale::Log, unit: Unit::Number };
    let y = Axis { label: "", scale: Scale::FromZero, unit: Unit::Share };
    let caption = "Share of the text covered by the n most frequent tokens of the vocabulary";
    lines(caption, x, y, &[Series { points, colour: 0, style: Style::Marked }])
}

fn lengths(survey: &Survey) -> String {
    let row = |name: &str, spread: &LengthSummary| {
        let LengthSummary { mean, median, percentile_90, longest } = *spread;
        vec![name.to_owned(), format!("{mean:.1}"), thousands(median), thousands(percentile_90), thousands(longest)]
    };
    let rows = [
        row("sentences per document", &survey.documents.sentences),
        row("tokens per document", &survey.documents.tokens),
        row("tokens per example", &survey.examples.lengths),
    ];
    table(&["", "mean", "median", "90th percentile", "maximum"], &rows)
}

fn masks(survey: &Survey) -> anyhow::Result<[String; 2]> {
    let masks = &survey.masks;
    let bar = |&PositionSlice { from, to, predicted }: &PositionSlice| Bar {
        label: from.to_string(),
        value: predicted,
        tooltip: format!(
            "positions {}: {} of the tokens are masked",
            range(from as u64, to as u64),
            percent(predicted)
        ),
    };
    let by_position: Vec<Bar> = masks.by_position.iter().map(bar).collect();
    let caption = format!(
        "Masked positions per example ({} [MASK], {} unchanged, {} random token)",
        percent(masks.masked),
        percent(masks.kept),
        percent(masks.random)
    );
    Ok([
        histogram(&masks.per_example, "examples", &caption)?,
        bars("Share of masked tokens by position", Unit::Share, &by_position)?,
    ])
}

/// Formats the table of sources: files, bytes and documents of each.
fn sources(manifest: &Manifest) -> String {
    let mut sources: Vec<(&Source, [u64; 3])> = Vec::new();
    for input in &manifest.inputs {
        let counts = [1, input.bytes, input.reading.documents];
        match sources.iter_mut().find(|(source, _)| *source == &input.source) {
            Some((_, sums)) => sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count),
            None => sources.push((&input.source, counts)),
        }
    }
    let row = |(source, [files, bytes, documents]): &(&Source, [u64; 3])| {
        vec![
            source.name.clone(),
            source.weight.to_string(),
            thousands(*files),
            thousands(*bytes),
            thousands(*documents),
            format!("{:.1}", *bytes as f64 / (*documents).max(1) as f64),
        ]
    };
    let rows: Vec<Vec<String>> = sources.iter().map(row).collect();
    let head = ["source", "weight", "files", "bytes on disk", "documents", "bytes per document"];
    format!("<h2>Sources</h2>\n{}", table(&head, &rows))
}

fn inputs(manifest: &Manifest) -> String {
    let rows: Vec<Vec<String>> = manifest
        .inputs
        .iter()
        .map(|input| vec![input.name.clone(), thousands(input.bytes), input.sha256.clone()])
        .collect();
    format!("<h2>Inputs</h2>\n{}", table(&["file", "bytes", "sha256"], &rows))
}

/// Draws a histogram. Each bar is labelled with its lower bound.
fn histogram(counts: &[HistogramBin], what: &str, caption: &str) -> anyhow::Result<String> {
    let bar = |bin: &HistogramBin| Bar {
        label: short(bin.from),
        value: bin.count as f64,
        tooltip: format!("{}: {} {what}", range(bin.from, bin.to), thousands(bin.count)),
    };
    bars(caption, Unit::Number, &counts.iter().map(bar).collect::<Vec<_>>())
}

fn range(from: u64, to: u64) -> String {
    if from == to { from.to_string() } else { format!("{from}–{to}") }
}

/// Formats a power of two for an axis: `4096` is `4k`.
fn short(n: u64) -> String {
    match n {
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{}M", n >> 20),
        n if n >= 1 << 12 && n % (1 << 10) == 0 => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}
