//! `lambert import`: a Hugging Face directory becomes the checkpoint of step 0 that a run starts from.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output::{note, print};
use crate::run::weights::{ImportedCheckpoint, import_checkpoint};

/// Start a run from a Hugging Face directory (config.json and model.safetensors).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert import bert-base-uncased/ --out checkpoints/further
  lambert pretrain RUN.toml --set checkpoint.directory=checkpoints/further --resume")]
pub struct Import {
    /// The directory, as save_pretrained wrote it: BertForPreTraining, BertForMaskedLM or BertModel, old names included.
    directory: PathBuf,
    /// The run directory to begin: it gets the checkpoint step-00000000.
    #[arg(long)]
    out: PathBuf,
}

pub fn run(args: Import) -> anyhow::Result<ExitCode> {
    let ImportedCheckpoint { path, imported, tensors, notes } = import_checkpoint(&args.directory, &args.out)?;
    notes.iter().for_each(note);
    print(format_args!(
        "imported {} of {tensors} tensors from {} to {}",
        imported.checkpoint.model.len(),
        args.directory.display(),
        path.display()
    ))?;
    for (group, names) in [
        ("ignored (copies, or not part of this model)", &imported.ignored),
        ("converted to f32", &imported.converted),
        ("missing (initialised randomly by the run that starts here)", &imported.checkpoint.state.missing),
    ] {
        if !names.is_empty() {
            print(format_args!("{group}: {}", names.join(", ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
