//! A complete pretraining run: data, hosts, devices, initial state, then the trainer. [`pretrain`] is what `lambert pretrain`
//! calls.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::interrupt::Interrupt;
use super::memory::HostMemory;
use super::pretraining::{pretraining_job, selection};
use super::programs::Programs;
use super::trainer::{Outcome, Trainer};
use crate::bert::param_specs;
use crate::checkpoint::{Best, RunLock};
use crate::data::PreparedData;
use crate::output::byte_progress::ByteProgress;
use crate::output::note;
use crate::pjrt::PlatformChoice;
use crate::plan::saved::SavedSteps;
use crate::rendezvous::agreement::shared_value;
use crate::rendezvous::heartbeat::{HeartbeatConfig, PeerMonitor};
use crate::rendezvous::session::Session;
use crate::rendezvous::{RendezvousConfig, rendezvous};
use crate::report::summary::Summary;
use crate::run::Run;
use crate::run::buckets::{check_copy, fetch_data, fetch_run};
use crate::run::initial_state::{InitialState, ResumeOptions, RunOnData};
use crate::run::preflight::{self, CheckpointSeries};
use crate::run::shared_values::shared_values;
use crate::runtime::devices::{Devices, check_runs_kernels};
use crate::runtime::hosts::Hosts;
use crate::runtime::processor::faster_precision;
use crate::verify::kernels::{check_kernel, require_all};

/// The settings of a run that are not in its run file, because they do not change the weights.
#[derive(Clone, Debug)]
pub struct PretrainOptions {
    /// The plugin to use.
    pub platform: PlatformChoice,
    /// Devices of this host; all of them if none is given, and one on the CPU.
    pub devices: Option<usize>,
    /// The directory of the compilation cache; without it every program is compiled anew.
    pub cache: Option<PathBuf>,
    /// Whether the run may resume.
    pub resume: ResumeOptions,
    /// The time after which the run saves and ends.
    pub max_time: Option<Duration>,
    /// Whether the run starts even if less memory is free than it requires.
    pub ignore_memory: bool,
    /// The directory of compiled steps, as `lambert plan` saves them; without it the steps are compiled.
    pub compiled: Option<PathBuf>,
    /// Set on each of several hosts, unless the platform connects them itself (a TPU slice).
    pub rendezvous: Option<RendezvousConfig>,
    /// The command that resumes the run, for messages.
    pub resume_command: String,
}

impl Default for PretrainOptions {
    fn default() -> Self {
        PretrainOptions {
            platform: PlatformChoice::Auto,
            devices: None,
            cache: None,
            resume: ResumeOptions::default(),
            max_time: None,
            ignore_memory: false,
            compiled: None,
            rendezvous: None,
            resume_command: "start the run again and let it resume".to_owned(),
        }
    }
}

/// A stage that a run has reached.
pub enum PretrainEvent<'a> {
    /// An earlier run completed all steps or stopped early, so no step is trained.
    AlreadyComplete {
        /// The run.
        run: &'a Run,
        /// The best evaluation, if the run stopped early.
        stopped: Option<&'a Best>,
        /// The hosts.
        hosts: &'a Hosts,
    },
    /// Every check has passed, and compilation starts.
    Starting {
        /// The run.
        run: &'a Run,
        /// The devices.
        devices: &'a Devices,
        /// The hosts.
        hosts: &'a Hosts,
        /// The state before the first step.
        initial_state: &'a InitialState,
    },
    /// The programs are compiled (or loaded), and training starts.
    Ready {
        /// The trainer.
        trainer: &'a Trainer,
        /// The memory of this host that the run requires.
        memory: &'a HostMemory,
    },
    /// Training has ended, and everything is saved.
    Ended {
        /// The run.
        run: &'a Run,
        /// The reason for the end.
        outcome: Outcome,
        /// The summary of the run.
        summary: &'a Summary,
        /// The hosts.
        hosts: &'a Hosts,
    },
}

/// Trains `run` to its end or to an interruption (Ctrl-C, SIGTERM), and saves it in its run directory.
///
/// # Errors
/// If the data, the run directory or the devices cannot be used, the run directory holds a run but `resume` is not set, a
/// program cannot be compiled, or training fails. Checkpoints that were saved before remain.
pub fn pretrain(run: &Run, options: &PretrainOptions) -> anyhow::Result<Outcome> {
    pretrain_with_events(run, options, &mut |_| Ok(()))
}

/// Trains `run` as [`pretrain`] does, and calls `on_event` at each stage.
///
/// # Errors
/// As [`pretrain`], and those of `on_event`.
pub fn pretrain_with_events(
    run: &Run,
    options: &PretrainOptions,
    on_event: &mut dyn FnMut(PretrainEvent<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now();
    let saved = options.compiled.as_deref().map(SavedSteps::open).transpose()?;
    fetch_data(&run.data.path).context("[data] path")?;
    let (prepared, unused_rows) = preflight::open_data(run)?;
    unused_rows.iter().for_each(note);
    let checking = ByteProgress::new("checking", prepared.manifest().shards.iter().map(|shard| shard.bytes).sum());
    let checked = prepared.verify(&|read| checking.add(read));
    checking.finish();
    check_copy(&run.data.path, checked)?;
    let session = options.rendezvous.clone().map(join).transpose()?;
    let ended = train(run, options, begin, prepared, saved.as_ref(), session.clone(), on_event);
    if let (Err(error), Some(session)) = (&ended, &session) {
        session.abort(&format!("{error:#}"));
    }
    ended
}

/// Waits for the other hosts.
fn join(config: RendezvousConfig) -> anyhow::Result<Arc<Session>> {
    note(format_args!("host {} of {}: waiting for the others at {}", config.host, config.hosts, config.store));
    let session = rendezvous(config)?;
    note(format_args!("all {} hosts joined", session.hosts()));
    Ok(Arc::new(session))
}

/// Starts to monitor the other hosts, and ends this process if one is lost. The devices wait for the lost one, so the step
/// that runs never ends and cannot be saved.
fn monitor_peers(session: Arc<Session>, resume_command: &str) -> anyhow::Result<PeerMonitor> {
    let next = format!("to resume, start all hosts again: {resume_command}");
    PeerMonitor::start(session, HeartbeatConfig::default(), move |reason| {
        note(format_args!("error: {reason}; {next}"));
        std::process::exit(1);
    })
}

fn train(
    run: &Run,
    options: &PretrainOptions,
    begin: Instant,
    prepared: Arc<PreparedData>,
    saved: Option<&SavedSteps>,
    session: Option<Arc<Session>>,
    on_event: &mut dyn FnMut(PretrainEvent<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    // With a session, hosts that differ are detected before the client is created.
    if let Some(session) = &session {
        session.check_equal("run", &shared_values(run, &prepared)?)?;
    }
    let monitor = session.clone().map(|session| monitor_peers(session, &options.resume_command)).transpose()?;
    let devices = Devices::open_among(&options.platform, options.devices, session.as_deref())?;
    let devices = devices.with_cache(options.cache.as_deref());
    devices.passed_over.iter().for_each(|reason| note(format_args!("not used: {reason}")));
    preflight::check_batches(run, devices.len())?;
    saved.map_or(Ok(()), |saved| saved.check_devices(&devices))?;
    let hosts = Hosts::new(&devices, session.clone())?;
    let run = &*on_devices(run, &devices)?;
    if hosts.is_leader() {
        faster_precision(&devices, run.precision).iter().for_each(note);
    }
    if session.is_none() && hosts.len() > 1 {
        hosts.check_equal("run", &shared_values(run, &prepared)?)?;
    }
    // The leader first: it uploads checkpoints that an earlier run could not upload, and the others download them.
    let fetch =
        || fetch_run(&run.checkpoint, options.resume.resume, hosts.is_leader()).context("[checkpoint] directory");
    hosts.all_ok(if hosts.is_leader() { fetch() } else { Ok(()) })?;
    hosts.all_ok(if hosts.is_leader() { Ok(()) } else { fetch() })?;
    // The trainer holds the lock to the end. It is taken before the newest checkpoint is opened, which another run could replace.
    let (lock, initial_state, notes) = hosts.all_ok(find_initial_state(run, options, &prepared, hosts.is_leader()))?;
    hosts.check_equal("start", &shared_value("the step of the newest checkpoint", initial_state.step()))?;
    if hosts.is_leader() {
        notes.iter().for_each(note);
    }
    let is_complete = initial_state.step() >= run.schedule.steps();
    let stopped =
        selection(run)?.filter(|_| !is_complete).and_then(|selection| selection.stopped(initial_state.best()));
    if is_complete || stopped.is_some() {
        on_event(PretrainEvent::AlreadyComplete { run, stopped: stopped.as_ref(), hosts: &hosts })?;
        hosts.shutdown().iter().for_each(note);
        return Ok(if is_complete { Outcome::Finished } else { Outcome::StoppedEarly });
    }
    let series = CheckpointSeries {
        settings: &run.checkpoint,
        steps: run.schedule.steps(),
        best_of_every: run.evaluate.metric.as_ref().map(|_| evaluation_interval(run)),
        bytes: preflight::checkpoint_bytes(&param_specs(&run.model), run.state_kinds()),
    };
    let check = || preflight::check_directory(&series, 0);
    hosts.all_ok(if hosts.is_leader() { check() } else { Ok(()) })?;
    let interrupt = Interrupt::install(options.max_time.map(|time| begin + time))?;

    on_event(PretrainEvent::Starting { run, devices: &devices, hosts: &hosts, initial_state: &initial_state })?;
    let mut job = pretraining_job(run, &prepared, devices.len())?;
    job.files.extend(initial_state.sentence_transformers_files());
    let programs = Programs::new(&job, &devices, saved)?;
    let memory = HostMemory::of(programs.peak_bytes(), &devices, series.bytes);
    hosts.all_ok(memory.check_unless(options.ignore_memory))?;
    let mut trainer = Trainer::new(job, programs, devices, hosts, initial_state, lock, begin)?;
    on_event(PretrainEvent::Ready { trainer: &trainer, memory: &memory })?;
    let outcome = trainer.train(interrupt);
    // The devices need the other hosts no longer.
    drop(monitor);
    let outcome = outcome.with_context(|| format!("training stopped; to resume: {}", options.resume_command))?;
    on_event(PretrainEvent::Ended { run, outcome, summary: trainer.summary(), hosts: trainer.hosts() })?;
    trainer.hosts().shutdown().iter().for_each(note);
    Ok(outcome)
}

/// Chooses the form of the programs of `run` for the platform, and compares the kernels that it names with the composed forms on the
/// device. On one host, the run goes on without those that differ.
///
/// # Errors
/// If the platform does not run kernels, or they differ and there are several hosts, which would go on in different forms.
fn on_devices<'r>(run: &'r Run, devices: &Devices) -> anyhow::Result<Cow<'r, Run>> {
    let lengths: Vec<usize> = run.schedule.phases().iter().map(|phase| phase.sequence_length).collect();
    let platform = devices.client.platform_name();
    let mut kernels = run.kernels.on(platform);
    for kernel in run.kernels.fused() {
        check_runs_kernels(platform).with_context(|| format!("[kernels] {kernel} = \"triton\""))?;
        let checked = check_kernel(devices, kernel, &run.model, &lengths).and_then(|checks| require_all(&checks));
        let Err(error) = checked else { continue };
        if devices.first_replicas().len() > 1 {
            let next = format!("[kernels] {kernel} = \"triton\" cannot be used; set it to \"composed\"");
            return Err(error.context(next));
        }
        note(format_args!("[kernels] {kernel} = \"triton\" is not used, but its composed form: {error:#}"));
        kernels = kernels.composing(kernel);
    }
    Ok(if kernels == run.kernels { Cow::Borrowed(run) } else { Cow::Owned(Run { kernels, ..run.clone() }) })
}

/// Returns the shortest distance between evaluations that are not at the end of a phase.
fn evaluation_interval(run: &Run) -> u64 {
    match run.evaluate.every {
        0 => run.schedule.steps(),
        every => every,
    }
}

/// Finds the initial state, with messages for the user; the leader first locks the run directory.
fn find_initial_state(
    run: &Run,
    options: &PretrainOptions,
    prepared: &PreparedData,
    is_leader: bool,
) -> anyhow::Result<(Option<Arc<RunLock>>, InitialState, Vec<String>)> {
    let directory = run.checkpoint.directory.local();
    let lock = is_leader.then(|| RunLock::take(directory)).transpose().context("[checkpoint] directory")?.map(Arc::new);
    let (initial_state, notes) = InitialState::find(&RunOnData { run, prepared }, options.resume)?;
    Ok((lock, initial_state, notes))
}
