//! `lambert inspect`: prints training examples as text with their masks, and length statistics.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use console::style;
use serde_json::json;

use crate::cli::render::example::{as_json, as_text, headline, legend};
use crate::data::{
    Dataset, ExampleConfig, ExampleLengths, ExampleMode, HistogramBin, LengthSummary, PackedExample, PackingOptions,
    PreparedData, SpanMask, Split, Survey, document_lengths, example_lengths,
};
use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print_text};
use crate::report::pages::data::page;
use crate::report::pages::html::write_page;
use crate::run::buckets::{check_copy, fetch_data};
use crate::storage::Location;
use crate::units::{counted, thousands};

/// The number of examples for length statistics, at most.
const MEASURED: u64 = 20_000;

/// Show examples with their masks, and length statistics
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert inspect data/quickstart
  lambert inspect data/quickstart --sequence-length 512 --sequences-per-row 8
  lambert inspect data/quickstart --sequence-length 512 --report data.html")]
pub struct Inspect {
    /// Prepared data: an output directory of `lambert prepare`, s3:// or gs://
    directory: Location,
    /// Tokens per example, at most
    #[arg(long, default_value_t = 128, value_name = "TOKENS")]
    sequence_length: usize,
    /// Masked positions per example, at most [default: 15 % of the sequence length]
    #[arg(long, value_name = "N")]
    max_predictions_per_seq: Option<usize>,
    /// Examples to show; rows with --sequences-per-row
    #[arg(long, default_value_t = 3, value_name = "N")]
    examples: u64,
    /// Number of the first example, from 0
    #[arg(long, default_value_t = 0, value_name = "I")]
    first: u64,
    /// Seed of the examples and masks
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// Documents to show examples of
    #[arg(long, value_enum, default_value_t = SplitName::Train)]
    split: SplitName,
    /// Mask all pieces of a word together
    #[arg(long)]
    whole_word_mask: bool,
    /// Mask spans of whole words, as SpanBERT does
    #[arg(long)]
    span_mask: bool,
    /// Kind of example, `mode` in the run file
    #[arg(long, value_enum, default_value_t = ModeName::Nsp)]
    mode: ModeName,
    /// Pack up to N examples into each row, and show rows instead of examples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    sequences_per_row: Option<u32>,
    /// With --sequences-per-row: number of examples that are packed together
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    global_batch: u32,
    /// Also compare the sha256 of every shard
    #[arg(long)]
    check: bool,
    /// Also write an HTML report with plots of both splits to this file
    ///
    /// The report shows lengths, vocabulary, masks and duplicates; with --sequences-per-row also packed rows.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitName {
    /// Training documents
    Train,
    /// Held-out documents
    HeldOut,
}

/// The values of `[data] mode` in a run file.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    /// Two segments; the second follows the first or is random (next sentence prediction)
    Nsp,
    /// Two consecutive segments, in order or swapped (sentence order prediction)
    Sop,
    /// One segment, which may continue in the next document
    #[value(name = "full_sentences")]
    FullSentences,
    /// One segment of one document
    #[value(name = "doc_sentences")]
    DocSentences,
}

impl From<ModeName> for ExampleMode {
    fn from(name: ModeName) -> ExampleMode {
        match name {
            ModeName::Nsp => ExampleMode::NextSentence,
            ModeName::Sop => ExampleMode::SentenceOrder,
            ModeName::FullSentences => ExampleMode::FullSentences,
            ModeName::DocSentences => ExampleMode::DocSentences,
        }
    }
}

pub fn run(args: Inspect) -> anyhow::Result<ExitCode> {
    let prepared = Arc::new(PreparedData::open(fetch_data(&args.directory)?)?);
    if args.check {
        check_copy(&args.directory, prepared.verify(&|_| ()))?;
    }
    let split = match args.split {
        SplitName::Train => Split::Train,
        SplitName::HeldOut => Split::HeldOut,
    };
    let predictions = args.max_predictions_per_seq.unwrap_or((args.sequence_length as f64 * 0.15).ceil() as usize);
    let config = ExampleConfig {
        seed: args.seed,
        mode: args.mode.into(),
        whole_word_mask: args.whole_word_mask,
        span_mask: args.span_mask.then(SpanMask::default),
        ..ExampleConfig::bert(args.sequence_length, predictions)
    };
    let examples = Dataset::new(prepared.clone(), split, config)?;
    let packed = args
        .sequences_per_row
        .map(|k| PackingOptions { sequences_per_row: k as usize, batch: args.global_batch as usize });
    match packed {
        Some(packed) => show_rows(&args, &examples, packed)?,
        None => show_examples(&args, &examples)?,
    }
    if let Some(path) = &args.report {
        write_report(path, &args.directory, &examples, packed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints examples and the statistics of the split.
fn show_examples(args: &Inspect, examples: &Dataset) -> anyhow::Result<()> {
    let (prepared, split) = (examples.prepared(), examples.split());
    let shown = (args.first..args.first.saturating_add(args.examples))
        .map(|number| Ok((number, examples.example(number)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let lengths = example_lengths(examples, examples.epoch_len(0).min(MEASURED))?;
    let documents = document_lengths(prepared.documents(split));
    let vocabulary = prepared.vocabulary();

    let text = if args.json {
        let shown: Vec<_> = shown.iter().map(|(number, example)| as_json(*number, example, vocabulary)).collect();
        let object = json!({
            "split": split, "counts": prepared.manifest().counts(split), "examples_in_epoch_0": examples.epoch_len(0),
            "examples": shown, "documents": documents, "lengths": lengths,
        });
        format!("{object:#}\n")
    } else {
        let mut text = if shown.is_empty() { String::new() } else { legend() + "\n" };
        for (number, example) in &shown {
            let head = headline(*number, example, examples.config().mode);
            writeln!(text, "{}\n{}\n", style(head).bold(), as_text(example, vocabulary))?;
        }
        let counts = prepared.manifest().counts(split);
        writeln!(
            text,
            "{split}: {}, {}, {} ({} [UNK]), {} in epoch 0",
            counted(counts.documents, "document"),
            counted(counts.sentences, "sentence"),
            counted(counts.tokens, "token"),
            thousands(counts.unknown_tokens),
            counted(examples.epoch_len(0), "example")
        )?;
        writeln!(text, "sentences per document  {}", in_words(&documents.sentences))?;
        writeln!(text, "tokens per document     {}", in_words(&documents.tokens))?;
        text + &of_examples(&lengths)
    };
    print_text(text)?;
    Ok(())
}

/// Prints the first rows of the batch that starts at `--first`, with the position of each example.
fn show_rows(args: &Inspect, examples: &Dataset, packed: PackingOptions) -> anyhow::Result<()> {
    let packing = examples.window(args.first, packed.batch).packing(packed.sequences_per_row);
    let vocabulary = examples.prepared().vocabulary();
    let rows = packing.rows().take(args.examples as usize);
    let number = |placed: &PackedExample| args.first + placed.example as u64;
    if args.json {
        let row = |row: &[PackedExample]| {
            let at = |placed: &PackedExample| {
                let example = as_json(number(placed), &examples.example(number(placed))?, vocabulary);
                Ok(json!({ "position": placed.start, "length": placed.length, "example": example }))
            };
            row.iter().map(at).collect::<anyhow::Result<Vec<_>>>()
        };
        let shown = rows.map(row).collect::<anyhow::Result<Vec<_>>>()?;
        let object = json!({
            "global_batch": args.global_batch, "rows": packing.rows().len(), "sequence_length": packing.sequence_length,
            "rows_per_sequence": packing.rows_per_sequence(), "fill": packing.fill(), "shown": shown,
        });
        print_text(format_args!("{object:#}\n"))?;
        return Ok(());
    }
    let mut text = if args.examples == 0 { String::new() } else { legend() + "\n" };
    for (i, row) in rows.enumerate() {
        let tokens: usize = row.iter().map(|placed| placed.length).sum();
        let held = counted(row.len() as u64, "example");
        let head = format!("row {i}: {tokens} of {} positions, {held}", packing.sequence_length);
        writeln!(text, "{}", style(head).bold())?;
        for placed in row {
            let example = examples.example(number(placed))?;
            let place = format!("├─ positions {} to {}: ", placed.start, placed.start + placed.length - 1);
            let head = headline(number(placed), &example, examples.config().mode);
            writeln!(text, "{}{head}\n{}", style(place).magenta(), as_text(&example, vocabulary))?;
        }
        writeln!(text)?;
    }
    writeln!(
        text,
        "{} in {} of {} tokens: {:.3} rows per sequence, {:.1} % of positions have a token",
        counted(args.global_batch as u64, "example"),
        counted(packing.rows().len() as u64, "row"),
        packing.sequence_length,
        packing.rows_per_sequence(),
        100.0 * packing.fill()
    )?;
    print_text(text)?;
    Ok(())
}

/// Writes the report about the splits that have examples, in the configuration of `examples`.
fn write_report(
    path: &Path,
    directory: &Location,
    examples: &Dataset,
    packed: Option<PackingOptions>,
) -> anyhow::Result<()> {
    let prepared = examples.prepared();
    let mut surveys = Vec::new();
    for split in [Split::Train, Split::HeldOut] {
        if prepared.documents(split).len() < 2 {
            continue;
        }
        let examples = Dataset::new(prepared.clone(), split, examples.config().clone())?;
        let progress = ByteProgress::of_tokens("reading", prepared.manifest().counts(split).tokens);
        let count = examples.epoch_len(0).min(MEASURED);
        surveys.push(Survey::of(&examples, count, packed, &|tokens| progress.add(tokens))?);
        progress.finish();
    }
    let html = page(&directory.to_string(), prepared.manifest(), &surveys)?;
    write_page(path, &html)?;
    note(format_args!("report: {}", path.display()));
    Ok(())
}

fn in_words(spread: &LengthSummary) -> String {
    let LengthSummary { mean, median, percentile_90, longest } = spread;
    format!("mean {mean:.1}, median {median}, 90th percentile {percentile_90}, maximum {longest}")
}

fn of_examples(lengths: &ExampleLengths) -> String {
    let mut text = format!("tokens per example      {}\n", in_words(&lengths.lengths));
    text += &format!(
        "padding {:.1} %, masked {:.1} %, random next {:.1} % ({})\n",
        100.0 * lengths.padding,
        100.0 * lengths.predicted,
        100.0 * lengths.random_next,
        counted(lengths.examples, "example")
    );
    let most = lengths.histogram.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
    for HistogramBin { from, to, count } in &lengths.histogram {
        let bar = "█".repeat((40 * count / most) as usize);
        text += &format!("{from:>5}–{to:<5} {count:>8} {bar}\n");
    }
    text
}
