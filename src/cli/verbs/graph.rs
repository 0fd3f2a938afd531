//! `lambert graph`: what the compiler would receive, as files that people and other programs can read. Nothing is
//! compiled, and neither data nor a device is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use crate::files::write_atomically;
use crate::hlo;
use crate::output::print;
use crate::run::Run;
use crate::step::TrainStep;
use crate::units::{byte_size, duration};

/// Write the training step of every phase as HLO: .hlo.pb for compilers and tools, text for people.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert graph scripts/runs/bert-base.toml
  lambert graph scripts/runs/bert-large-64k-paper.toml --devices 1024 --out /tmp/paper")]
pub struct Graph {
    /// The run file.
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// The directory to write into; files of the same names are replaced.
    #[arg(long, value_name = "DIR", default_value = "graphs/dump")]
    out: PathBuf,
    /// Devices that share the global batch.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Another value for a key of the run file, as model.vocab_size=30522 or phase.1.micro_batch_size=8.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: Graph) -> anyhow::Result<ExitCode> {
    let run = Run::open(&args.run, &args.set)?;
    let write = |path: &Path, content: &[u8]| write_atomically(path, |partial| fs::write(partial, content));
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make the directory {}", args.out.display()))?;
    for (i, phase) in run.schedule.phases().iter().enumerate() {
        let spec = run.step_spec(i, args.devices as usize)?;
        let begin = Instant::now();
        let program = TrainStep::build(&spec)?.program;
        let built = begin.elapsed();
        let module = program.lower();
        let lowered = begin.elapsed() - built;

        let stem = file_name(&format!("{}.phase-{}", run.name, i + 1));
        let text = hlo::text(&module.bytes).context("the module just written does not decode")?;
        write(&args.out.join(format!("{stem}.graph.txt")), program.computation.to_string().as_bytes())?;
        write(&args.out.join(format!("{stem}.hlo.txt")), text.as_bytes())?;
        let path = args.out.join(format!("{stem}.hlo.pb"));
        write(&path, &module.bytes)?;
        print(format_args!(
            "phase {} ({} rows of {} in {} micro-batches on each of {} devices): {} arguments, {} results, \
             {}, built in {}, lowered in {}",
            phase.name,
            spec.rows,
            phase.sequence_length,
            spec.accumulation_steps,
            spec.replicas,
            module.parameters.len(),
            module.results.len(),
            byte_size(module.bytes.len() as f64),
            duration(built),
            duration(lowered),
        ))?;
        print(format_args!("  {} (and .hlo.txt and .graph.txt beside it)", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A run's name may hold anything; a file's name holds letters, digits, dots, dashes and underscores.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}
