//! `lambert graph`: writes the training steps of a run as HLO. It compiles nothing and needs neither data nor a device.

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
use crate::units::{byte_size, counted, duration};

/// Write the training step of each phase as HLO, binary (.hlo.pb) and text
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert graph scripts/runs/bert-base.toml
  lambert graph scripts/runs/bert-large-64k-paper.toml --devices 1024 --out /tmp/paper")]
pub struct Graph {
    /// Run file
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Output directory; files with the same names are overwritten
    #[arg(long, value_name = "DIR", default_value = "graphs/dump")]
    out: PathBuf,
    /// Number of devices that share the global batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Override a key of the run file, for example phase.1.micro_batch_size=8; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: Graph) -> anyhow::Result<ExitCode> {
    let run = Run::open(&args.run, &args.set)?;
    let write = |path: &Path, content: &[u8]| write_atomically(path, |partial| fs::write(partial, content));
    fs::create_dir_all(&args.out).with_context(|| format!("cannot create the directory {}", args.out.display()))?;
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
            "phase {} ({} with {} of {} tokens each, in {}): {} arguments, {} results, {}, built in {}, lowered in {}",
            phase.name,
            counted(spec.replicas as u64, "device"),
            counted(spec.rows as u64, "row"),
            phase.sequence_length,
            counted(spec.accumulation_steps as u64, "accumulation step"),
            module.parameters.len(),
            module.results.len(),
            byte_size(module.bytes.len() as f64),
            duration(built),
            duration(lowered),
        ))?;
        print(format_args!("  {} (also .hlo.txt and .graph.txt)", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces the characters of `name` that are not safe in a file name by underscores.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' }).collect()
}
