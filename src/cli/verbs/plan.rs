//! `lambert plan`: predicts memory, network traffic and time of a run on hardware that is not present.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::render::plan::{to_json, to_text};
use crate::cli::render::profile;
use crate::output::{note, print, print_text, shows_bars};
use crate::pjrt::PlatformChoice;
use crate::plan::packing::{RowsPerSequence, most_sequences_per_row};
use crate::plan::roofline::Efficiency;
use crate::plan::search::MicroBatchChoice;
use crate::plan::target::Target;
use crate::plan::{Attempt, PlanOptions, Progress, Verdict, plan};
use crate::run::Run;
use crate::units::duration;

/// Plan a run for hardware that is not present: memory, network traffic and time
///
/// Compiles the training step of each phase for all devices of the topology, with the compiler of the platform. This needs
/// the plugin (`lambert plugin install tpu` or `cuda`), but none of the devices. Memory and traffic are the compiler's
/// figures. Times are estimates: the slowest of compute, memory and network, each at the stated efficiency of its peak rate.
/// For packed rows, the number of rows is measured on the prepared data of the run file, if it exists. The exit code is 1 if
/// a phase does not compile or does not fit.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert plan scripts/runs/bert-large-64k-paper.toml --topology tpu:v3:32x32
  lambert plan scripts/runs/bert-base.toml --topology cuda:h200:1x8x8 --find-micro-batch-size
  lambert plan RUN.toml --topology tpu:v6e:16x16 --target-time 60m --json
  lambert plan RUN.toml --topology tpu:v5e:16x16 --price 1.20
  lambert plan RUN.toml --topology tpu:v5e:16x16 --set 'recompute=\"layer\"'
  lambert plan RUN.toml --topology tpu:v5e:16x16 --micro-batch-size 4 --rows-per-sequence 0.52
  lambert plan RUN.toml --topology cuda:h200:1x1x1 --phase 1 --profile
  lambert plan RUN.toml --topology tpu:v5e:4x4 --profile --json --dump hlo/
  lambert plan RUN.toml --topology tpu:v5e:4x4 --save compiled/
  lambert pretrain RUN.toml --compiled compiled/

Topologies:
  tpu:CHIP:SLICE          CHIP is v3, v4, v5e, v5p or v6e; SLICE is, for example, 16x16
  cuda:CHIP:1xHOSTSxGPUS  CHIP is a100, h100 or h200; for example cuda:h200:1x8x8
  cpu:DEVICES             for example cpu:8

Environment:
  TF_CPP_MIN_LOG_LEVEL=0  show the log messages of the plugin and of its compiler")]
pub struct Plan {
    /// Run file
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Hardware to plan for, for example tpu:v3:32x32 or cuda:h200:1x8x8
    #[arg(long, value_name = "TOPOLOGY")]
    topology: String,
    /// Path of a PJRT plugin [auto: the installed plugin of the topology's platform]
    #[arg(long, default_value = "auto", value_name = "PLUGIN")]
    platform: PlatformChoice,
    /// Plan only this phase, from 1; repeatable [default: all]
    #[arg(long, value_name = "N")]
    phase: Vec<usize>,
    /// Rows per device and micro-batch: a number, or auto for the largest power of two that is expected to fit (with packed
    /// rows: the largest at which at least one micro-batch is empty and skipped)
    #[arg(long, value_name = "ROWS", default_value = "auto", value_parser = parse_micro_batch_size)]
    micro_batch_size: MicroBatchChoice,
    /// Compile several micro-batch sizes, and use the smallest one within 1 % of the most sequences/s
    ///
    /// Sequences/s are predicted from the kernels of each compiled step at the published peak rates. Also prints a table of the
    /// compiled sizes. On a CPU, whose rates are unknown, the largest size is used.
    #[arg(long, conflicts_with = "micro_batch_size")]
    find_micro_batch_size: bool,
    /// Rows per sequence with packed rows, above 0 and up to 1 [default: measured on the prepared data, else 1]
    ///
    /// `lambert inspect DATA --sequences-per-row 8` prints this number. Without prepared data the default, 1, gives an upper
    /// bound.
    #[arg(long, value_name = "ROWS")]
    rows_per_sequence: Option<f64>,
    /// Assumed fraction of peak FLOP/s
    #[arg(long, value_name = "FRACTION", default_value_t = Efficiency::default().compute)]
    efficiency: f64,
    /// Assumed fraction of peak memory bandwidth
    #[arg(long, value_name = "FRACTION", default_value_t = Efficiency::default().memory)]
    memory_efficiency: f64,
    /// Assumed fraction of peak link and network bandwidth
    #[arg(long, value_name = "FRACTION", default_value_t = Efficiency::default().network)]
    network_efficiency: f64,
    /// Also print the number of chips that finish the run in this time, for example 90s, 60m, 1.5h or 2d
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    target_time: Option<Duration>,
    /// Price of one chip for one hour, in any currency; also print the cost of the run
    #[arg(long, value_name = "PER_CHIP_HOUR", value_parser = parse_price)]
    price: Option<f64>,
    /// Save the compiled steps in this directory, for `lambert pretrain --compiled`
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Also print the kernels of the compiled steps: number, bytes, FLOP and roofline time by kind and by scope of the model
    ///
    /// Also lists the costliest kernels, arrays that grow with the square of the sequence length, copies, and f32 products.
    /// Times are those of the published peak rates, so they are lower bounds.
    #[arg(long)]
    profile: bool,
    /// Write the optimized HLO of the compiled steps to this directory: phase-N.hlo.txt (text) and phase-N.hlo.pb (protobuf)
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Override a key of the run file, for example phase.1.steps=100; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub fn run(args: Plan) -> anyhow::Result<ExitCode> {
    let run = Run::open(&args.run, &args.set)?;
    let options = args.options(&run)?;
    let mut spinner = Spinner::default();
    let planned = plan(&run, &options, &mut |progress| spinner.show(progress))?;
    let target_time = args.target_time.map(|time| time.as_secs_f64());
    if args.json {
        print(to_json(&planned, target_time, args.price))?;
    } else {
        print_text(to_text(&planned, target_time, args.price))?;
        for phase in &planned.phases {
            if let Some(profile) = &phase.profile {
                print_text(profile::to_text(profile, &format!("phase {}", phase.shape.name)))?;
            }
        }
        if let (Some(directory), Some(_)) = (&args.save, &planned.saved) {
            let directory = directory.display();
            print(format_args!("saved the compiled steps; use them with `lambert pretrain … --compiled {directory}`"))?;
        }
    }
    if let Some(directory) = &args.dump {
        note(format_args!("wrote the optimized HLO to {}", directory.display()));
    }
    Ok(if planned.phases.iter().all(|phase| phase.fit.is_some()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Plan {
    fn options(&self, run: &Run) -> anyhow::Result<PlanOptions> {
        let count = run.schedule.phases().len();
        if let Some(phase) = self.phase.iter().find(|&&phase| !(1..=count).contains(&phase)) {
            bail!("--phase requires 1 to {count} (the phases of {}), got {phase}", self.run.display());
        }
        let shares = [
            ("--efficiency", self.efficiency),
            ("--memory-efficiency", self.memory_efficiency),
            ("--network-efficiency", self.network_efficiency),
        ];
        for (name, share) in shares {
            ensure!(share > 0.0 && share <= 1.0, "{name} requires a fraction above 0 and up to 1, got {share}");
        }
        let rows_per_sequence = match self.rows_per_sequence {
            Some(rows) => RowsPerSequence::Stated(stated_rows(rows, run)?),
            None => RowsPerSequence::survey(run)?,
        };
        let all = (0..count).filter(|phase| self.phase.is_empty() || self.phase.contains(&(phase + 1)));
        Ok(PlanOptions {
            target: self.topology.parse::<Target>()?,
            platform: self.platform.clone(),
            micro_batch_size: if self.find_micro_batch_size {
                MicroBatchChoice::Fastest
            } else {
                self.micro_batch_size
            },
            phases: all.collect(),
            rows_per_sequence,
            efficiency: Efficiency {
                compute: self.efficiency,
                memory: self.memory_efficiency,
                network: self.network_efficiency,
            },
            save: self.save.clone(),
            profile: self.profile,
            dump: self.dump.clone(),
        })
    }
}

/// Returns `rows` if the packing of `run` can reach it.
fn stated_rows(rows: f64, run: &Run) -> anyhow::Result<f64> {
    let most = run.schedule.phases().iter().map(most_sequences_per_row).max().unwrap_or(1);
    ensure!(rows > 0.0 && rows <= 1.0, "--rows-per-sequence requires a number above 0 and up to 1, got {rows}");
    ensure!(
        rows * most as f64 >= 1.0,
        "--rows-per-sequence requires at least 1/{most}, because at most {most} sequences share a row; got {rows}"
    );
    Ok(rows)
}

/// The progress of compilation on standard error: a spinner with the elapsed time on a terminal, else a line per compilation
/// and one per minute.
#[derive(Default)]
struct Spinner {
    bar: Option<ProgressBar>,
    reminder: Option<Reminder>,
}

/// Prints once per minute that a compilation is running, until it is dropped.
struct Reminder {
    _alive: Sender<()>,
}

impl Reminder {
    fn of(what: String) -> Reminder {
        let (alive, gone) = mpsc::channel::<()>();
        let begin = Instant::now();
        let remind = move || {
            while gone.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                note(format_args!("{what}: {} so far", duration(begin.elapsed())));
            }
        };
        // If the system refuses the thread, the compilation runs without reminders.
        let _ = thread::Builder::new().spawn(remind);
        Reminder { _alive: alive }
    }
}

impl Spinner {
    fn show(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Compiling { phase, micro_batch_size } => {
                let message = format!("compiling phase {phase}, micro-batch size {micro_batch_size}");
                if !shows_bars() {
                    note(&message);
                    self.reminder = Some(Reminder::of(message));
                    return;
                }
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                // The template is constant; the fallback is never used.
                let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_message(message);
                bar.enable_steady_tick(Duration::from_millis(120));
                self.bar = Some(bar);
            }
            Progress::Compiled(Attempt { micro_batch_size, took, verdict, .. }) => {
                self.reminder = None;
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                let result = match verdict {
                    Verdict::Fits => "fits".to_owned(),
                    Verdict::TooLarge(reason) => format!("does not fit: {reason}"),
                    Verdict::Failed(reason) => format!("does not compile: {reason}"),
                };
                note(format_args!("micro-batch size {micro_batch_size}: {result} ({})", duration(*took)));
            }
        }
    }
}

fn parse_micro_batch_size(text: &str) -> Result<MicroBatchChoice, String> {
    match text.parse() {
        _ if text == "auto" => Ok(MicroBatchChoice::Auto),
        Ok(rows) if rows > 0 => Ok(MicroBatchChoice::Size(rows)),
        _ => Err(format!("requires auto or a whole number from 1, got {text:?}")),
    }
}

fn parse_price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| price.is_finite() && *price >= 0.0);
    price.ok_or_else(|| format!("requires a number from 0, for example 1.20; got {text:?}"))
}

/// Parses `90s`, `60m`, `1.5h`, `2d`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let seconds_of = |unit| match unit {
        's' => Some(1.0),
        'm' => Some(60.0),
        'h' => Some(3600.0),
        'd' => Some(86_400.0),
        _ => None,
    };
    let unit = text.chars().last().and_then(seconds_of);
    let number = text.get(..text.len().saturating_sub(1)).and_then(|number| number.parse::<f64>().ok());
    unit.zip(number)
        .map(|(unit, number)| unit * number)
        .filter(|&seconds| seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("requires a positive time with a unit, for example 90s, 60m, 1.5h or 2d; got {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_require_a_unit() {
        assert_eq!(parse_time("60m"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_time("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_time("2d"), Ok(Duration::from_secs(172_800)));
        for wrong in ["60", "m", "", "-1s", "0h", "1 y", "infs", "é"] {
            assert!(parse_time(wrong).unwrap_err().contains("for example 90s, 60m"), "{wrong}");
        }
    }

    #[test]
    fn price_is_a_number_from_zero() {
        assert_eq!(parse_price("1.20"), Ok(1.2));
        for wrong in ["-1", "inf", "NaN", "$2"] {
            assert!(parse_price(wrong).unwrap_err().contains("for example 1.20"), "{wrong}");
        }
    }

    #[test]
    fn micro_batch_size_is_auto_or_a_number() {
        assert_eq!(parse_micro_batch_size("auto"), Ok(MicroBatchChoice::Auto));
        assert_eq!(parse_micro_batch_size("32"), Ok(MicroBatchChoice::Size(32)));
        assert!(parse_micro_batch_size("0").unwrap_err().contains("whole number from 1"));
        assert!(parse_micro_batch_size("most").unwrap_err().contains("got \"most\""));
    }
}
