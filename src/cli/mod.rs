//! The command line, with one file per verb. A verb parses its arguments, calls the library, prints the result and returns
//! the exit code; it computes nothing itself.

#![allow(missing_docs, reason = "doc comments of arguments are help texts, and a verb is documented by its help")]

pub mod args;
pub mod errors;
pub mod render;
pub mod verbs;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::verbs::models::{average, embed, evaluate, export, extend, import, predict};
use self::verbs::{
    bench, devices, finetune, graph, inspect, plan, plugin, prepare, pretrain, report, shell, study, tokenizer, verify,
};
use crate::{output, pjrt};

/// Pretrain BERT with LAMB at very large batch sizes on TPU, GPU or CPU; fine-tune it, and predict with it.
#[derive(Debug, Parser)]
#[command(name = "lambert", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
From text to a model (`scripts/quickstart` runs all of these):
  lambert plugin install cpu
  lambert tokenizer train text/ --out data/my/tokenizer
  lambert prepare text/ --tokenizer data/my/tokenizer --out data/my/prepared
  lambert pretrain scripts/runs/bert-base.toml --set data.path=data/my/prepared
  lambert export checkpoints/bert-base --out my-bert

Exit codes: 0 success, 1 failure, 2 invalid command line, 4 training has
diverged, 75 time limit reached and saved, 130 interrupted and saved.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// Print results and errors only, without notes and progress
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Also print the messages of the PJRT plugin (XLA, libtpu)
    #[arg(long, short, global = true)]
    verbose: bool,
}

/// The verbs in the order of use, then those for planning and checking.
#[derive(Debug, Subcommand)]
pub enum Command {
    Devices(devices::Devices),
    #[command(subcommand)]
    Plugin(plugin::PluginCommand),
    #[command(subcommand)]
    Tokenizer(tokenizer::Tokenizer),
    Prepare(prepare::Prepare),
    Inspect(inspect::Inspect),
    Pretrain(pretrain::Pretrain),
    Evaluate(evaluate::Evaluate),
    Report(report::Report),
    Study(study::Study),
    Finetune(finetune::Finetune),
    Predict(predict::Predict),
    Embed(embed::Embed),
    Average(average::AverageCheckpoints),
    Export(export::Export),
    Import(import::Import),
    Extend(extend::Extend),
    Plan(plan::Plan),
    Bench(bench::Bench),
    Verify(verify::Verify),
    Graph(graph::Graph),
    Completions(shell::Completions),
    #[command(name = "man")]
    ManPages(shell::ManPages),
}

/// Makes a write beyond the limit on the size of files (`ulimit -f`) fail with an error that names the file. The default of its
/// signal, which remains if no handler can be installed, ends the process without a message.
fn report_file_size_limit() {
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
}

/// Makes a shard that another program truncates during a read end the process with an error that names it. Without a handler, the
/// signal ends the process without a message.
fn report_truncated_shards() {
    #[cfg(target_os = "linux")]
    let _ = crate::data::watch_mapped_files(|error| {
        report(&error.into());
        std::process::exit(1);
    });
}

/// Prints the error that ends the program.
pub fn report(error: &anyhow::Error) {
    let label = console::style("error:").red().bold().for_stderr();
    output::report(format_args!("{label} {}", errors::message(error)));
}

/// Starts one thread for each processor, for everything that is computed in parallel. Started at their first use, they would end
/// the process with a panic if the system refused them.
fn start_threads() -> anyhow::Result<()> {
    rayon::ThreadPoolBuilder::new().build_global().context(errors::NO_THREAD)
}

/// Runs the chosen verb and returns its exit code. A process calls it once.
///
/// # Errors
/// As the verb; if the system refuses the threads.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    report_file_size_limit();
    report_truncated_shards();
    start_threads()?;
    if cli.quiet {
        output::be_quiet();
    }
    if cli.verbose {
        pjrt::show_plugin_messages();
    }
    match cli.command {
        Command::Devices(args) => devices::run(args),
        Command::Plugin(command) => plugin::run(command),
        Command::Tokenizer(verb) => tokenizer::run(verb),
        Command::Prepare(args) => prepare::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Pretrain(args) => pretrain::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Report(args) => report::run(args),
        Command::Study(args) => study::run(args),
        Command::Finetune(args) => finetune::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Embed(args) => embed::run(args),
        Command::Average(args) => average::run(args),
        Command::Export(args) => export::run(args),
        Command::Import(args) => import::run(args),
        Command::Extend(args) => extend::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Graph(args) => graph::run(args),
        Command::Completions(args) => shell::completions(args),
        Command::ManPages(args) => shell::man_pages(args),
    }
}
