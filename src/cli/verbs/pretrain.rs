//! `lambert pretrain`: trains a run file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use crate::cli::args::host::HostArgs;
use crate::cli::args::shell::quoted;
use crate::cli::args::training::TrainingArgs;
use crate::cli::errors;
use crate::cli::render::{optimizers, run as render};
use crate::output::print;
use crate::run::Run;
use crate::train::interrupt::Interrupt;
use crate::train::job::Selection;
use crate::train::{Outcome, PretrainEvent, PretrainOptions, pretrain_with_events};
use crate::units::counted;

const EXAMPLES: &str = "\
Examples:
  lambert pretrain scripts/runs/quickstart.toml
  lambert pretrain scripts/runs/quickstart.toml --resume
  lambert pretrain scripts/runs/bert-base.toml --platform cuda --set phase.1.micro_batch_size=256
  srun lambert pretrain scripts/runs/bert-large-64k-paper.toml --platform cuda
  lambert pretrain RUN.toml --hosts 4 --host 2 --coordinator etcd://10.0.0.2:2379/my-run

On several hosts, all processes need the same run file, data and program (this is checked) and
a shared run directory; host 0 writes to it. Ctrl-C on one host stops all of them.

The run directory contains checkpoints (step-…), metrics.jsonl (a JSON object per line: steps,
evaluations, starts) and TensorBoard files.";

/// Pretrain a BERT model according to a run file
///
/// All settings and data are checked before anything is compiled, and all phases are compiled before the first step. Ctrl-C
/// (or SIGTERM) finishes the step, saves a checkpoint, prints the command that resumes the run, and exits with code 130.
/// SIGUSR1 saves a checkpoint, and the run continues. A resumed run is bit-identical to an uninterrupted one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", optimizers::catalogue()))]
pub struct Pretrain {
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Load the compiled steps of `lambert plan --save` from this directory instead of compiling them
    #[arg(long, value_name = "DIR")]
    compiled: Option<PathBuf>,
    /// Save and end when standard input is closed, as after Ctrl-C
    #[arg(long, hide = true)]
    end_with_input: bool,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(args: Pretrain) -> anyhow::Result<ExitCode> {
    if args.end_with_input {
        Interrupt::end_with_input().context(errors::NO_THREAD)?;
    }
    let run = Run::open(&args.training.run, &args.training.set)?;
    let resume_command = args.resume_command();
    let options = PretrainOptions {
        platform: args.training.devices.platform().clone(),
        devices: args.training.devices.count(),
        cache: args.training.devices.cache(),
        resume: args.training.resume_options(),
        max_time: args.training.max_time(),
        ignore_memory: args.training.ignore_memory,
        compiled: args.compiled.clone(),
        rendezvous: args.hosts.rendezvous_config(&run.checkpoint.directory)?,
        resume_command: resume_command.clone(),
    };
    let outcome = pretrain_with_events(&run, &options, &mut |event| Ok(print_event(event, &resume_command)?))?;
    Ok(render::early_end(outcome, &resume_command).map_or(ExitCode::SUCCESS, |(code, _)| ExitCode::from(code)))
}

fn print_event(event: PretrainEvent<'_>, resume_command: &str) -> std::io::Result<()> {
    match event {
        PretrainEvent::AlreadyComplete { run, stopped, hosts } if hosts.is_leader() => {
            let (outcome, end) = match stopped {
                Some(best) => (Outcome::StoppedEarly, Selection::sentence(best)),
                None => (Outcome::Finished, format!("is complete after {}", counted(run.schedule.steps(), "step"))),
            };
            print(format_args!("{} {end}", run.name))?;
            render::extension(outcome, run, resume_command).map_or(Ok(()), print)
        }
        PretrainEvent::AlreadyComplete { .. } => Ok(()),
        PretrainEvent::Starting { run, devices, hosts, initial_state } if hosts.is_leader() => {
            print(render::settings(run, devices, initial_state))
        }
        PretrainEvent::Starting { run, devices, hosts, .. } => {
            print(format_args!("{} on {}: {}", run.name, devices.describe(), hosts.describe()))
        }
        PretrainEvent::Ready { trainer, memory } => {
            for (phase, step) in trainer.steps().iter().enumerate() {
                print(format_args!("phase {} {}", phase + 1, render::compile_times(&step.times)))?;
            }
            for (phase, coverage) in trainer.coverage().into_iter().enumerate() {
                print(format_args!("phase {} data: {}", phase + 1, render::coverage(&coverage)))?;
            }
            print(format_args!("memory: {memory}"))
        }
        PretrainEvent::Ended { run, outcome, summary, hosts } => {
            if hosts.is_leader() {
                print(format_args!("\n{}", summary.to_text()))?;
            }
            let early = render::early_end(outcome, resume_command).map(|(_, how_to_resume)| how_to_resume);
            let next = early.or_else(|| render::extension(outcome, run, resume_command));
            next.map_or(Ok(()), |next| print(format_args!("\n{next}")))
        }
    }
}

impl Pretrain {
    /// Returns the command that resumes this run.
    fn resume_command(&self) -> String {
        let mut command = self.training.resume_command("pretrain");
        if let Some(hosts) = self.hosts.hosts {
            command += &format!(" --hosts {hosts}");
        }
        if let Some(host) = self.hosts.host {
            command += &format!(" --host {host}");
        }
        if let Some(coordinator) = &self.hosts.coordinator {
            command += &format!(" --coordinator {}", quoted(coordinator));
        }
        if let Some(compiled) = &self.compiled {
            command += &format!(" --compiled {}", quoted(&compiled.display().to_string()));
        }
        command
    }
}
