//! A complete fine-tuning run on one host, for one or several seeds: data, devices, initial state, then the trainer.
//! [`fine_tune`] is what `lambert finetune` calls.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{evaluation_spec, fine_tuning_job};
use crate::checkpoint::{Best, RunLock};
use crate::output::note;
use crate::pjrt::PlatformChoice;
use crate::report::goodput::{EVALUATION, Goodput};
use crate::report::metrics;
use crate::report::summary::Summary;
use crate::run::buckets::fetch_run;
use crate::run::fine_tuning::{FineTuning, FineTuningRun};
use crate::run::initial_state::{InitialState, ResumeOptions, refuse_existing_run};
use crate::run::preflight::{self, CheckpointSeries};
use crate::runtime::devices::Devices;
use crate::runtime::hosts::Hosts;
use crate::runtime::processor::faster_precision;
use crate::train::evaluator::EvaluationSpec;
use crate::train::interrupt::Interrupt;
use crate::train::memory::HostMemory;
use crate::train::programs::Programs;
use crate::train::trainer::{Outcome, Trainer};

/// The settings of a run that are not in its run file, because they do not change the weights.
#[derive(Clone, Debug)]
pub struct FineTuneOptions {
    /// The plugin to use.
    pub platform: PlatformChoice,
    /// Devices; all of them if none is given, and one on the CPU.
    pub devices: Option<usize>,
    /// The directory of the compilation cache; without it every program is compiled anew.
    pub cache: Option<PathBuf>,
    /// Whether the run may resume.
    pub resume: ResumeOptions,
    /// The time after which the run saves and ends.
    pub max_time: Option<Duration>,
    /// Whether the run starts even if less memory is free than it requires.
    pub ignore_memory: bool,
    /// The seeds to train one after the other, each in the directory `seed-N` of the run directory; with none, the seed of the
    /// run file is trained in the run directory itself.
    pub seeds: Vec<u64>,
    /// The command that resumes the run, for messages.
    pub resume_command: String,
}

/// A stage that a run has reached.
pub enum FineTuneEvent<'a> {
    /// Model and data are read.
    Opened {
        /// The run.
        run: &'a FineTuning,
        /// The devices.
        devices: &'a Devices,
    },
    /// Every check has passed; the programs are compiled next, unless another seed has compiled them.
    Starting {
        /// The run.
        run: &'a FineTuning,
        /// The state before the first step.
        initial_state: &'a InitialState,
    },
    /// An earlier process has trained the run to its end.
    AlreadyComplete {
        /// The run.
        run: &'a FineTuning,
    },
    /// Training has ended, and everything is saved.
    Ended {
        /// The reason for the end.
        outcome: Outcome,
        /// The summary of the run.
        summary: &'a Summary,
        /// The best evaluation.
        best: Option<&'a Best>,
    },
}

/// The result of one seed.
#[derive(Clone, Debug)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// The reason for the end.
    pub outcome: Outcome,
    /// The best evaluation; none if the run was interrupted before the first one.
    pub best: Option<Best>,
    /// The names and values of all metrics of that evaluation, as `metrics.jsonl` has them.
    pub metrics: Vec<(String, f64)>,
    /// The use of the time of all starts; none if the log is lost.
    pub goodput: Option<Goodput>,
}

/// Fine-tunes `run` with each seed, to the end or to an interruption (Ctrl-C, SIGTERM), and saves it in its run directory.
/// `on_event` is called at each stage. Seeds share the compiled programs.
///
/// # Errors
/// If the model, the data, a run directory or the devices cannot be used, a run directory holds a run but `resume` is not set,
/// a program cannot be compiled, or training fails; those of `on_event`. Checkpoints that were saved before remain.
pub fn fine_tune(
    run: FineTuningRun,
    options: &FineTuneOptions,
    on_event: &mut dyn FnMut(FineTuneEvent<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<SeedResult>> {
    let deadline = options.max_time.map(|time| Instant::now() + time);
    let seeds = &options.seeds;
    if let Some(seed) = (1..seeds.len()).find(|&i| seeds[..i].contains(&seeds[i])).map(|i| seeds[i]) {
        bail!("seeds: requires each seed once, got {seed} twice; remove one");
    }
    let opened = FineTuning::open(run)?;
    opened.note().iter().for_each(note);
    let devices = Devices::open(&options.platform, options.devices)?.with_cache(options.cache.as_deref());
    devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
    faster_precision(&devices, opened.run.precision).iter().for_each(note);
    opened.step_spec(devices.len())?;
    let runs = match options.seeds.as_slice() {
        [] => vec![opened],
        seeds => seeds.iter().map(|&seed| opened.with_seed(seed)).collect(),
    };
    // All directories are checked before the first seed is trained; the locks are held to the end.
    let claimed = |run| Ok(Arc::new(claim(run, options.resume)?));
    let locks: Vec<Arc<RunLock>> = runs.iter().map(claimed).collect::<anyhow::Result<_>>()?;
    on_event(FineTuneEvent::Opened { run: &runs[0], devices: &devices })?;
    let evaluation = evaluation_spec(&runs[0])?;
    let mut shared = Shared { devices, evaluation, programs: None };
    let mut results = Vec::new();
    for (index, (run, lock)) in runs.iter().zip(&locks).enumerate() {
        let result = fine_tune_one(run, lock, &runs[index + 1..], options, deadline, &mut shared, on_event)?;
        let incomplete = result.outcome.is_incomplete();
        results.push(result);
        if incomplete {
            break;
        }
    }
    Ok(results)
}

/// Fetches the checkpoints of `run` from its bucket and locks its directory. The lock is taken before the newest checkpoint is
/// opened, which another run could replace.
fn claim(run: &FineTuning, options: ResumeOptions) -> anyhow::Result<RunLock> {
    let settings = &run.run.checkpoint;
    fetch_run(settings, options.resume, true).context("[checkpoint] directory")?;
    let lock = RunLock::take(settings.directory.local()).context("[checkpoint] directory")?;
    if !options.resume {
        refuse_existing_run(settings.directory.local())?;
    }
    Ok(lock)
}

/// The devices, the evaluation and the programs that all seeds of a run share.
struct Shared {
    devices: Devices,
    evaluation: EvaluationSpec,
    programs: Option<Programs>,
}

/// Fine-tunes `run`, whose directory is locked by `lock`. The disk must have space for the runs `later`, too.
fn fine_tune_one(
    run: &FineTuning,
    lock: &Arc<RunLock>,
    later: &[FineTuning],
    options: &FineTuneOptions,
    deadline: Option<Instant>,
    shared: &mut Shared,
    on_event: &mut dyn FnMut(FineTuneEvent<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<SeedResult> {
    let begin = Instant::now();
    let (initial_state, notes) = InitialState::find(run, options.resume)?;
    notes.iter().for_each(note);
    let job = fine_tuning_job(run, shared.evaluation.clone(), shared.devices.len())?;
    let best = initial_state.best();
    let stopped_early = job.selection.as_ref().is_some_and(|selection| selection.stopped(best.clone()).is_some());
    if initial_state.step() >= run.schedule.steps() || stopped_early {
        on_event(FineTuneEvent::AlreadyComplete { run })?;
        let outcome = if stopped_early { Outcome::StoppedEarly } else { Outcome::Finished };
        return result(run, outcome, best);
    }
    let reserved = later.iter().map(|run| checkpoints(run).bytes_to_come()).sum();
    preflight::check_directory(&checkpoints(run), reserved)?;
    let interrupt = Interrupt::install(deadline)?;

    on_event(FineTuneEvent::Starting { run, initial_state: &initial_state })?;
    let programs = match &shared.programs {
        Some(programs) => programs.reused(),
        None => {
            let programs = Programs::new(&job, &shared.devices, None)?;
            let memory = HostMemory::of(programs.peak_bytes(), &shared.devices, checkpoints(run).bytes);
            memory.check_unless(options.ignore_memory)?;
            programs
        }
    };
    shared.programs = Some(programs.clone());
    let hosts = Hosts::new(&shared.devices, None)?;
    let mut trainer =
        Trainer::new(job, programs, shared.devices.clone(), hosts, initial_state, Some(lock.clone()), begin)?;
    let outcome =
        trainer.train(interrupt).with_context(|| format!("training stopped; to resume: {}", options.resume_command))?;
    on_event(FineTuneEvent::Ended { outcome, summary: trainer.summary(), best: trainer.best() })?;
    result(run, outcome, trainer.best().cloned())
}

/// Returns the checkpoints that `run` writes.
fn checkpoints(run: &FineTuning) -> CheckpointSeries<'_> {
    CheckpointSeries {
        settings: &run.run.checkpoint,
        steps: run.schedule.steps(),
        best_of_every: Some(run.evaluate_every()),
        bytes: preflight::checkpoint_bytes(&run.task.parameters(), run.run.optimizer.state_names().len()),
    }
}

/// Returns the result with the use of the time and the metrics of the best evaluation that the log has; without its line, the
/// checkpoint still has the selected metric.
fn result(run: &FineTuning, outcome: Outcome, best: Option<Best>) -> anyhow::Result<SeedResult> {
    let directory = run.run.checkpoint.directory.local();
    let metrics = match &best {
        Some(Best { metric, value, step, .. }) => {
            let recorded = metrics::recorded(directory, EVALUATION, *step)?;
            recorded.unwrap_or_else(|| vec![(metric.clone(), *value)])
        }
        None => Vec::new(),
    };
    Ok(SeedResult { seed: run.run.seed, outcome, best, metrics, goodput: Goodput::read(directory)? })
}
