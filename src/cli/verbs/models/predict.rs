//! `lambert predict`: fills masks, labels texts and words, and answers questions.

use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::cli::args::prediction::{PredictionArgs, note_truncated};
use crate::cli::render::predictions::to_text;
use crate::data::WindowOptions;
use crate::output::{print, print_text};
use crate::predict::inputs::Inputs;

/// Predict with a model: masked tokens, labels or answers
///
/// The head of the model decides. A pretrained model fills each `[MASK]` of a text. A classifier labels each text; a tab
/// separates the texts of a pair. A token classifier labels each word. Question answering requires JSON lines with
/// "question" and "context". The output has the order of the input; an empty line is an error. Texts that are longer than
/// the sequence are truncated, and their number is printed; long contexts are divided into windows.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo 'The river flows into the [MASK].' | lambert predict checkpoints/quickstart
  lambert predict checkpoints/reviews reviews.txt --json > predictions.jsonl
  lambert predict checkpoints/squad questions.jsonl --top-k 3")]
pub struct Predict {
    #[command(flatten)]
    pub prediction: PredictionArgs,
    /// Tokens of a mask, labels of a text or answers to a question, at most
    #[arg(long, default_value_t = 5, value_name = "N")]
    top_k: usize,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: Predict) -> anyhow::Result<ExitCode> {
    ensure!(args.top_k > 0, "--top-k requires at least 1, got 0");
    let (model, lines) = args.prediction.open()?;
    let inputs = Inputs::new(&lines, args.prediction.is_json(), &model)?;
    match &inputs {
        Inputs::Questions(questions) => {
            note_truncated(questions.truncated(), "question", WindowOptions::default().question_length);
        }
        texts => note_truncated(texts.truncated(), "text", model.sequence_length),
    }
    let devices = args.prediction.devices.open()?;
    let predictions = inputs.predict(model, &devices, args.prediction.settings(), args.top_k)?;
    if args.json {
        predictions.to_json()?.into_iter().try_for_each(print)?;
    } else {
        print_text(to_text(&predictions))?;
    }
    Ok(ExitCode::SUCCESS)
}
