//! Training of trials, each by a process of its own: `lambert pretrain` on the trial's run file. A process that fails ends no other
//! trial, and its output is in the directory of its trial.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::file::KeptCheckpoints;
use super::plan::{Ended, Plan};
use super::trial::{Trial, TrialResult};
use crate::checkpoint::{CheckpointError, RunLock};
use crate::files;
use crate::train::divergence::DIVERGED;
use crate::train::interrupt::{INTERRUPTED, Interrupt, TIME_LIMIT};

/// The output of a trial's process, in its directory.
const OUTPUT: &str = "output.log";
/// Time between looks at the processes.
const POLL: Duration = Duration::from_millis(50);
/// Time that a process of an earlier study may take to end.
const EARLIER_PROCESS: Duration = Duration::from_secs(120);
/// Bytes at the end of a failed trial's output that are shown.
const SHOWN_OUTPUT: i64 = 2_000;
/// The variable that selects the GPUs of a process.
const VISIBLE_GPUS: &str = "CUDA_VISIBLE_DEVICES";

/// The settings of a study that are not in its file, because they do not change results.
pub struct RunnerOptions<'a> {
    /// Builds the command that trains a run file for at most a time, and goes on where an earlier one stopped. Its process ends as after
    /// Ctrl-C when its standard input is closed.
    pub command: &'a dyn Fn(&Path, Option<Duration>) -> Command,
    /// Trials at the same time. With more than one, each process sees one GPU: that of its place.
    pub parallel: usize,
    /// The time at which running trials are saved and the study ends.
    pub deadline: Option<Instant>,
}

/// The reason for the end of [`run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All trials have ended.
    Complete,
    /// The deadline has passed.
    Budget,
    /// A signal asked the study to end.
    Interrupted,
}

/// A trial that is being trained.
struct Running {
    trial: Trial,
    child: Child,
    /// The process ends as after Ctrl-C when this is closed, also by the end of this process.
    input: Option<ChildStdin>,
    place: usize,
}

/// Trains the trials of `plan` that have not ended, and adds their results to `ended`. Calls `on_end` after each of them.
///
/// # Errors
/// If a trial fails for another reason than divergence, or a file cannot be written.
pub fn run(
    plan: &Plan,
    options: &RunnerOptions<'_>,
    ended: &mut Ended,
    on_end: &mut dyn FnMut(&Trial, &TrialResult, &Ended) -> anyhow::Result<()>,
) -> anyhow::Result<End> {
    let interrupt = Interrupt::install(options.deadline)?;
    let mut running: Vec<Running> = Vec::new();
    let mut early: Option<End> = None;
    let outcome = loop {
        if early.is_none() && interrupt.request().ends() {
            let deadline = options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            early = Some(if deadline { End::Budget } else { End::Interrupted });
            running.iter_mut().for_each(|running| drop(running.input.take()));
        }
        while early.is_none() && running.len() < options.parallel {
            let directories: Vec<PathBuf> = running.iter().map(|running| running.trial.directory.clone()).collect();
            let Some(trial) = plan.next(ended, &directories)? else { break };
            let place = (0..).find(|place| running.iter().all(|other| other.place != *place)).unwrap_or_default();
            running.push(start(trial, options, place)?);
        }
        if running.is_empty() {
            break early.unwrap_or(End::Complete);
        }
        let mut still = Vec::new();
        for mut running in running {
            let Some(status) = running.child.try_wait().context("cannot wait for a trial")? else {
                still.push(running);
                continue;
            };
            if let Some(result) = finish(plan, &running.trial, status)? {
                ended.insert(running.trial.directory.clone(), result.clone());
                on_end(&running.trial, &result, ended)?;
            } else if early.is_none() {
                early = Some(if status.code() == Some(i32::from(TIME_LIMIT)) { End::Budget } else { End::Interrupted });
            }
        }
        running = still;
        std::thread::sleep(POLL);
    };
    Ok(outcome)
}

/// Waits until no process trains `trial`. One of an earlier study, which was killed, ends after its step.
fn wait_for_earlier_process(trial: &Trial) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        match RunLock::take(&trial.directory) {
            Err(CheckpointError::InUse { .. }) if begin.elapsed() < EARLIER_PROCESS => std::thread::sleep(POLL),
            taken => return taken.map(drop).with_context(|| trial.to_text()),
        }
    }
}

/// Starts the process of a trial.
fn start(trial: Trial, options: &RunnerOptions<'_>, place: usize) -> anyhow::Result<Running> {
    wait_for_earlier_process(&trial)?;
    trial.write()?;
    let path = trial.directory.join(OUTPUT);
    let output = files::append(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let left = options.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let mut command = (options.command)(&trial.run_file(), left);
    if options.parallel > 1 {
        command.env(VISIBLE_GPUS, visible_gpu(std::env::var(VISIBLE_GPUS).ok().as_deref(), place));
    }
    let error = output.try_clone().with_context(|| format!("cannot open {}", path.display()))?;
    command.stdin(Stdio::piped()).stdout(output).stderr(error);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {} for {}", command.get_program().display(), trial.to_text()))?;
    let input = child.stdin.take();
    Ok(Running { trial, child, input, place })
}

/// Returns the GPU of the place `place`, of those that `visible` names.
fn visible_gpu(visible: Option<&str>, place: usize) -> String {
    let named: Vec<&str> = visible.unwrap_or_default().split(',').filter(|name| !name.is_empty()).collect();
    named.get(place).map_or_else(|| place.to_string(), |name| (*name).to_owned())
}

/// Records the result of a trial whose process has ended; none if it can be resumed.
fn finish(plan: &Plan, trial: &Trial, status: ExitStatus) -> anyhow::Result<Option<TrialResult>> {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let result = match code {
        Some(0) => trial.record(&plan.study.metric, false)?,
        Some(DIVERGED) => trial.record(&plan.study.metric, true)?,
        Some(INTERRUPTED | TIME_LIMIT) => return Ok(None),
        _ if trial.has_lost_its_gradients()? => trial.record(&plan.study.metric, true)?,
        _ => bail!("{} failed ({status}): {}", trial.to_text(), end_of_output(&trial.directory.join(OUTPUT))),
    };
    if plan.study.checkpoints == KeptCheckpoints::Reported && trial.seed == plan.study.tuning_seed {
        trial.remove_checkpoints()?;
    }
    Ok(Some(result))
}

/// Returns the last lines of a trial's output.
fn end_of_output(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = files::open(path)?;
        let length = file.metadata()?.len() as i64;
        file.seek(SeekFrom::End(-length.min(SHOWN_OUTPUT)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|error| format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_sees_one_gpu() {
        assert_eq!([0, 1].map(|place| visible_gpu(None, place)), ["0", "1"]);
        assert_eq!([0, 1].map(|place| visible_gpu(Some("4,6"), place)), ["4", "6"]);
        assert_eq!(visible_gpu(Some(""), 2), "2");
    }
}
