//! `lambert export`: writes a checkpoint as a Hugging Face directory.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use crate::checkpoint::Checkpoint;
use crate::checkpoint::hugging_face::{Architecture, MODEL_CARD, ONNX_MODEL};
use crate::cli::args::pooling::Pooling;
use crate::cli::args::weights::Weights;
use crate::output::{note, print};
use crate::predict::onnx::onnx_model;
use crate::report::model_card::model_card;
use crate::run::buckets::fetch_model;
use crate::run::weights::{Exported, export_averages, export_model};
use crate::storage::Location;

/// Export a checkpoint for Hugging Face transformers
///
/// Writes config.json, model.safetensors, the tokenizer, and a model card (README.md) with data, settings and losses beside their
/// baselines. Its fields for sources and licence are for you to fill in.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert export checkpoints/quickstart --out my-bert
  lambert export checkpoints/mine --weights ema --out my-bert
  lambert export checkpoints/mine --format onnx --pooling mean --out my-embeddings
  lambert export gs://my-bucket/large/step-00007037 --out my-bert --architecture BertForMaskedLM")]
pub struct Export {
    /// Checkpoint (step-…) or run directory (its best checkpoint if it selects one, else its newest); also s3:// or gs://
    checkpoint: Location,
    /// Output directory: new, empty, or an unchanged earlier export
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Class of transformers to export for [default: the class of the model]
    ///
    /// A pretrained model can be exported for BertForPreTraining, BertForMaskedLM or BertModel, a sequence classifier for
    /// BertForSequenceClassification or BertModel, any other fine-tuned model for its own class. The class loads the export
    /// without a warning. The other classes load it too, but warn about heads that are missing or not used.
    #[arg(long, value_name = "CLASS", value_parser = architecture)]
    architecture: Option<Architecture>,
    /// Files of the model: onnx also writes onnx/model.onnx, which takes any batch and length
    ///
    /// A fine-tuned model has the outputs of its class in transformers. Others have last_hidden_state and, with --pooling,
    /// sentence_embedding.
    #[arg(long, value_enum, default_value_t = Format::Safetensors, value_name = "FORMAT")]
    format: Format,
    /// Pooling of the hidden states in an ONNX model [default: none]
    #[arg(long, value_enum, value_name = "POOLING")]
    pooling: Option<Pooling>,
    /// Weights to export: those of the step, or their exponential moving average (of a run with [ema])
    #[arg(long, value_enum, default_value_t = Weights::Model, value_name = "WEIGHTS")]
    weights: Weights,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// model.safetensors
    Safetensors,
    /// model.safetensors, and onnx/model.onnx for onnxruntime, transformers.js and text-embeddings-inference
    Onnx,
}

fn architecture(name: &str) -> Result<Architecture, String> {
    Architecture::from_name(name)
        .ok_or_else(|| format!("requires one of {}", Architecture::ALL.map(Architecture::name).join(", ")))
}

pub fn run(args: Export) -> anyhow::Result<ExitCode> {
    ensure!(args.format == Format::Onnx || args.pooling.is_none(), "--pooling requires --format onnx");
    let checkpoint = fetch_model(&args.checkpoint)?;
    let more = |directory: &Path, checkpoint: &Checkpoint, architecture: Architecture| {
        let mut files = vec![(MODEL_CARD, model_card(directory, checkpoint, architecture)?.into_bytes())];
        if args.format == Format::Onnx {
            let pooling = args.pooling.map(Pooling::output);
            files.push((ONNX_MODEL, onnx_model(directory, checkpoint, architecture, pooling)?));
        }
        Ok(files)
    };
    let exported = match args.weights {
        Weights::Model => export_model(&checkpoint, args.architecture, Some(&more), &args.out)?,
        Weights::Ema => export_averages(&checkpoint, args.architecture, Some(&more), &args.out)?,
    };
    exported.notes.iter().for_each(note);
    let Exported { checkpoint, step, architecture, tensors, .. } = exported;
    let (out, class) = (args.out.display(), architecture.name());
    print(format_args!("exported {} (step {step}, {tensors} tensors) to {out}", checkpoint.display()))?;
    print(format_args!("load it with  AutoTokenizer.from_pretrained({out:?})  {class}.from_pretrained({out:?})"))?;
    Ok(ExitCode::SUCCESS)
}
