//! `lambert pretrain`: a run file becomes weights.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use comfy_table::{Table, presets};

use crate::bert::param_specs;
use crate::checkpoint::RunLock;
use crate::cli::args::device::DeviceArgs;
use crate::cli::args::host::HostArgs;
use crate::data::{ExampleMode, Masking, PreparedData};
use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print};
use crate::plan::saved::SavedSteps;
use crate::rendezvous::agreement::shared_value;
use crate::rendezvous::heartbeat::{HeartbeatConfig, PeerMonitor};
use crate::rendezvous::session::Session;
use crate::rendezvous::{RendezvousConfig, rendezvous};
use crate::run::Run;
use crate::run::buckets::{check_copy, fetch_data, fetch_run};
use crate::run::initial_state::{InitialState, ResumeOptions, data_fingerprint};
use crate::run::preflight;
use crate::run::shared_values::shared_values;
use crate::runtime::compile::CompileTimes;
use crate::runtime::devices::Devices;
use crate::runtime::hosts::Hosts;
use crate::train::interrupt::{INTERRUPTED, Interrupt};
use crate::train::pretraining::pretraining_job;
use crate::train::trainer::{Coverage, Outcome, Trainer};
use crate::units::{duration, thousands};

/// Train a BERT as a run file says.
///
/// Everything that can be wrong is checked first; then both phases are compiled, and the run starts. Ctrl-C (or SIGTERM)
/// finishes the step, saves, prints the command that goes on, and exits with 130. A resumed run takes the same steps, bit
/// for bit, as if it had never stopped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lambert pretrain scripts/runs/quickstart.toml
  lambert pretrain scripts/runs/quickstart.toml --resume
  lambert pretrain scripts/runs/bert-base.toml --platform cuda --set phase.1.micro_batch_size=256
  srun lambert pretrain scripts/runs/bert-large-64k-paper.toml --platform cuda
  lambert pretrain RUN.toml --hosts 4 --host 2 --coordinator etcd://10.0.0.2:2379/my-run

On several hosts every process gets the same run file, data and program, which is checked,
and a run directory that all of them see; host 0 writes into it. Ctrl-C on any one stops them all.

A run directory gets step-… (checkpoints), metrics.jsonl (one JSON object a step) and the files
of TensorBoard.")]
pub struct Pretrain {
    /// The run file; scripts/runs/ has examples that explain themselves
    #[arg(value_name = "RUN.toml")]
    run: PathBuf,
    /// Go on from the newest checkpoint in the run directory; start at the beginning if there is none
    #[arg(long)]
    resume: bool,
    /// With --resume: go on although settings that decide the steps have changed
    #[arg(long, requires = "resume")]
    accept_changes: bool,
    /// Change a key of the run file for this run; phases count from 1
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Load the steps that `lambert plan --save` compiled into this directory, instead of compiling them
    #[arg(long, value_name = "DIR")]
    compiled: Option<PathBuf>,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    hosts: HostArgs,
}

pub fn run(args: Pretrain) -> anyhow::Result<ExitCode> {
    let run = Run::open(&args.run, &args.set)?;
    let saved = args.compiled.as_deref().map(SavedSteps::open).transpose()?;
    fetch_data(&run.data.path).context("[data] path")?;
    let prepared = preflight::open_data(&run)?;
    let bytes = prepared.manifest().shards.iter().map(|shard| shard.bytes).sum();
    let checked = ByteProgress::during("checking", bytes, |progress| prepared.verify(progress));
    check_copy(&run.data.path, checked)?;
    let session = args.hosts.rendezvous_config(&run.checkpoint.directory)?.map(join).transpose()?;
    let ended = train(&args, run, prepared, saved.as_ref(), session.clone());
    if let (Err(error), Some(session)) = (&ended, &session) {
        session.abort(&format!("{error:#}"));
    }
    ended
}

/// Waits for the other hosts.
fn join(config: RendezvousConfig) -> anyhow::Result<Arc<Session>> {
    note(format_args!("host {} of {}: waiting for the others at {}", config.host, config.hosts, config.store));
    let session = rendezvous(config)?;
    note(format_args!("all {} hosts are here", session.hosts()));
    Ok(Arc::new(session))
}

/// Ends this process if another host is lost: what the devices wait for will never come, and to save they would have to
/// finish their step.
fn monitor_peers(session: Arc<Session>, resume_command: &str) -> anyhow::Result<PeerMonitor> {
    let to_go_on = format!("start all hosts again to go on: {resume_command}");
    PeerMonitor::start(session, HeartbeatConfig::default(), move |why| {
        note(format_args!("error: {why}; {to_go_on}"));
        std::process::exit(1);
    })
}

fn train(
    args: &Pretrain,
    run: Run,
    prepared: Arc<PreparedData>,
    saved: Option<&SavedSteps>,
    session: Option<Arc<Session>>,
) -> anyhow::Result<ExitCode> {
    let resume_command = args.resume_command();
    // Before there is a client, if they have met before: whoever differs is told at once.
    if let Some(session) = &session {
        session.check_equal("run", &shared_values(&run, &prepared)?)?;
    }
    let monitor = session.clone().map(|session| monitor_peers(session, &resume_command)).transpose()?;
    let devices = args.devices.open_among(session.as_deref())?;
    preflight::check_batches(&run, devices.len())?;
    saved.map_or(Ok(()), |saved| saved.check_devices(&devices))?;
    let hosts = Hosts::new(&devices, session.clone())?;
    if session.is_none() && hosts.len() > 1 {
        hosts.check_equal("run", &shared_values(&run, &prepared)?)?;
    }
    // The leading host first: it sends what an earlier run could not, and the others fetch that.
    let bring = || fetch_run(&run.checkpoint, args.resume, hosts.is_leader()).context("[checkpoint] directory");
    hosts.all_ok(if hosts.is_leader() { bring() } else { Ok(()) })?;
    hosts.all_ok(if hosts.is_leader() { Ok(()) } else { bring() })?;
    // The lock is held to the end. It is taken before the newest checkpoint is looked for, which another run may be about
    // to replace.
    let (_lock, start, notes) = hosts.all_ok(find_start(args, &run, &prepared, hosts.is_leader()))?;
    hosts.check_equal("start", &shared_value("the step that its checkpoints end at", start.step()))?;
    if hosts.is_leader() {
        notes.iter().for_each(note);
    }
    if start.step() >= run.schedule.steps() {
        if hosts.is_leader() {
            print(format_args!("{} is complete: {} steps are done", run.name, thousands(start.step())))?;
        }
        hosts.shutdown().iter().for_each(note);
        return Ok(ExitCode::SUCCESS);
    }
    hosts.all_ok(if hosts.is_leader() { preflight::check_directory(&run) } else { Ok(()) })?;
    let interrupt = Interrupt::listen()?;

    if hosts.is_leader() {
        print_in_force(&run, &devices, &start)?;
    } else {
        print(format_args!("{} on {}: {}", run.name, devices.describe(), hosts.describe()))?;
    }
    let job = pretraining_job(&run, &prepared, devices.len())?;
    let mut trainer = Trainer::new(job, devices, hosts, start, saved)?;
    for (phase, step) in trainer.steps().iter().enumerate() {
        let how = if saved.is_some() { "loaded" } else { "compiled" };
        print(format_args!("phase {} {how}: {}", phase + 1, describe_times(&step.times)))?;
    }
    for (phase, coverage) in trainer.coverage().into_iter().enumerate() {
        print(format_args!("phase {} data: {}", phase + 1, describe_coverage(&coverage)))?;
    }
    let outcome = trainer.train(interrupt);
    // The devices are done with each other.
    drop(monitor);
    let outcome = outcome.with_context(|| format!("to go on later: {resume_command}"))?;
    if trainer.hosts().is_leader() {
        print(format_args!("\n{}", trainer.summary().to_text()))?;
    }
    let code = match outcome {
        Outcome::Finished => ExitCode::SUCCESS,
        Outcome::Interrupted => {
            print(format_args!("\ninterrupted; everything is saved. To go on:\n  {resume_command}"))?;
            ExitCode::from(INTERRUPTED)
        }
    };
    trainer.hosts().shutdown().iter().for_each(note);
    Ok(code)
}

/// Where the run begins, with what a user should read; on the host that saves, also the run directory, locked.
fn find_start(
    args: &Pretrain,
    run: &Run,
    prepared: &PreparedData,
    leads: bool,
) -> anyhow::Result<(Option<RunLock>, InitialState, Vec<String>)> {
    let directory = run.checkpoint.directory.local();
    let lock = leads.then(|| RunLock::take(directory)).transpose().context("[checkpoint] directory")?;
    let options = ResumeOptions { resume: args.resume, accept_changes: args.accept_changes };
    let (start, notes) = InitialState::find(run, &data_fingerprint(prepared.manifest()), options)?;
    Ok((lock, start, notes))
}

impl Pretrain {
    /// The command that goes on where this one stops.
    fn resume_command(&self) -> String {
        let mut command = format!("lambert pretrain {} --resume", quoted(&self.run.display().to_string()));
        self.set.iter().for_each(|set| command += &format!(" --set {}", quoted(set)));
        if self.devices.platform.to_string() != "auto" {
            command += &format!(" --platform {}", quoted(&self.devices.platform.to_string()));
        }
        if let Some(devices) = self.devices.devices {
            command += &format!(" --devices {devices}");
        }
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

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+:,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

pub(super) fn describe_times(times: &CompileTimes) -> String {
    format!("graph {}, HLO {}, compiler {}", duration(times.build), duration(times.lower), duration(times.compile))
}

/// How often the phase's examples come, and where they share rows, how many rows one takes: `4,096 sequences, 1,000 an epoch:
/// 4.10 epochs, each example 4 or 5 times; up to 8 share a row, 0.513 rows a sequence`.
fn describe_coverage(coverage: &Coverage) -> String {
    let (sequences, an_epoch) = (thousands(coverage.sequences), thousands(coverage.an_epoch));
    let often = match coverage.epochs {
        epochs if epochs < 1.0 => "each example once at most".to_owned(),
        epochs if epochs.fract() == 0.0 => format!("each example {epochs} times"),
        epochs => format!("each example {} or {} times", epochs.floor(), epochs.ceil()),
    };
    let rows = match coverage.sequences_per_row {
        1 => String::new(),
        most => format!("; up to {most} share a row, {:.3} rows a sequence", coverage.rows_per_sequence),
    };
    format!("{sequences} sequences, {an_epoch} an epoch: {:.2} epochs, {often}{rows}", coverage.epochs)
}

/// Prints what the run is, with every setting that is in force.
fn print_in_force(run: &Run, devices: &Devices, start: &InitialState) -> std::io::Result<()> {
    let model = &run.model;
    print(format_args!("{} on {}", run.name, devices.describe()))?;
    print(format_args!(
        "model      {} layers, {} wide, {} heads, {} entries of vocabulary, dropout {} and {}; {:?}",
        model.num_hidden_layers,
        model.hidden_size,
        model.num_attention_heads,
        thousands(model.vocab_size as u64),
        model.hidden_dropout_prob,
        model.attention_probs_dropout_prob,
        run.precision,
    ))?;
    print(format_args!(
        "data       {}, {}, {:.0} % of the tokens masked{}, {}",
        run.data.path,
        match run.data.mode {
            ExampleMode::NextSentence => "next sentence pairs",
            ExampleMode::SentenceOrder => "sentence order pairs",
            ExampleMode::FullSentences => "full sentences across documents",
            ExampleMode::DocSentences => "full sentences of one document",
        },
        100.0 * run.data.masked_lm_prob,
        match (run.data.span_mask, run.data.whole_word_mask) {
            (Some(spans), _) => format!(" in spans of up to {} words", spans.span_upper),
            (None, true) => " by whole words".to_owned(),
            (None, false) => String::new(),
        },
        match run.data.masking {
            Masking::Dynamic => "anew in every epoch".to_owned(),
            Masking::Static { duplicates } => format!("in {duplicates} ways that are repeated"),
        },
    ))?;
    if let Some(chosen) = run.parallel.describe(&param_specs(&run.model), &run.optimizer, devices.len()) {
        print(format_args!("devices    {chosen}"))?;
    }
    match start {
        InitialState::Random => print(format_args!("start      first values drawn with seed {}", run.seed))?,
        InitialState::Imported(found) => print(format_args!("start      weights of {}", found.path.display()))?,
        InitialState::Resumed { checkpoint, path } => {
            print(format_args!("start      step {} of {}", thousands(checkpoint.state.step), path.display()))?;
        }
    }
    let mut knobs = Table::new();
    knobs.load_style(presets::NOTHING);
    run.optimizer.describe().into_iter().for_each(|(name, value)| {
        knobs.add_row([name.to_owned(), value]);
    });
    print(format_args!("{knobs}\n"))?;
    run.arithmetic_table().iter().try_for_each(print)?;
    for phase in run.schedule.phases() {
        print(format_args!(
            "phase {}: rate up to {:.3e} over {} of {} steps, then {:?}; micro-batches of {}{}{}{}",
            phase.name,
            phase.peak(),
            phase.warmup_steps().round(),
            thousands(phase.steps),
            phase.decay,
            phase.micro_batch_size,
            phase.masked_lm_prob.map_or(String::new(), |p| format!("; {:.0} % of the tokens masked", 100.0 * p)),
            if phase.carry_moments { "" } else { "; moments start from zero" },
            if phase.carry_step { "" } else { "; bias correction counts from one" },
        ))?;
        phase.choices().iter().try_for_each(|choice| print(format_args!("  {choice}")))?;
    }
    print("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resume_command_can_be_pasted() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            pretrain: Pretrain,
        }
        let line = ["x", "a b.toml", "--set", "name=it's", "--platform", "cpu", "--devices", "2"];
        let pretrain = <Line as clap::Parser>::parse_from(line).pretrain;
        assert_eq!(
            pretrain.resume_command(),
            r"lambert pretrain 'a b.toml' --resume --set 'name=it'\''s' --platform cpu --devices 2"
        );
    }
}
