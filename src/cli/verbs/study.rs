//! `lambert study`: compares optimizers over batch sizes.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use console::style;

use crate::cli::args::device::DeviceArgs;
use crate::cli::args::shell::quoted;
use crate::files::write_atomically;
use crate::output::{note, print};
use crate::report::pages::html::write_page;
use crate::study::plan::Ended;
use crate::study::runner::{End, RunnerOptions, run as train};
use crate::study::{Plan, Results, StudyFile, Trial, TrialResult, page};
use crate::train::interrupt::{INTERRUPTED, TIME_LIMIT};
use crate::units::{counted, duration};

/// Compare optimizers over batch sizes, with equal tuning for each
///
/// A study file names a run file, numbers of training sequences, batch sizes, optimizers, and the values to try for each. Every
/// combination is a trial: an ordinary run with a directory of its own. The best trial of each optimizer and batch is trained again
/// with other seeds, and the results are those of these seeds. Trials that have ended are not trained again, so a study that was
/// interrupted or killed goes on when it is started again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert study scripts/studies/quickstart.toml --plan      # the trials, without training any
  lambert study scripts/studies/quickstart.toml --budget 2h
  lambert study STUDY.toml --parallel 8 --platform cuda    # eight trials at a time, one GPU each
  lambert study STUDY.toml --results other/study.json      # continue with another machine's trials

The directory of the study gets study.json, study.html and the trials (trials/NAME/run.toml can be
trained with `lambert pretrain`, and `lambert report DIR/trials` shows all of them).
Exit codes: 75 if the budget is over, 130 if interrupted; start the study again to continue.")]
pub struct Study {
    /// Study file; scripts/studies/ has examples with comments
    #[arg(value_name = "STUDY.toml")]
    study: PathBuf,
    /// Override a key of the study file, for example batches=[256,512]; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the trials and their number, and train none
    #[arg(long)]
    plan: bool,
    /// Save running trials and end after this time, for example 2h
    #[arg(long, value_name = "TIME")]
    budget: Option<humantime::Duration>,
    /// Trials at the same time; on several GPUs, each gets one of them
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    parallel: u32,
    /// Take over the results of trials with the same settings from a study.json of another machine; repeatable
    #[arg(long, value_name = "FILE")]
    results: Vec<PathBuf>,
    /// Print the results as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub devices: DeviceArgs,
}

pub fn run(args: Study) -> anyhow::Result<ExitCode> {
    let plan = Plan::new(StudyFile::read(&args.study, &args.set)?)?;
    for path in &args.results {
        let taken = counted(plan.take_over(path)? as u64, "trial");
        note(format_args!("took over the results of {taken} from {}", path.display()));
    }
    let mut ended = plan.ended()?;
    if args.plan {
        print(trials_to_come(&plan, &ended))?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&plan.study.directory)
        .with_context(|| format!("cannot create {}", plan.study.directory.display()))?;
    let begin = Instant::now();
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let options = RunnerOptions {
        command: &|run_file, left| training_command(&program, run_file, left, &args.devices),
        parallel: args.parallel as usize,
        deadline: args.budget.map(|budget| begin + Duration::from(budget)),
    };
    let before = plan.progress(&ended).1;
    let end = train(&plan, &options, &mut ended, &mut |trial, result, ended| {
        note(line(&plan, trial, result, ended, before, begin.elapsed()));
        write_results(&plan, ended).map(drop)
    })?;
    let results = write_results(&plan, &ended)?;
    if args.json {
        print(serde_json::to_string_pretty(&results)?)?;
    } else {
        print(results.to_text())?;
        print(format_args!("page: {}", plan.study.directory.join("study.html").display()))?;
    }
    let next = format!("to continue: lambert study {}", quoted(&args.study.display().to_string()));
    Ok(match end {
        End::Complete => ExitCode::SUCCESS,
        End::Budget => {
            note(format_args!("the budget is over; running trials are saved; {next}"));
            ExitCode::from(TIME_LIMIT)
        }
        End::Interrupted => {
            note(format_args!("interrupted; running trials are saved; {next}"));
            ExitCode::from(INTERRUPTED)
        }
    })
}

/// Returns the command that trains the run file of a trial, for at most `left`.
fn training_command(program: &Path, run_file: &Path, left: Option<Duration>, devices: &DeviceArgs) -> Command {
    let mut command = Command::new(program);
    command.arg("pretrain").arg(run_file).args(["--resume", "--end-with-input"]).args(devices.arguments());
    if let Some(left) = left {
        command.arg("--max-time").arg(format!("{}s", left.as_secs().max(1)));
    }
    command
}

/// Describes the trials of a plan.
fn trials_to_come(plan: &Plan, ended: &Ended) -> String {
    let (all, done) = plan.progress(ended);
    let mut text = String::new();
    for trial in plan.cells.iter().flat_map(|cell| &cell.tuning) {
        let state = if ended.contains_key(&trial.directory) { "ended" } else { "to come" };
        text += &format!("{state:<8} {} ({})\n", trial.to_text(), counted(trial.steps, "step"));
    }
    let seeds = plan.study.seeds.len() as u64;
    text += &format!(
        "then the best trial of each optimizer, batch and number of sequences with {}\n",
        counted(seeds, "other seed")
    );
    text + &format!("{}, of which {done} have ended", counted(all as u64, "trial"))
}

/// Describes a trial that has just ended, with the time that the others are expected to take.
fn line(plan: &Plan, trial: &Trial, result: &TrialResult, ended: &Ended, before: usize, elapsed: Duration) -> String {
    let (all, done) = plan.progress(ended);
    let value = match (result.value, result.baseline) {
        (Some(value), Some(baseline)) => format!("{} {value:.4} (baseline {baseline:.4})", plan.study.metric),
        (Some(value), None) => format!("{} {value:.4}", plan.study.metric),
        (None, _) => format!("diverged after {}", counted(result.steps, "step")),
    };
    let left = elapsed.mul_f64((all - done) as f64 / (done - before).max(1) as f64);
    format!(
        "{} {}: {value}, {}; about {} left",
        style(format_args!("trial {done}/{all}")).bold(),
        trial.to_text(),
        duration(Duration::try_from_secs_f64(result.seconds).unwrap_or_default()),
        duration(left)
    )
}

/// Writes `study.json` and `study.html`.
fn write_results(plan: &Plan, ended: &Ended) -> anyhow::Result<Results> {
    let results = Results::new(plan, ended)?;
    let directory = &plan.study.directory;
    let json = serde_json::to_vec_pretty(&results).context("cannot write JSON")?;
    write_atomically(&directory.join("study.json"), |partial| std::fs::write(partial, &json))?;
    write_page(&directory.join("study.html"), &page::page(&results)?)?;
    Ok(results)
}
