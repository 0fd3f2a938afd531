//! Transfers between a bucket and this machine. A location in a bucket has a local directory: data, models and runs are
//! downloaded into it before use, with a progress bar, and uploaded from it.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::CheckpointSettings;
use super::initial_state::ResumeError;
use crate::checkpoint::{Best, CheckpointError, METRICS_FILE, Mirrored, RemoteRun};
use crate::data::{self, DataFetch, Manifest, publish};
use crate::output::byte_progress::ByteProgress;
use crate::output::note;
use crate::storage::{Address, LocalCopy, Location};
use crate::units::byte_size;

/// Downloads the prepared data at `data` unless its copy is complete, and returns the local directory.
///
/// # Errors
/// If there is no prepared data, or it cannot be downloaded.
pub fn fetch_data(data: &Location) -> anyhow::Result<&Path> {
    if let Some(address) = data.address() {
        let fetch = DataFetch::plan(address, data.local())?;
        let bytes = fetch.bytes();
        if bytes > 0 {
            note(format_args!("downloading {} of {address} into {}", byte_size(bytes as f64), data.local().display()));
            ByteProgress::during("downloading", bytes, |progress| fetch.run(progress))?;
        } else {
            fetch.run(&|_| ())?;
        }
    }
    Ok(data.local())
}

/// Adds to an error about the local copy of `data` that the copy can be removed, because it can be downloaded again.
///
/// # Errors
/// As `checked`.
pub fn check_copy<T>(data: &Location, checked: data::Result<T>) -> anyhow::Result<T> {
    let Some(address) = data.address() else { return Ok(checked?) };
    let copy = data.local().display();
    checked.with_context(|| format!("{copy} is a copy of {address}; remove it to download it again"))
}

/// Marks the local directory of `data` as the copy of its address in the bucket.
///
/// # Errors
/// If the directory holds something else.
pub fn claim_copy(data: &Location) -> anyhow::Result<()> {
    let Some(address) = data.address() else { return Ok(()) };
    LocalCopy::lock(address, data.local())?;
    Ok(())
}

/// Uploads the local prepared data of `data` to its bucket and returns the number of bytes; returns `None` if `data` is not
/// in a bucket. With `force`, it replaces other data.
///
/// # Errors
/// If the bucket holds other data, or the upload fails.
pub fn upload_data(data: &Location, force: bool) -> anyhow::Result<Option<u64>> {
    let Some(address) = data.address() else { return Ok(None) };
    let manifest = Manifest::read(data.local())?;
    let bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
    ByteProgress::during("uploading", bytes, |progress| publish(data.local(), address, force, progress))?;
    Ok(Some(bytes))
}

/// Downloads the checkpoint at `model`, or that of the run at `model`, and returns its local directory: the newest one or, of a run
/// that selects checkpoints by a metric, the best one. A local `model` is returned as it is.
///
/// # Errors
/// If there is no checkpoint, or it cannot be downloaded.
pub fn fetch_model(model: &Location) -> anyhow::Result<PathBuf> {
    let Some(address) = model.address() else { return Ok(model.local().to_path_buf()) };
    let Some((run, step)) = run_and_step(address) else {
        let remote = RemoteRun::open(address, model.local())?;
        let steps = remote.steps()?;
        let newest = *steps.last().with_context(|| {
            format!("{address} requires a complete checkpoint, found none; name a step-… directory or its run")
        })?;
        return fetch_step(&remote, best_step(&remote, &steps, newest)?);
    };
    let directory = run.to_string().parse::<Location>()?;
    fetch_step(&RemoteRun::open(&run, directory.local())?, step)
}

/// Returns the step of the best checkpoint of a run, or that of the newest one if the run does not select by a metric.
fn best_step(remote: &RemoteRun, steps: &[u64], newest: u64) -> anyhow::Result<u64> {
    let fetch = remote.fetch(newest)?;
    let Some(Best { metric, value, step, .. }) = fetch.best().filter(|best| steps.contains(&best.step)) else {
        return Ok(newest);
    };
    note(format_args!(
        "{}: step {step} has the best {metric} ({value:.4}), so it is used; the newest step is {newest}",
        remote.address()
    ));
    Ok(*step)
}

/// Splits the address of a checkpoint into the address of its run and its step.
fn run_and_step(address: &Address) -> Option<(Address, u64)> {
    let step = address.name().strip_prefix("step-")?.parse().ok()?;
    let run = address.prefix.strip_suffix(address.name())?.trim_end_matches('/').to_owned();
    Some((Address { prefix: run, ..address.clone() }, step))
}

fn fetch_step(remote: &RemoteRun, step: u64) -> anyhow::Result<PathBuf> {
    let fetch = remote.fetch(step)?;
    let (bytes, path) = (fetch.bytes(), fetch.path());
    if bytes > 0 {
        note(format_args!(
            "downloading step {step} of {} ({}) into {}",
            remote.address(),
            byte_size(bytes as f64),
            path.display()
        ));
        ByteProgress::during("downloading", bytes, |progress| fetch.run(progress))?.iter().for_each(note);
    }
    Ok(path)
}

/// Prepares the local directory of a run in a bucket. A new run requires that the bucket holds none; for a resumed one, local copies of
/// checkpoints from a divergence are set aside as in the bucket, and the newest undamaged checkpoint is downloaded. The leader also uploads local checkpoints that the bucket lacks, and sets damaged
/// ones aside; the other hosts do not change the bucket.
///
/// # Errors
/// If the bucket holds a run and `resume` is false; if every checkpoint is damaged or cannot be downloaded.
pub fn fetch_run(settings: &CheckpointSettings, resume: bool, is_leader: bool) -> anyhow::Result<()> {
    let Some(address) = settings.directory.address() else { return Ok(()) };
    let remote = RemoteRun::open(address, settings.directory.local())?;
    let steps = remote.steps()?;
    if !resume && !steps.is_empty() {
        return Err(ResumeError::RunExists { run: address.to_string() }.into());
    }
    if resume {
        remote.set_aside_diverged(&steps)?.iter().for_each(note);
    }
    if resume && is_leader && remote.is_ahead_of(&steps)? {
        note(format_args!("uploading the checkpoints that an earlier run could not upload to {address}"));
        let Mirrored { uploaded, notes } = remote.mirror(settings.kept(), METRICS_FILE, &|_| ())?;
        notes.iter().for_each(note);
        uploaded.iter().for_each(|checkpoint| note(format_args!("uploaded {checkpoint}")));
        return Ok(());
    }
    let mut newest_error = None;
    for &step in steps.iter().rev() {
        match fetch_step(&remote, step) {
            Ok(_) => return Ok(remote.fetch_journal(METRICS_FILE)?),
            Err(error) if is_leader && is_damage(&error) => {
                note(format_args!("skipped: {error:#}"));
                note(remote.set_aside_damaged(step)?);
                newest_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    newest_error.map_or(Ok(()), Err)
}

/// Returns whether an earlier checkpoint can be used instead.
fn is_damage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<CheckpointError>().is_some_and(CheckpointError::is_damage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_checkpoint_splits_into_run_and_step() {
        let parse = |text: &str| Address::parse(text).unwrap().unwrap();
        let (run, step) = run_and_step(&parse("s3://b/runs/large/step-00000042")).unwrap();
        assert_eq!((run.to_string().as_str(), step), ("s3://b/runs/large", 42));
        let (run, _) = run_and_step(&parse("gs://b/step-00000042")).unwrap();
        assert_eq!(run.to_string(), "gs://b");
        assert_eq!(run_and_step(&parse("s3://b/runs/step-by-step")), None);
    }
}
