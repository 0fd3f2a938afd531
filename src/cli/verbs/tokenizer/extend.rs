//! `lambert tokenizer extend`: new pieces of a text for a model or a tokenizer.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::note_left_out;
use crate::cli::args::read::{FORMS, ReadArgs, note_skipped};
use crate::data::{
    ExtensionOptions, Fertility, FoundInputs, Input, LeftOut, ReadOptions, SentenceMode, TextShare, TokenizerModel,
    find_inputs,
};
use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print};
use crate::run::extension::{Extended, NewRows, extend};
use crate::units::{counted, duration, thousands};

/// New pieces that the report shows.
const SHOWN_PIECES: usize = 10;

const EXAMPLES: &str = "

Examples:
  lambert tokenizer extend my-bert text/ --out my-bert-extended
  lambert tokenizer extend my-bert text/ --pieces 3000 --keep-unused --out my-bert-extended
  lambert tokenizer extend data/my/tokenizer text/ --out data/my/extended-tokenizer";

/// Add pieces of your text to the vocabulary of a model or a tokenizer
///
/// Writes a Hugging Face directory with the tokenizer and, for a model, weights with a row for each new piece. `import` in a run file
/// takes it like any other model; prepare the data with its tokenizer. The pieces are those that shorten the text most, chosen one
/// after the other. They replace the entries [unused…] in the order of their ids, then follow the last token.
///
/// The report shows the pieces per word before and after, on the documents that the pieces were chosen on and on held-out ones
/// (every tenth).
#[derive(Debug, Args)]
#[command(after_help = [FORMS, EXAMPLES].concat())]
pub struct Extend {
    /// Model (a Hugging Face directory, checkpoint or run directory), or a directory with a tokenizer alone
    model: PathBuf,
    /// Files, directories or patterns ("dumps/*.bz2"); see the formats below
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Output directory: new, empty, or an unchanged earlier export
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// New pieces, at most
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pieces: usize,
    /// Occurrences in the text that a new piece needs
    #[arg(long, default_value_t = 5, value_name = "N")]
    min_frequency: u64,
    /// Keep the entries [unused…]; append all pieces behind the last token
    #[arg(long)]
    keep_unused: bool,
    /// First values of the new rows of the word embeddings, and of their biases in the MLM head
    #[arg(long, value_enum, default_value_t = Rows::Pieces, value_name = "ROWS")]
    rows: Rows,
    /// Seed of --rows random
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    #[command(flatten)]
    reading: ReadArgs,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rows {
    /// Mean of the pieces that the old vocabulary has for the new one
    Pieces,
    /// Mean of the whole vocabulary
    Vocabulary,
    /// Random as in a new model, with biases of 0
    Random,
}

pub fn run(args: Extend) -> anyhow::Result<ExitCode> {
    let FoundInputs { inputs, skipped } = find_inputs(&args.inputs)?;
    note_skipped(&skipped);
    let options = ExtensionOptions {
        pieces: args.pieces,
        min_frequency: args.min_frequency,
        keep_unused: args.keep_unused,
        reading: ReadOptions { sentences: SentenceMode::Lines, ..args.reading.options() },
    };
    let rows = match args.rows {
        Rows::Pieces => NewRows::Pieces,
        Rows::Vocabulary => NewRows::Vocabulary,
        Rows::Random => NewRows::Random(args.seed),
    };
    let started = Instant::now();
    // The choice that follows has no progress bar.
    let progress = ByteProgress::new("words", inputs.iter().map(|input: &Input| input.bytes).sum::<u64>());
    let extended = extend(&args.model, &inputs, &options, rows, &args.out, &|bytes| progress.add(bytes));
    progress.finish();
    let extended = extended?;
    extended.notes.iter().for_each(note);
    // The model has its rules of words already, so signs that they strip are no news.
    note_left_out(LeftOut { signs: 0, ..extended.extension.left_out }, TokenizerModel::WordPiece);
    if args.json {
        print(as_json(&extended))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Extended { extension, tokens: [before, after], architecture, .. } = &extended;
    let class = architecture.map_or("tokenizer", |class| class.name());
    print(format_args!(
        "{} ({class}): {} new pieces in {}, {} of them in place of [unused…]; {} → {} tokens",
        args.out.display(),
        thousands(extension.pieces.len() as u64),
        duration(started.elapsed()),
        thousands(extension.replaced as u64),
        thousands(*before as u64),
        thousands(*after as u64)
    ))?;
    fertility_table(&extended).into_iter().try_for_each(print)?;
    print("the new pieces that save most:")?;
    extension.pieces.iter().take(SHOWN_PIECES).try_for_each(|piece| {
        let saved = counted(piece.saved, "piece");
        print(format_args!(
            "  {:<24}id {:<8}{} occurrences, saves {saved}",
            piece.token,
            piece.id,
            thousands(piece.occurrences)
        ))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the parts of the text with their names.
fn shares(extended: &Extended) -> Vec<(&'static str, TextShare)> {
    let extension = &extended.extension;
    let held_out = extension.held_out.map(|share| ("held_out", share));
    [("chosen_on", extension.chosen_on)].into_iter().chain(held_out).collect()
}

/// Returns the lines of the table of fertility.
fn fertility_table(extended: &Extended) -> Vec<String> {
    let mut lines = vec![format!("{:<12}{:>14}{:>24}{:>26}", "documents", "words", "pieces per word", "unknown words")];
    for (name, TextShare { before, after }) in shares(extended) {
        let both = |of: fn(&Fertility) -> f64, digits: usize, unit: &str| {
            format!("{:.digits$} → {:.digits$}{unit}", of(&before), of(&after))
        };
        lines.push(format!(
            "{:<12}{:>14}{:>24}{:>26}",
            name.replace('_', " "),
            thousands(before.words),
            both(Fertility::pieces_per_word, 3, ""),
            both(|fertility| 100.0 * fertility.unknown_share(), 3, " %")
        ));
    }
    lines
}

/// Returns the report as JSON.
fn as_json(extended: &Extended) -> serde_json::Value {
    let Extended { extension, tokens: [before, after], architecture, .. } = extended;
    let fertility = |fertility: &Fertility| {
        json!({
            "pieces_per_word": fertility.pieces_per_word(), "words": fertility.words, "pieces": fertility.pieces,
            "unknown_words": fertility.unknown_words,
        })
    };
    let pieces = extension.pieces.iter().map(|piece| {
        json!({
            "token": piece.token, "id": piece.id, "saved": piece.saved, "occurrences": piece.occurrences,
            "old_pieces": piece.old_pieces,
        })
    });
    let mut report = json!({
        "architecture": architecture.map(|class| class.name()),
        "tokens_before": before, "tokens": after, "replaced_unused": extension.replaced,
        "vocabulary_sha256": extension.tokenizer.vocabulary().sha256(),
        "new_pieces": pieces.collect::<Vec<_>>(),
    });
    for (name, share) in shares(extended) {
        report[name] = json!({ "before": fertility(&share.before), "after": fertility(&share.after) });
    }
    report
}
