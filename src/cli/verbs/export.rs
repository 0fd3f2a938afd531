//! `lambert export`: a checkpoint becomes a directory that Hugging Face's `from_pretrained` loads.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::checkpoint::hugging_face::Architecture;
use crate::output::{note, print};
use crate::run::buckets::fetch_model;
use crate::run::weights::{Exported, export_model};
use crate::storage::Location;

/// Write a checkpoint as a directory that transformers loads: config.json, model.safetensors, tokenizer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert export checkpoints/quickstart --out my-bert
  lambert export gs://my-bucket/large/step-00007037 --out my-bert --architecture BertForMaskedLM")]
pub struct Export {
    /// A step-… directory, or a run directory (then its newest checkpoint is taken).
    checkpoint: Location,
    /// The directory to write: not there yet, empty, or an earlier export that nobody has changed.
    #[arg(long)]
    out: PathBuf,
    /// The class of transformers to write for, which then loads without a warning: BertForPreTraining, BertForMaskedLM or
    /// BertModel. The others load what is written for the first too, but name the heads they have no place for.
    #[arg(long, value_name = "CLASS", default_value = Architecture::default().name(), value_parser = architecture)]
    architecture: Architecture,
}

fn architecture(name: &str) -> Result<Architecture, String> {
    Architecture::ALL
        .into_iter()
        .find(|architecture| architecture.name() == name)
        .ok_or_else(|| format!("the classes are {}", Architecture::ALL.map(Architecture::name).join(", ")))
}

pub fn run(args: Export) -> anyhow::Result<ExitCode> {
    let exported = export_model(&fetch_model(&args.checkpoint)?, args.architecture, &args.out)?;
    exported.notes.iter().for_each(note);
    let Exported { checkpoint, step, tensors, .. } = exported;
    let (out, class) = (args.out.display(), args.architecture.name());
    print(format_args!("exported {} (step {step}, {tensors} tensors) to {out}", checkpoint.display()))?;
    print(format_args!("load it with  AutoTokenizer.from_pretrained({out:?})  {class}.from_pretrained({out:?})"))?;
    Ok(ExitCode::SUCCESS)
}
