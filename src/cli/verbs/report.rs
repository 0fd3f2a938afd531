//! `lambert report`: writes a page about runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::output::print;
use crate::report::pages::html::write_page;
use crate::report::pages::runs::{ReportedRun, page, run_directories};
use crate::units::counted;

/// Write one HTML page about one or several runs
///
/// The page has the losses and other metrics with their baselines, learning rate, gradient norm and trust ratios, throughput, the use of
/// the time, resumes and divergences, and the settings of the runs beside each other. It is one file, which loads nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert report checkpoints/quickstart --out quickstart.html
  lambert report checkpoints/lamb checkpoints/adamw --out compared.html
  lambert report checkpoints/sst2 --out seeds.html          # all seeds of `lambert finetune`")]
pub struct Report {
    /// Run directories, or directories of run directories
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Output file; an earlier page of lambert is replaced
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
}

pub fn run(args: Report) -> anyhow::Result<ExitCode> {
    let mut runs = Vec::new();
    for path in &args.runs {
        for directory in run_directories(path)? {
            runs.push(ReportedRun::read(&directory)?);
        }
    }
    let html = page(&runs)?;
    write_page(&args.out, &html)?;
    print(format_args!("{}: {}", args.out.display(), counted(runs.len() as u64, "run")))?;
    Ok(ExitCode::SUCCESS)
}
