//! `lambert import`: writes a Hugging Face model as the checkpoint of step 0.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output::{note, print};
use crate::run::weights::{ImportedCheckpoint, import_checkpoint};

/// Import a Hugging Face model as a checkpoint, and report what it holds
///
/// A run needs no import of its own: `import = "DIR"` in its run file takes the Hugging Face directory itself, or the imported
/// checkpoint. docs/continue.md has all steps.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert import bert-base-uncased/ --out checkpoints/imported
  lambert pretrain scripts/runs/continue.toml --set import=checkpoints/imported
  lambert export checkpoints/imported --out my-bert")]
pub struct Import {
    /// Output directory of save_pretrained: BertForPreTraining, BertForMaskedLM, BertModel, or a class for sequence
    /// classification, token classification or question answering
    directory: PathBuf,
    /// New run directory; the checkpoint is step-00000000
    #[arg(long, value_name = "DIR")]
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
    if let Some(prefix) = imported.wrapper {
        let wrapper = "a wrapper of PyTorch (torch.compile, DataParallel) adds it to the names of its tensors";
        print(format_args!("removed the prefix {prefix:?}: {wrapper}"))?;
    }
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
