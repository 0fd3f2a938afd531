//! `lambert report`: writes a page about runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::{ArgGroup, Args};
use serde_json::{Map, Value};

use crate::files;

use crate::output::print;
use crate::report::history::history;
use crate::report::pages::html::write_page;
use crate::report::pages::runs::{ReportedRun, page, run_directories};
use crate::units::counted;

/// Write one HTML page about one or several runs, or the history of a run for experiment trackers
///
/// The page has the losses and other metrics with their baselines, learning rate, gradient norm and trust ratios, throughput, the use of
/// the time, resumes and divergences, and the settings of the runs beside each other. It is one file, which loads nothing.
///
/// The history has one JSON object for each step, with the keys of Weights & Biases (`_step`, `_timestamp`, `_runtime`) and the scalars
/// of training and evaluation (`train/mlm_loss`, `evaluation/mlm_loss`).
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("output").required(true).multiple(true).args(["out", "history"]))]
#[command(after_help = "\
Examples:
  lambert report checkpoints/quickstart --out quickstart.html
  lambert report checkpoints/lamb checkpoints/adamw --out compared.html
  lambert report checkpoints/sst2 --out seeds.html          # all seeds of `lambert finetune`
  lambert report checkpoints/lamb --history lamb.jsonl      # for wandb.log or trackio.log")]
pub struct Report {
    /// Run directories, or directories of run directories
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Write the page; an earlier page of lambert is replaced
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
    /// Write the history of one run to a new file
    #[arg(long, value_name = "FILE.jsonl")]
    history: Option<PathBuf>,
}

pub fn run(args: Report) -> anyhow::Result<ExitCode> {
    let mut runs = Vec::new();
    for path in &args.runs {
        for directory in run_directories(path)? {
            runs.push(ReportedRun::read(&directory)?);
        }
    }
    if let Some(path) = &args.out {
        write_page(path, &page(&runs)?)?;
        print(format_args!("{}: {}", path.display(), counted(runs.len() as u64, "run")))?;
    }
    if let Some(path) = &args.history {
        let [run] = runs.as_slice() else {
            bail!("--history requires one run, got {}; pass its directory", runs.len())
        };
        let steps = history(&run.log);
        write_lines(path, &steps)?;
        print(format_args!("{}: {}", path.display(), counted(steps.len() as u64, "step")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes one JSON object per line to the new file `path`.
fn write_lines(path: &Path, objects: &[Map<String, Value>]) -> anyhow::Result<()> {
    ensure!(!path.exists(), "{} already exists; choose another file, or remove it", path.display());
    let mut lines = Vec::new();
    for object in objects {
        serde_json::to_writer(&mut lines, object)?;
        lines.push(b'\n');
    }
    files::write_atomically(path, |partial| std::fs::write(partial, lines))
}
