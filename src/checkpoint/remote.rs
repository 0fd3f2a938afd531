//! A run directory's image in a bucket. Training saves into the directory, as ever; afterwards [`RemoteRun::mirror`] makes
//! the bucket hold the newest checkpoints, and a machine that has none fetches one by [`RemoteRun::fetch_latest`].
//!
//! A checkpoint in a bucket is whole if its `state.json` is there: it is sent last and removed first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::save::{complete, is_ours, put_in_place, remove_ours};
use super::{CheckpointError, Manifest, STATE, step_name, step_of, steps_in};
use crate::files::{partial_path, replace_file};
use crate::storage::{Address, Bucket, ExpectedObject, LocalCopy, Object};

/// A run in a bucket and the directory here that stands for it.
#[derive(Debug)]
pub struct RemoteRun {
    bucket: Bucket,
    directory: PathBuf,
}

/// What a [`RemoteRun::mirror`] did.
#[derive(Debug, Default)]
pub struct Mirrored {
    /// Addresses of the checkpoints that were sent.
    pub sent: Vec<Address>,
    /// Sentences that a user should see.
    pub notes: Vec<String>,
}

/// A checkpoint in a bucket that is to be brought here.
#[derive(Debug)]
pub struct CheckpointFetch<'a> {
    run: &'a RemoteRun,
    step: u64,
    files: Vec<ExpectedObject>,
    state: Vec<u8>,
}

impl RemoteRun {
    /// The run at `address`, which `directory` is the copy of. No request is made.
    ///
    /// # Errors
    /// If `directory` holds something else, or the environment a setting that is none.
    pub fn open(address: &Address, directory: &Path) -> Result<RemoteRun, CheckpointError> {
        LocalCopy::lock(address, directory)?;
        Ok(RemoteRun { bucket: Bucket::open(address)?, directory: directory.to_path_buf() })
    }

    pub fn address(&self) -> &Address {
        self.bucket.address()
    }

    /// The steps of the checkpoints that are whole in the bucket, in ascending order.
    ///
    /// # Errors
    /// What the server says.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        Ok(whole(&by_step(self.bucket.list()?)))
    }

    /// Whether a checkpoint here is newer than every one of `there`: it was saved and could not be sent.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_ahead_of(&self, there: &[u64]) -> Result<bool, CheckpointError> {
        let here = self.steps_here()?;
        Ok(here.last() > there.last())
    }

    /// The steps of the checkpoints that are whole here, in ascending order.
    fn steps_here(&self) -> Result<Vec<u64>, CheckpointError> {
        let whole = |step: &u64| complete(&self.directory.join(step_name(*step)));
        Ok(steps_in(&self.directory)?.into_iter().filter(whole).collect())
    }

    /// Plans to fetch the checkpoint of `step`: the files that the directory here does not hold already.
    ///
    /// # Errors
    /// What the server says; [`CheckpointError::Damaged`] if the `state.json` there is not the one that was written.
    pub fn fetch(&self, step: u64) -> Result<CheckpointFetch<'_>, CheckpointError> {
        let name = format!("{}/{STATE}", step_name(step));
        let address = self.address().join(&name).to_string();
        let state = self.bucket.read(&name)?;
        let state = state.ok_or_else(|| CheckpointError::damaged(Path::new(&address), "it is not there any more"))?;
        let text = String::from_utf8_lossy(&state).into_owned();
        let manifest = Manifest::parse(Path::new(&address), &text)?;
        let local = self.directory.join(step_name(step));
        let here = Manifest::read(&local).is_ok_and(|here| here.files == manifest.files && complete(&local));
        let files = match here {
            true => Vec::new(),
            false => {
                let wanted = |(name, record): (String, super::FileRecord)| ExpectedObject {
                    name,
                    bytes: record.bytes,
                    sha256: Some(record.sha256),
                };
                manifest.files.into_iter().map(wanted).collect()
            }
        };
        Ok(CheckpointFetch { run: self, step, files, state })
    }

    /// Makes the bucket hold the newest `keep` (0: all) of the checkpoints that are there or here: sends those that it
    /// lacks, oldest first, then removes the others. What an earlier call could not send is sent now. A checkpoint of the
    /// same step that differs stays, under another name. Beside them goes `journal`, a file of the run directory that
    /// grows, if it exists.
    ///
    /// # Errors
    /// If a file cannot be sent. Nothing here or there has been removed then.
    pub fn mirror(
        &self,
        keep: usize,
        journal: &str,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Mirrored, CheckpointError> {
        let mut mirrored = Mirrored::default();
        let there = by_step(self.bucket.list()?);
        let there_whole = whole(&there);
        let here = self.steps_here()?;
        let all: BTreeSet<u64> = there_whole.iter().chain(&here).copied().collect();
        let kept: BTreeSet<u64> = match keep {
            0 => all,
            _ => all.iter().rev().take(keep).copied().collect(),
        };
        for &step in here.iter().filter(|step| kept.contains(step)) {
            let objects = there.get(&step).map_or(&[][..], Vec::as_slice);
            self.send(step, objects, &mut mirrored, progress)?;
        }
        if self.directory.join(journal).exists() {
            self.bucket.upload(&self.directory, &[journal], progress)?;
        }
        // Parts of checkpoints that were never whole are of no use to anybody once a newer one is.
        let newest = kept.last().copied().unwrap_or(0);
        for (&step, objects) in there.iter().filter(|&(&step, _)| !kept.contains(&step) && step < newest) {
            if keep > 0 || !there_whole.contains(&step) {
                mirrored.notes.extend(self.remove(step, objects)?);
            }
        }
        Ok(mirrored)
    }

    /// Sends one checkpoint, unless the bucket has it.
    fn send(
        &self,
        step: u64,
        there: &[Object],
        mirrored: &mut Mirrored,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CheckpointError> {
        let name = step_name(step);
        let local = self.directory.join(&name);
        let manifest = Manifest::read(&local)?;
        let in_step = |file: &str| format!("{name}/{file}");
        if there.iter().any(|object| object.name == STATE) {
            let state = self.bucket.read(&in_step(STATE))?.unwrap_or_default();
            let earlier = Manifest::parse(&local, &String::from_utf8_lossy(&state));
            if earlier.is_ok_and(|earlier| earlier.files == manifest.files) {
                return Ok(());
            }
            mirrored.notes.push(self.set_aside(&name, there)?);
        }
        let names: Vec<String> = manifest.files.keys().map(|file| in_step(file)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.bucket.upload(&self.directory, &names, progress)?;
        self.bucket.upload(&self.directory, &[&in_step(STATE)], progress)?;
        mirrored.sent.push(self.address().join(&name));
        Ok(())
    }

    /// Moves a checkpoint that turned out to be damaged out of the way, so that the step can be saved anew; says where it is.
    ///
    /// # Errors
    /// What the server says.
    pub fn set_aside_damaged(&self, step: u64) -> Result<String, CheckpointError> {
        let there = by_step(self.bucket.list()?).remove(&step).unwrap_or_default();
        self.set_aside(&step_name(step), &there)
    }

    /// Moves the objects of the checkpoint `name` out of the way; says where they are.
    fn set_aside(&self, name: &str, there: &[Object]) -> Result<String, CheckpointError> {
        let taken: BTreeSet<String> = self.bucket.list()?.into_iter().map(|object| object.name).collect();
        let free = |aside: &String| !taken.range(format!("{aside}/")..).next().is_some_and(|n| n.starts_with(aside));
        let aside = (1..).map(|n| format!("{name}.replaced-{n}")).find(free).unwrap_or_default();
        for object in there {
            self.bucket.copy(&format!("{name}/{}", object.name), &format!("{aside}/{}", object.name))?;
        }
        self.remove_objects(name, there)?;
        let (address, aside) = (self.address().join(name), self.address().join(&aside));
        Ok(format!("what {address} held is now {aside}"))
    }

    /// Removes a checkpoint from the bucket, unless it holds something that no save wrote; then says so.
    fn remove(&self, step: u64, there: &[Object]) -> Result<Option<String>, CheckpointError> {
        let name = step_name(step);
        if !there.iter().all(|object| is_ours(&object.name)) {
            return Ok(Some(format!("{} holds files that no save wrote; it was kept", self.address().join(&name))));
        }
        self.remove_objects(&name, there)?;
        Ok(None)
    }

    fn remove_objects(&self, name: &str, objects: &[Object]) -> Result<(), CheckpointError> {
        let names: Vec<String> = objects.iter().map(|object| format!("{name}/{}", object.name)).collect();
        let (state, others): (Vec<&str>, Vec<&str>) =
            names.iter().map(String::as_str).partition(|name| name.ends_with(&format!("/{STATE}")));
        self.bucket.remove(&state)?;
        Ok(self.bucket.remove(&others)?)
    }

    /// Brings `journal` here, a file beside the checkpoints that grows, if the bucket has more of it than the directory.
    ///
    /// # Errors
    /// If it cannot be read there or written here.
    pub fn fetch_journal(&self, journal: &str) -> Result<(), CheckpointError> {
        let path = self.directory.join(journal);
        let here = path.metadata().map_or(0, |metadata| metadata.len());
        let Some(content) = self.bucket.read(journal)?.filter(|there| there.len() as u64 > here) else { return Ok(()) };
        let partial = partial_path(&path);
        replace_file(&path, &partial, &content).map_err(CheckpointError::write(&path, content.len() as u64))
    }
}

impl CheckpointFetch<'_> {
    /// The checkpoint's directory here, when it is fetched.
    pub fn path(&self) -> PathBuf {
        self.run.directory.join(step_name(self.step))
    }

    /// Bytes that are to be fetched.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Fetches the files, beside the name that the checkpoint gets when all are whole. The sentence, if any, says what has
    /// become of another checkpoint that had that name here.
    ///
    /// # Errors
    /// If a file is not there or is not what `state.json` says; if the disk is full.
    pub fn run(self, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<String>, CheckpointError> {
        let run = self.run;
        if self.files.is_empty() {
            return Ok(None);
        }
        let _copy = LocalCopy::lock(run.address(), &run.directory)?;
        let partial = run.directory.join(format!(".{}.partial", step_name(self.step)));
        remove_ours(&partial)?;
        fs::create_dir_all(&partial).map_err(CheckpointError::io("create", &partial))?;
        let bucket = Bucket::open(&run.address().join(&step_name(self.step)))?;
        bucket.download(&self.files, &partial, progress)?;
        let state = partial.join(STATE);
        fs::write(&state, &self.state).map_err(CheckpointError::io("write", &state))?;
        put_in_place(&partial, &run.directory, &step_name(self.step))
    }
}

/// The objects of every checkpoint, by step, named within it.
fn by_step(objects: Vec<Object>) -> BTreeMap<u64, Vec<Object>> {
    let mut steps: BTreeMap<u64, Vec<Object>> = BTreeMap::new();
    for Object { name, bytes } in objects {
        if let Some((step, file)) = name.split_once('/').and_then(|(step, file)| Some((step_of(step)?, file))) {
            steps.entry(step).or_default().push(Object { name: file.to_owned(), bytes });
        }
    }
    steps
}

/// The steps that have the object which is written last.
fn whole(steps: &BTreeMap<u64, Vec<Object>>) -> Vec<u64> {
    let is_whole = |objects: &[Object]| objects.iter().any(|object| object.name == STATE);
    steps.iter().filter(|(_, objects)| is_whole(objects)).map(|(&step, _)| step).collect()
}
