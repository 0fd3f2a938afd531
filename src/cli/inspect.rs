//! `lambert inspect`: examples as training sees them, read back as text, and how long they are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use console::style;
use serde_json::json;

use super::buckets::data_directory;
use super::byte_progress::ByteProgress;
use super::data_report::page;
use super::whole_file::write_whole;
use crate::data::{
    Example, ExampleConfig, ExampleLengths, Examples, Prepared, Split, Spread, Survey, Vocabulary, document_lengths,
    example_lengths,
};
use crate::output::{note, print_text};
use crate::storage::Location;

/// Examples that length statistics are taken over, at most.
const MEASURED: u64 = 20_000;

/// Show examples with their masks, and length statistics.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Prepared data: a directory that `lambert prepare` made, or its address in a bucket.
    directory: Location,
    /// Sequence length.
    #[arg(long, default_value_t = 128)]
    seq: usize,
    /// Predictions of a sequence, at most. [default: 15 % of the length]
    #[arg(long)]
    predictions: Option<usize>,
    /// Examples to show.
    #[arg(long, default_value_t = 3)]
    count: u64,
    /// Number of the first one.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = SplitName::Train)]
    split: SplitName,
    /// Mask the pieces of a word together.
    #[arg(long)]
    whole_word_mask: bool,
    /// Also read every shard and compare its sha256.
    #[arg(long)]
    verify: bool,
    /// Also write a page about both splits to this file: lengths, vocabulary, masks, duplicates, with plots.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitName {
    Train,
    HeldOut,
}

pub fn run(args: Inspect) -> anyhow::Result<ExitCode> {
    let prepared = Arc::new(Prepared::open(data_directory(&args.directory)?)?);
    if args.verify {
        prepared.verify(&|_| ())?;
    }
    let split = match args.split {
        SplitName::Train => Split::Train,
        SplitName::HeldOut => Split::HeldOut,
    };
    let predictions = args.predictions.unwrap_or((args.seq as f64 * 0.15).ceil() as usize);
    let config = ExampleConfig {
        seed: args.seed,
        whole_word_mask: args.whole_word_mask,
        ..ExampleConfig::bert(args.seq, predictions)
    };
    let examples = Examples::new(prepared.clone(), split, config)?;
    let shown = (args.first..args.first.saturating_add(args.count))
        .map(|number| Ok((number, examples.example(number)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let lengths = example_lengths(&examples, examples.epoch_len(0).min(MEASURED))?;
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
            let label = if example.text.label == 1 { "a random one follows" } else { "the next one follows" };
            let head = format!("example {number}, {} tokens, {label}", example.tokens.len());
            writeln!(text, "{}\n{}\n", style(head).bold(), as_text(example, vocabulary))?;
        }
        let counts = prepared.manifest().counts(split);
        writeln!(
            text,
            "{split}: {} documents, {} sentences, {} tokens ({} [UNK]), {} examples in epoch 0",
            counts.documents,
            counts.sentences,
            counts.tokens,
            counts.unknown_tokens,
            examples.epoch_len(0)
        )?;
        writeln!(text, "sentences of a document  {}", in_words(&documents.sentences))?;
        writeln!(text, "tokens of a document     {}", in_words(&documents.tokens))?;
        text + &of_examples(&lengths)
    };
    print_text(text)?;
    if let Some(path) = &args.report {
        write_report(path, &args.directory, &examples)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Surveys the splits that have examples, under the configuration of `examples`, and writes the page.
fn write_report(path: &Path, directory: &Location, examples: &Examples) -> anyhow::Result<()> {
    let prepared = examples.prepared();
    let mut surveys = Vec::new();
    for split in [Split::Train, Split::HeldOut] {
        if prepared.documents(split).len() < 2 {
            continue;
        }
        let examples = Examples::new(prepared.clone(), split, examples.config().clone())?;
        let progress = ByteProgress::new("reading", prepared.manifest().counts(split).tokens);
        surveys.push(Survey::of(&examples, examples.epoch_len(0).min(MEASURED), &|tokens| progress.add(tokens))?);
        progress.finish();
    }
    let html = page(&directory.to_string(), prepared.manifest(), &surveys);
    write_whole(path, |partial| std::fs::write(partial, &html))?;
    note(format_args!("report: {}", path.display()));
    Ok(())
}

fn in_words(spread: &Spread) -> String {
    let Spread { mean, median, percentile_90, longest } = spread;
    format!("mean {mean:.1}, median {median}, nine of ten at most {percentile_90}, longest {longest}")
}

fn of_examples(lengths: &ExampleLengths) -> String {
    let mut text = format!("tokens of an example     {}\n", in_words(&lengths.lengths));
    text += &format!(
        "padding {:.1} %, predicted {:.1} %, random next {:.1} % (of {} examples)\n",
        100.0 * lengths.padding,
        100.0 * lengths.predicted,
        100.0 * lengths.random_next,
        lengths.examples
    );
    let most = lengths.histogram.iter().map(|&(_, count)| count).max().unwrap_or(0).max(1);
    let mut shortest = 1;
    for &(longest, count) in &lengths.histogram {
        let bar = "█".repeat((40 * count / most) as usize);
        text += &format!("{shortest:>5}–{longest:<5} {count:>8} {bar}\n");
        shortest = longest + 1;
    }
    text
}

/// The word that stood at a position, and what stands there now.
fn target<'v>(example: &Example, vocabulary: &'v Vocabulary, position: usize) -> Option<(&'v str, &'v str)> {
    let at = example.targets.positions.binary_search(&position).ok()?;
    Some((shown(vocabulary, example.targets.ids[at]), shown(vocabulary, example.tokens[position])))
}

fn shown(vocabulary: &Vocabulary, id: u32) -> &str {
    vocabulary.token(id).unwrap_or("?")
}

/// What a reader must know to read [`as_text`], in the colours that it uses.
fn legend() -> String {
    let [masked, random, kept] = [Fate::Masked, Fate::Random, Fate::Kept].map(Fate::paint);
    format!(
        "{} first segment, {} second; to predict: {} hidden, {} another token shown, {} left as it is\n",
        style("text").cyan(),
        style("text").blue(),
        masked("[MASK→word]"),
        random("[other→word]"),
        kept("[word→word]")
    )
}

/// What masking did to a token that is to be predicted.
#[derive(Clone, Copy)]
enum Fate {
    Masked,
    Random,
    Kept,
}

impl Fate {
    fn of(word: &str, now: &str) -> Fate {
        match now {
            "[MASK]" => Fate::Masked,
            _ if now == word => Fate::Kept,
            _ => Fate::Random,
        }
    }

    fn paint(self) -> impl Fn(&str) -> String {
        move |text| {
            let text = style(text.to_owned());
            match self {
                Fate::Masked => text.red(),
                Fate::Random => text.yellow(),
                Fate::Kept => text.green(),
            }
            .to_string()
        }
    }
}

/// Pieces joined to words, a line for each segment; tokens to be predicted as [`legend`] shows them.
fn as_text(example: &Example, vocabulary: &Vocabulary) -> String {
    let mut text = String::new();
    for (position, &id) in example.tokens.iter().enumerate() {
        let token = shown(vocabulary, id);
        let in_second = position >= example.text.first_segment();
        let (joined, piece) = match target(example, vocabulary, position) {
            Some((word, now)) => {
                let shown = if now == "[MASK]" { "MASK" } else { now };
                let piece = format!("[{shown}→{}]", word.trim_start_matches("##"));
                (word.starts_with("##"), Fate::of(word, now).paint()(&piece))
            }
            None if vocabulary.special().sep == id || vocabulary.special().cls == id => {
                (false, style(token).dim().to_string())
            }
            None => {
                let piece = style(token.trim_start_matches("##"));
                let piece = if in_second { piece.blue() } else { piece.cyan() };
                (vocabulary.is_continuation(id), piece.to_string())
            }
        };
        if position == example.text.first_segment() {
            text.push('\n');
        } else if position > 0 && !joined {
            text.push(' ');
        }
        text += &piece;
    }
    text
}

fn as_json(number: u64, example: &Example, vocabulary: &Vocabulary) -> serde_json::Value {
    let tokens: Vec<&str> = example.tokens.iter().map(|&id| shown(vocabulary, id)).collect();
    let targets = example.targets.positions.iter().filter_map(|&position| {
        let (word, _) = target(example, vocabulary, position)?;
        Some(json!({ "position": position, "token": word }))
    });
    json!({
        "number": number, "epoch": example.epoch, "tokens": tokens, "first_segment": example.text.first_segment(),
        "masked": targets.collect::<Vec<_>>(), "random_next": example.text.label == 1,
    })
}
