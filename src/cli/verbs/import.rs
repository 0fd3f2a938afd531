//! `lambert import`: a Hugging Face directory becomes the checkpoint of step 0 that a run starts from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::checkpoint::hugging_face::import;
use crate::checkpoint::{Contents, RunLock, load_latest, save};
use crate::output::{note, print};
use crate::run::weights::{describe, pad};

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
    if load_latest(&args.out, Contents::ModelOnly)?.is_some() {
        bail!("{} holds checkpoints already; choose another --out to begin a run from an import", args.out.display());
    }
    let config_path = args.directory.join("config.json");
    let text = std::fs::read(&config_path).with_context(|| {
        format!("cannot read {}; name a directory that save_pretrained wrote", config_path.display())
    })?;
    let (config, model) = describe(&config_path, &text)?;
    let mut imported = import(&args.directory, &model)?;

    pad(&config, &mut imported.checkpoint);
    let _lock = RunLock::take(&args.out)?;
    let saved = save(&args.out, &imported.checkpoint, 0)?;
    saved.notes.iter().for_each(note);
    print(format_args!(
        "imported {} of {} tensors from {} to {}",
        imported.checkpoint.model.len(),
        model.tensors.len(),
        args.directory.display(),
        saved.path.display()
    ))?;
    for (what, names) in [
        ("not taken (copies, or no part of this model)", &imported.ignored),
        ("converted to f32", &imported.converted),
        ("missing: the run that starts here initialises them from its seed", &imported.checkpoint.state.missing),
    ] {
        if !names.is_empty() {
            print(format_args!("{what}: {}", names.join(", ")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
