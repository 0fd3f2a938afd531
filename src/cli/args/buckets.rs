//! What a verb is given may lie in a bucket: it is brought here first, with a bar, and the verb goes on with the directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::checkpoint::METRICS_FILE;
use crate::checkpoint::{Mirrored, RemoteRun};
use crate::data::{self, DataFetch, Manifest, publish};
use crate::output::byte_progress::ByteProgress;
use crate::output::{note, print};
use crate::run::CheckpointSettings;
use crate::storage::{Address, LocalCopy, Location};
use crate::units::byte_size;

/// The directory with the prepared data at `data`; what it lacks is fetched.
///
/// # Errors
/// If there is no prepared data, or it cannot be fetched.
pub fn data_directory(data: &Location) -> anyhow::Result<&Path> {
    if let Some(address) = data.address() {
        let fetch = DataFetch::plan(address, data.local())?;
        let bytes = fetch.bytes();
        if bytes > 0 {
            note(format_args!("fetching {} of {address} into {}", byte_size(bytes as f64), data.local().display()));
            ByteProgress::during("fetching", bytes, |progress| fetch.run(progress))?;
        } else {
            fetch.run(&|_| ())?;
        }
    }
    Ok(data.local())
}

/// What a check of the copy of `data` found; what to do about a copy is not what one does about the only one there is.
///
/// # Errors
/// As `checked`.
pub fn of_copy<T>(data: &Location, checked: data::Result<T>) -> anyhow::Result<T> {
    let Some(address) = data.address() else { return Ok(checked?) };
    let copy = data.local().display();
    checked.with_context(|| format!("{copy} is a copy of {address}; remove it, and it is fetched again"))
}

/// Makes sure that the directory for data that is to be sent to `data` is free for it.
///
/// # Errors
/// If it holds something else.
pub fn claim_copy(data: &Location) -> anyhow::Result<()> {
    let Some(address) = data.address() else { return Ok(()) };
    LocalCopy::take(address, data.local())?;
    Ok(())
}

/// Sends the prepared data in the copy of `data`, if that is a place in a bucket.
///
/// # Errors
/// If other data is there, or it cannot be sent.
pub fn send_data(data: &Location, force: bool) -> anyhow::Result<()> {
    let Some(address) = data.address() else { return Ok(()) };
    let manifest = Manifest::read(data.local())?;
    let bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
    ByteProgress::during("sending", bytes, |progress| publish(data.local(), address, force, progress))?;
    print(format_args!("{address}: {} are there", byte_size(bytes as f64)))?;
    Ok(())
}

/// The directory with the model at `model`: a checkpoint or a run, whose newest checkpoint is then fetched.
///
/// # Errors
/// If there is no checkpoint, or it cannot be fetched.
pub fn model_directory(model: &Location) -> anyhow::Result<PathBuf> {
    let Some(address) = model.address() else { return Ok(model.local().to_path_buf()) };
    let Some((run, step)) = step_of_a_run(address) else {
        let remote = RemoteRun::open(address, model.local())?;
        let newest = remote.steps()?.last().copied();
        let newest = newest.with_context(|| {
            format!(
                "{address} requires a checkpoint, found none that is whole; name a step-… or the run that holds one"
            )
        })?;
        return fetch_step(&remote, newest);
    };
    let directory = run.to_string().parse::<Location>()?;
    fetch_step(&RemoteRun::open(&run, directory.local())?, step)
}

/// The run and the step of the address of a checkpoint.
fn step_of_a_run(address: &Address) -> Option<(Address, u64)> {
    let step = address.name().strip_prefix("step-")?.parse().ok()?;
    let run = address.prefix.strip_suffix(address.name())?.trim_end_matches('/').to_owned();
    Some((Address { prefix: run, ..address.clone() }, step))
}

fn fetch_step(remote: &RemoteRun, step: u64) -> anyhow::Result<PathBuf> {
    let fetch = remote.fetch(step)?;
    let (bytes, path) = (fetch.bytes(), fetch.path());
    if bytes > 0 {
        note(format_args!(
            "fetching step {step} of {} ({}) into {}",
            remote.address(),
            byte_size(bytes as f64),
            path.display()
        ));
        ByteProgress::during("fetching", bytes, |progress| fetch.run(progress))?.iter().for_each(note);
    }
    Ok(path)
}

/// Sees to a run in a bucket before it begins: one that is to start there must find nothing, one that is to be resumed has
/// its newest whole checkpoint here afterwards. The host that `leads` also sends what is here and not there, and passes over
/// damaged checkpoints; the others change nothing in the bucket.
///
/// # Errors
/// If there is a run already and `resume` was not asked for; if every checkpoint is damaged or cannot be fetched.
pub fn fetch_run(settings: &CheckpointSettings, resume: bool, leads: bool) -> anyhow::Result<()> {
    let Some(address) = settings.directory.address() else { return Ok(()) };
    let remote = RemoteRun::open(address, settings.directory.local())?;
    let steps = remote.steps()?;
    ensure!(
        resume || steps.is_empty(),
        "{address} holds a run already; add --resume to go on with it, or set another [checkpoint] directory \
         (--set checkpoint.directory=…) to start anew"
    );
    if resume && leads && remote.is_ahead_of(&steps)? {
        note(format_args!("sending what an earlier run could not send to {address}"));
        let Mirrored { sent, notes } = remote.mirror(settings.keep, METRICS_FILE, &|_| ())?;
        notes.iter().for_each(note);
        sent.iter().for_each(|checkpoint| note(format_args!("sent {checkpoint}")));
        return Ok(());
    }
    let mut newest_error = None;
    for &step in steps.iter().rev() {
        match fetch_step(&remote, step) {
            Ok(_) => return Ok(remote.fetch_journal(METRICS_FILE)?),
            Err(error) if leads && is_damage(&error) => {
                note(format_args!("passed over: {error:#}"));
                note(remote.set_aside_damaged(step)?);
                newest_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    newest_error.map_or(Ok(()), Err)
}

/// Whether an earlier checkpoint may stand in.
fn is_damage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<crate::checkpoint::CheckpointError>().is_some_and(|error| error.is_damage())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoints_address_names_its_run() {
        let parse = |text: &str| Address::parse(text).unwrap().unwrap();
        let (run, step) = step_of_a_run(&parse("s3://b/runs/large/step-00000042")).unwrap();
        assert_eq!((run.to_string().as_str(), step), ("s3://b/runs/large", 42));
        let (run, _) = step_of_a_run(&parse("gs://b/step-00000042")).unwrap();
        assert_eq!(run.to_string(), "gs://b");
        assert_eq!(step_of_a_run(&parse("s3://b/runs/step-by-step")), None);
    }
}
