//! A run in a bucket. Training saves into the local directory; [`RemoteRun::mirror`] then uploads the newest checkpoints, and
//! [`RemoteRun::fetch`] downloads one to a machine that does not have it.
//!
//! A checkpoint in a bucket is complete if it has its `state.json`, which is uploaded last and removed first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::save::{
    DIVERGED, Keep, REPLACED, complete, is_checkpoint_file, is_undamaged, put_in_place, remove_checkpoint, set_aside,
};
use super::{Best, CheckpointError, Manifest, STATE, step_name, step_of, steps_in};
use crate::files::{partial_path, replace_file};
use crate::storage::{Address, Bucket, ExpectedObject, LocalCopy, Object};

/// A run in a bucket, and its local copy.
#[derive(Debug)]
pub struct RemoteRun {
    bucket: Bucket,
    directory: PathBuf,
}

/// The result of [`RemoteRun::mirror`].
#[derive(Debug, Default)]
pub struct Mirrored {
    /// Addresses of the uploaded checkpoints.
    pub uploaded: Vec<Address>,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// A planned download of a checkpoint.
#[derive(Debug)]
pub struct CheckpointFetch<'a> {
    run: &'a RemoteRun,
    step: u64,
    best: Option<Best>,
    files: Vec<ExpectedObject>,
    state: Vec<u8>,
}

impl RemoteRun {
    /// Opens the run at `address` with its copy in `directory`, without a request.
    ///
    /// # Errors
    /// If `directory` holds other files, or the environment holds an invalid setting.
    pub fn open(address: &Address, directory: &Path) -> Result<RemoteRun, CheckpointError> {
        LocalCopy::lock(address, directory)?;
        Ok(RemoteRun { bucket: Bucket::open(address)?, directory: directory.to_path_buf() })
    }

    /// Returns the address of the run.
    pub fn address(&self) -> &Address {
        self.bucket.address()
    }

    /// Returns the steps of the complete checkpoints in the bucket, in ascending order.
    ///
    /// # Errors
    /// If the request fails.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        Ok(complete_steps(&by_step(self.bucket.list()?)))
    }

    /// Returns whether a local checkpoint is newer than all of `remote`: it was saved and could not be uploaded.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn is_ahead_of(&self, remote: &[u64]) -> Result<bool, CheckpointError> {
        let local = self.local_steps()?;
        Ok(local.last() > remote.last())
    }

    /// Returns the steps of the complete local checkpoints, in ascending order.
    fn local_steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let is_complete = |step: &u64| complete(&self.directory.join(step_name(*step)));
        Ok(steps_in(&self.directory)?.into_iter().filter(is_complete).collect())
    }

    /// Plans the download of the checkpoint of `step`: the files that the local directory lacks.
    ///
    /// # Errors
    /// If the request fails; [`CheckpointError::Damaged`] if the `state.json` in the bucket is missing or not the one that was
    /// written.
    pub fn fetch(&self, step: u64) -> Result<CheckpointFetch<'_>, CheckpointError> {
        let name = format!("{}/{STATE}", step_name(step));
        let address = self.address().join(&name).to_string();
        let state = self.bucket.read(&name)?;
        let state = state.ok_or_else(|| CheckpointError::damaged(Path::new(&address), "it does not exist"))?;
        let text = String::from_utf8_lossy(&state).into_owned();
        let manifest = Manifest::parse(Path::new(&address), &text)?;
        let local = self.directory.join(step_name(step));
        let present = Manifest::read(&local).is_ok_and(|found| found.files == manifest.files && complete(&local));
        let files = match present {
            true => Vec::new(),
            false => {
                let expected = |(name, record): (String, super::FileRecord)| ExpectedObject {
                    name,
                    bytes: record.bytes,
                    sha256: Some(record.sha256),
                };
                manifest.files.into_iter().map(expected).collect()
            }
        };
        Ok(CheckpointFetch { run: self, step, best: manifest.state.best, files, state })
    }

    /// Makes the bucket hold those of all local and remote checkpoints that `keep` names, the best one and the last good one: uploads
    /// those that it lacks, oldest first, then removes the others. Checkpoints that an earlier call could not upload are included,
    /// damaged local ones are not. A different checkpoint of the same step is renamed. The growing file `journal` of the run
    /// directory is uploaded too, if it exists.
    ///
    /// # Errors
    /// If a file cannot be uploaded; nothing has been removed then.
    pub fn mirror(
        &self,
        keep: Keep,
        journal: &str,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Mirrored, CheckpointError> {
        let mut mirrored = Mirrored::default();
        let remote = by_step(self.bucket.list()?);
        let remote_steps = complete_steps(&remote);
        let lacking = self.lacking(&remote, &mut mirrored.notes)?;
        let all: BTreeSet<u64> = remote_steps.iter().chain(lacking.keys()).copied().collect();
        let older = all.len().saturating_sub(if keep.newest == 0 { all.len() } else { keep.newest });
        let required = self.required_steps()?;
        let stays =
            |&(place, step): &(usize, u64)| place >= older || keep.always(step) || required.contains(&Some(step));
        let kept: BTreeSet<u64> = all.into_iter().enumerate().filter(stays).map(|(_, step)| step).collect();
        for (&step, manifest) in lacking.iter().filter(|(step, _)| kept.contains(step)) {
            if remote_steps.contains(&step) {
                mirrored.notes.push(self.set_aside(&step_name(step), &remote[&step], REPLACED)?);
            }
            self.upload(step, manifest, progress)?;
            mirrored.uploaded.push(self.address().join(&step_name(step)));
        }
        self.upload_journal(journal, progress)?;
        // An incomplete checkpoint is useless once a newer one is complete.
        let newest = kept.last().copied().unwrap_or(0);
        for (&step, objects) in remote.iter().filter(|&(&step, _)| !kept.contains(&step) && step < newest) {
            if keep.newest > 0 || !remote_steps.contains(&step) {
                mirrored.notes.extend(self.remove(step, objects)?);
            }
        }
        Ok(mirrored)
    }

    /// Uploads the growing file `journal` of the run directory, if it exists.
    ///
    /// # Errors
    /// If the file cannot be uploaded.
    pub fn upload_journal(&self, journal: &str, progress: &(dyn Fn(u64) + Sync)) -> Result<(), CheckpointError> {
        match self.directory.join(journal).exists() {
            true => Ok(self.bucket.upload(&self.directory, &[journal], progress)?),
            false => Ok(()),
        }
    }

    /// Returns the local checkpoints that the bucket lacks, or of which it has different ones, with their manifests. Adds a message
    /// to `notes` for each that is damaged, instead of returning it.
    fn lacking(
        &self,
        remote: &BTreeMap<u64, Vec<Object>>,
        notes: &mut Vec<String>,
    ) -> Result<BTreeMap<u64, Manifest>, CheckpointError> {
        let mut lacking = BTreeMap::new();
        for step in self.local_steps()? {
            let local = self.directory.join(step_name(step));
            let manifest = Manifest::read(&local)?;
            if remote.contains_key(&step) && self.holds(&step_name(step), &manifest)? {
                continue;
            }
            if is_undamaged(&local) {
                lacking.insert(step, manifest);
            } else {
                notes.push(format!("{} was not uploaded: it is damaged", local.display()));
            }
        }
        Ok(lacking)
    }

    /// Returns whether the bucket has a checkpoint under `name` with the files of `manifest`.
    fn holds(&self, name: &str, manifest: &Manifest) -> Result<bool, CheckpointError> {
        let Some(state) = self.bucket.read(&format!("{name}/{STATE}"))? else { return Ok(false) };
        let found = Manifest::parse(&self.directory.join(name), &String::from_utf8_lossy(&state));
        Ok(found.is_ok_and(|found| found.files == manifest.files))
    }

    /// Returns the steps of the best and of the last good checkpoint, which the newest local one names.
    fn required_steps(&self) -> Result<[Option<u64>; 2], CheckpointError> {
        let Some(newest) = self.local_steps()?.pop() else { return Ok([None; 2]) };
        let newest = Manifest::read(&self.directory.join(step_name(newest)));
        Ok(newest.map_or([None; 2], |newest| newest.state.required_steps()))
    }

    /// Uploads the checkpoint of `step`, its manifest last.
    fn upload(&self, step: u64, manifest: &Manifest, progress: &(dyn Fn(u64) + Sync)) -> Result<(), CheckpointError> {
        let in_step = |file: &str| format!("{}/{file}", step_name(step));
        let names: Vec<String> = manifest.files.keys().map(|file| in_step(file)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.bucket.upload(&self.directory, &names, progress)?;
        Ok(self.bucket.upload(&self.directory, &[&in_step(STATE)], progress)?)
    }

    /// Renames a damaged checkpoint, so that its step can be saved again; returns a message with the new name.
    ///
    /// # Errors
    /// If a request fails.
    pub fn set_aside_damaged(&self, step: u64) -> Result<String, CheckpointError> {
        let objects = by_step(self.bucket.list()?).remove(&step).unwrap_or_default();
        self.set_aside(&step_name(step), &objects, REPLACED)
    }

    /// Renames the checkpoints that are newer than `step` (all of them without one), so that no run resumes from them; returns
    /// messages with their new names.
    ///
    /// # Errors
    /// If a request fails.
    pub fn set_aside_after(&self, step: Option<u64>) -> Result<Vec<String>, CheckpointError> {
        let steps = by_step(self.bucket.list()?);
        let newer = steps.iter().filter(|(found, _)| Some(**found) > step);
        newer.map(|(&found, objects)| self.set_aside(&step_name(found), objects, DIVERGED)).collect()
    }

    /// Renames the local checkpoints that another machine has set aside in the bucket, because training had diverged after them, so that
    /// no run resumes from this copy of them; returns messages with their new names. `remote` are the steps of the complete checkpoints
    /// in the bucket.
    ///
    /// # Errors
    /// If a request fails, or a directory cannot be renamed.
    pub fn set_aside_diverged(&self, remote: &[u64]) -> Result<Vec<String>, CheckpointError> {
        let mut notes = Vec::new();
        let only_local: Vec<u64> = self.local_steps()?.into_iter().filter(|step| !remote.contains(step)).collect();
        if only_local.is_empty() {
            return Ok(notes);
        }
        let objects = self.bucket.list()?;
        let names: BTreeSet<&str> = objects.iter().filter_map(|object| object.name.split('/').next()).collect();
        for step in only_local {
            let manifest = Manifest::read(&self.directory.join(step_name(step)))?;
            let copies = format!("{}.{DIVERGED}-", step_name(step));
            for name in names.iter().filter(|name| name.starts_with(&copies)) {
                if self.holds(name, &manifest)? {
                    let note = set_aside(&self.directory, step, DIVERGED)?;
                    notes.push(format!("{note}, as in {}: training had diverged after it", self.address()));
                    break;
                }
            }
        }
        Ok(notes)
    }

    /// Renames the objects of the checkpoint `name` for a reason; returns a message with the new name.
    fn set_aside(&self, name: &str, objects: &[Object], reason: &str) -> Result<String, CheckpointError> {
        let taken: BTreeSet<String> = self.bucket.list()?.into_iter().map(|object| object.name).collect();
        let free = |aside: &String| !taken.range(format!("{aside}/")..).next().is_some_and(|n| n.starts_with(aside));
        let aside = (1..).map(|n| format!("{name}.{reason}-{n}")).find(free).unwrap_or_default();
        for object in objects {
            self.bucket.copy(&format!("{name}/{}", object.name), &format!("{aside}/{}", object.name))?;
        }
        self.remove_objects(name, objects)?;
        let (address, aside) = (self.address().join(name), self.address().join(&aside));
        Ok(format!("{address} was renamed to {aside}"))
    }

    /// Removes a checkpoint from the bucket, unless it holds other files; returns a message then.
    fn remove(&self, step: u64, objects: &[Object]) -> Result<Option<String>, CheckpointError> {
        let name = step_name(step);
        if !objects.iter().all(|object| is_checkpoint_file(&object.name)) {
            return Ok(Some(format!(
                "{} was not removed: it holds files that are not part of a checkpoint",
                self.address().join(&name)
            )));
        }
        self.remove_objects(&name, objects)?;
        Ok(None)
    }

    fn remove_objects(&self, name: &str, objects: &[Object]) -> Result<(), CheckpointError> {
        let names: Vec<String> = objects.iter().map(|object| format!("{name}/{}", object.name)).collect();
        let (state, others): (Vec<&str>, Vec<&str>) =
            names.iter().map(String::as_str).partition(|name| name.ends_with(&format!("/{STATE}")));
        self.bucket.remove(&state)?;
        Ok(self.bucket.remove(&others)?)
    }

    /// Downloads the growing file `journal`, if the bucket's is longer than the local one.
    ///
    /// # Errors
    /// If it cannot be downloaded or written.
    pub fn fetch_journal(&self, journal: &str) -> Result<(), CheckpointError> {
        let path = self.directory.join(journal);
        let local = path.metadata().map_or(0, |metadata| metadata.len());
        let Some(content) = self.bucket.read(journal)?.filter(|remote| remote.len() as u64 > local) else {
            return Ok(());
        };
        let partial = partial_path(&path);
        replace_file(&path, &partial, &content).map_err(CheckpointError::write(&path, content.len() as u64))
    }
}

impl CheckpointFetch<'_> {
    /// Returns the local directory that the checkpoint will have.
    pub fn path(&self) -> PathBuf {
        self.run.directory.join(step_name(self.step))
    }

    /// Returns the best evaluation of the run up to the checkpoint, if the run selects checkpoints by a metric.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Returns the number of bytes to download.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Downloads the files to a temporary directory, then renames it. If another local checkpoint had the name, returns a message
    /// with its new name.
    ///
    /// # Errors
    /// If a file is missing or differs from its record, or the disk is full.
    pub fn run(self, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<String>, CheckpointError> {
        let run = self.run;
        if self.files.is_empty() {
            return Ok(None);
        }
        let _copy = LocalCopy::lock(run.address(), &run.directory)?;
        let partial = run.directory.join(format!(".{}.partial", step_name(self.step)));
        remove_checkpoint(&partial)?;
        fs::create_dir_all(&partial).map_err(CheckpointError::io("create", &partial))?;
        let bucket = Bucket::open(&run.address().join(&step_name(self.step)))?;
        bucket.download(&self.files, &partial, progress)?;
        let state = partial.join(STATE);
        fs::write(&state, &self.state).map_err(CheckpointError::io("write", &state))?;
        put_in_place(&partial, &run.directory, &step_name(self.step))
    }
}

/// Groups objects by the step of their checkpoint, with names within the checkpoint.
fn by_step(objects: Vec<Object>) -> BTreeMap<u64, Vec<Object>> {
    let mut steps: BTreeMap<u64, Vec<Object>> = BTreeMap::new();
    for Object { name, bytes } in objects {
        if let Some((step, file)) = name.split_once('/').and_then(|(step, file)| Some((step_of(step)?, file))) {
            steps.entry(step).or_default().push(Object { name: file.to_owned(), bytes });
        }
    }
    steps
}

/// Returns the steps whose checkpoints are complete.
fn complete_steps(steps: &BTreeMap<u64, Vec<Object>>) -> Vec<u64> {
    let is_complete = |objects: &[Object]| objects.iter().any(|object| object.name == STATE);
    steps.iter().filter(|(_, objects)| is_complete(objects)).map(|(&step, _)| step).collect()
}
