//! `lambert embed`: embeddings of texts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::cli::args::pooling::Pooling;
use crate::cli::args::prediction::{PredictionArgs, note_truncated};
use crate::output::{note, print};
use crate::predict::embed::{EmbeddingFormat, each_json, embeddings, encoder, normalized, tokenize, write};
use crate::predict::lines::LineFormat;

/// Compute an embedding of each text
///
/// An embedding is the mean of the hidden states after the last layer, the hidden state of `[CLS]`, or the maximum. The order is
/// that of the input; an empty line is an error. Texts that are longer than the sequence are truncated, and their number is
/// printed. With N texts and a hidden size of H, a safetensors file has a tensor `embeddings` of N × H numbers, an .npy file the array.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert embed my-bert sentences.txt --normalize --out sentences.npy
  echo 'A short text.' | lambert embed checkpoints/quickstart --pooling cls")]
pub struct Embed {
    #[command(flatten)]
    pub prediction: PredictionArgs,
    /// Pooling of the hidden states
    #[arg(long, value_enum, default_value_t, value_name = "POOLING")]
    pooling: Pooling,
    /// Divide each embedding by its Euclidean norm
    #[arg(long)]
    normalize: bool,
    /// New output file: .jsonl, .safetensors or .npy [default: JSON lines on standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: Embed) -> anyhow::Result<ExitCode> {
    if let Some(out) = &args.out {
        EmbeddingFormat::of(out)?;
        ensure!(!out.exists(), "{} already exists; choose another file or remove it", out.display());
    }
    let (model, lines) = args.prediction.open()?;
    let texts = lines.texts(if args.prediction.is_json() { LineFormat::JsonLines } else { LineFormat::Text })?;
    let examples = tokenize(texts.clone(), &model.tokenizer, model.sequence_length)?;
    model.check_segments(&examples)?;
    note_truncated(examples.truncated(), "text", model.sequence_length);
    let devices = args.prediction.devices.open()?;
    let mut forward = encoder(&model.model.config, args.pooling.output(), &devices, args.prediction.settings());
    let weights = forward.load(model.model)?;
    let mut found = embeddings(&mut forward, &weights, &examples)?;
    if args.normalize {
        found = normalized(&found)?;
    }
    match &args.out {
        None => each_json(&texts, &found, |line| Ok(print(line)?))?,
        Some(out) => {
            write(out, &texts, &found)?;
            note(format_args!("wrote {} embeddings to {}", texts.len(), out.display()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
