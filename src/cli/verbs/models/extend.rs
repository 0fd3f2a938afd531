//! `lambert extend`: more positions for a saved model.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::output::{note, print};
use crate::run::positions::{Extended, NewPositions, extend};
use crate::units::thousands;

/// Give a model more positions, for texts longer than it was trained on
///
/// Writes a Hugging Face directory. `import` in a run file takes it like any other model; train it on long texts before use,
/// because its new positions are untrained; see docs/continue.md. `lambert tokenizer extend` adds tokens to the vocabulary.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert extend bert-base-uncased/ --max-position-embeddings 2048 --out bert-base-2048
  lambert extend my-bert --max-position-embeddings 1024 --rows interpolate --out my-bert-1024")]
pub struct Extend {
    /// Model: a Hugging Face directory, checkpoint or run directory
    model: PathBuf,
    /// Positions of the new model: the longest text in tokens
    #[arg(long, value_name = "N")]
    max_position_embeddings: usize,
    /// Rows of the position embeddings
    #[arg(long, value_enum, default_value_t = Rows::Tile, value_name = "ROWS")]
    rows: Rows,
    /// Output directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Rows {
    /// The old rows, again and again
    Tile,
    /// The old rows spread evenly over all positions, with linear interpolation
    Interpolate,
}

pub fn run(args: Extend) -> anyhow::Result<ExitCode> {
    let rows = match args.rows {
        Rows::Tile => NewPositions::Tile,
        Rows::Interpolate => NewPositions::Interpolate,
    };
    let Extended { positions, architecture, notes } =
        extend(&args.model, args.max_position_embeddings, rows, &args.out)?;
    notes.iter().for_each(note);
    let [before, after] = positions.map(|count| thousands(count as u64));
    print(format_args!("{} ({}): {before} → {after} positions", args.out.display(), architecture.name()))?;
    Ok(ExitCode::SUCCESS)
}
