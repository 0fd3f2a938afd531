//! `lambert finetune`: trains a saved model on labelled examples.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::checkpoint::Best;
use crate::cli::args::training::TrainingArgs;
use crate::cli::render::fine_tuning as render;
use crate::cli::render::run::{early_end, weights};
use crate::output::{note, print};
use crate::run::fine_tuning::FineTuningRun;
use crate::train::fine_tuning::{FineTuneEvent, FineTuneOptions, SeedResult, fine_tune};

/// Fine-tune a model on labelled examples according to a run file
///
/// The task is one of sequence_classification, regression, token_classification and question_answering. The model is
/// evaluated on the dev file before the first step and after every epoch; the checkpoint with the best value of a metric is
/// kept, and `predict`, `embed` and `export` use it. Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint, prints the
/// command that resumes the run, and exits with code 130. A resumed run is bit-identical to an uninterrupted one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert finetune scripts/runs/fine-tuning/sst2-like.toml
  lambert finetune RUN.toml --set import=exported/ --set train.learning_rate=3e-5
  lambert finetune RUN.toml --seeds 1,2,3
  lambert finetune RUN.toml --set random_weights=true --set checkpoint.directory=checkpoints/random

With --seeds, each seed is trained in the directory seed-N of the run directory, and the table at
the end shows the mean and the standard deviation of every metric.")]
pub struct Finetune {
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Seeds to train one after the other, separated by commas [default: the seed of the run file]
    #[arg(long, value_name = "N,N…", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Print the results as one JSON object at the end
    #[arg(long)]
    json: bool,
}

pub fn run(args: Finetune) -> anyhow::Result<ExitCode> {
    let run = FineTuningRun::open(&args.training.run, &args.training.set)?;
    let resume_command = args.resume_command();
    let options = FineTuneOptions {
        platform: args.training.devices.platform().clone(),
        devices: args.training.devices.count(),
        cache: args.training.devices.cache(),
        resume: args.training.resume_options(),
        max_time: args.training.max_time(),
        ignore_memory: args.training.ignore_memory,
        seeds: args.seeds.clone(),
        resume_command: resume_command.clone(),
    };
    let results = fine_tune(run, &options, &mut |event| match event {
        _ if args.json => Ok(()),
        event => Ok(print_event(event)?),
    })?;
    if args.json {
        print(json(&results))?;
    } else if results.len() > 1 {
        print(format_args!("\n{}", render::seeds(&results)))?;
    }
    if let Some((code, how_to_resume)) = results.iter().find_map(|result| early_end(result.outcome, &resume_command)) {
        // Standard output holds nothing but the object with --json.
        if args.json {
            note(how_to_resume);
        } else {
            print(format_args!("\n{how_to_resume}"))?;
        }
        return Ok(ExitCode::from(code));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_event(event: FineTuneEvent<'_>) -> std::io::Result<()> {
    match event {
        FineTuneEvent::Opened { run, devices } => print(render::settings(run, devices)),
        FineTuneEvent::Starting { run, initial_state } => print(weights(initial_state, run.run.seed)),
        FineTuneEvent::AlreadyComplete { run } => {
            print(format_args!("{} (seed {}) is complete", run.run.name, run.run.seed))
        }
        FineTuneEvent::Ended { summary, best, .. } => {
            print(format_args!("\n{}", summary.to_text()))?;
            if let Some(Best { metric, value, step, .. }) = best {
                print(format_args!("best checkpoint    step {step}, {metric} {value:.4}"))?;
            }
            Ok(())
        }
    }
}

/// Returns the results for machines: those of each seed, and the mean and the deviation of every metric.
fn json(results: &[SeedResult]) -> serde_json::Value {
    let of_seed = |result: &SeedResult| {
        let metrics: serde_json::Map<_, _> =
            result.metrics.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let goodput = result.goodput.map(|goodput| goodput.scalars().into_iter().collect::<BTreeMap<_, _>>());
        let best_step = result.best.as_ref().map(|best| best.step);
        json!({ "seed": result.seed, "best_step": best_step, "metrics": metrics, "goodput": goodput })
    };
    let spread: serde_json::Map<_, _> = render::spreads(results)
        .into_iter()
        .map(|(name, spread)| {
            // The deviation of one value is not defined.
            let deviation = spread.deviation.is_finite().then_some(spread.deviation);
            (name, json!({ "mean": spread.mean, "standard_deviation": deviation }))
        })
        .collect();
    json!({ "seeds": results.iter().map(of_seed).collect::<Vec<_>>(), "metrics": spread })
}

impl Finetune {
    /// Returns the command that resumes this run.
    fn resume_command(&self) -> String {
        let mut command = self.training.resume_command("finetune");
        if !self.seeds.is_empty() {
            let seeds: Vec<String> = self.seeds.iter().map(u64::to_string).collect();
            command += &format!(" --seeds {}", seeds.join(","));
        }
        command
    }
}
