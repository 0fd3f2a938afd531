//! Saving checkpoints: all files are written to a hidden directory, synced, and renamed; earlier files stay until then.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use super::copied_files::{Listing, create_folder_of};
use super::tensor_file::{FileRecord, write_bytes, write_tensors};
use super::{Checkpoint, CheckpointError, FORMAT_VERSION, MODEL, Manifest, OPTIMIZER, STATE, is_copied_file};
use super::{step_name, step_of, steps_in};
use crate::shape::HostTensor;

/// Space for headers, `state.json` and the file system's own records, beside the tensors' bytes.
const SPACE_MARGIN: u64 = 1 << 20;

/// The reasons for which a checkpoint is renamed, which its new name states: another one of the same step replaced it, or training had
/// diverged after it.
pub(super) const REPLACED: &str = "replaced";
pub(super) const DIVERGED: &str = "diverged";

/// The result of a save.
#[derive(Debug)]
pub struct Saved {
    /// The new checkpoint's directory.
    pub path: PathBuf,
    /// Messages for the user: an earlier directory that was renamed, an old one that was kept.
    pub notes: Vec<String>,
}

/// The checkpoints that stay when a new one is saved, beside the best one and the last good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The number of newest checkpoints; 0 keeps all.
    pub newest: usize,
    /// Keeps those of every step that this divides; 0 keeps none for this reason.
    pub every: u64,
}

impl Keep {
    /// Keeps all checkpoints.
    pub const ALL: Keep = Keep { newest: 0, every: 0 };

    /// Returns whether the checkpoint of `step` stays, whatever its age.
    pub fn always(self, step: u64) -> bool {
        self.every > 0 && step.is_multiple_of(self.every)
    }
}

/// A run directory that checkpoints are saved into.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    keep: Keep,
    /// Steps of checkpoints that this value has written or read as a whole, and whether they are undamaged.
    checked: BTreeMap<u64, bool>,
}

impl RunDirectory {
    /// Returns the run directory `path`, which the first save creates.
    pub fn new(path: &Path, keep: Keep) -> RunDirectory {
        RunDirectory { path: path.to_path_buf(), keep, checked: BTreeMap::new() }
    }

    /// Saves `checkpoint`, then removes older ones but those that [`Keep`] names, the best one and the last good one. A different
    /// or damaged checkpoint of the same step is renamed, not replaced.
    ///
    /// # Errors
    /// [`CheckpointError::NoSpace`] before anything is written; or if the file system reports an error. Earlier checkpoints are
    /// then unchanged.
    pub fn save(&mut self, checkpoint: &Checkpoint) -> Result<Saved, CheckpointError> {
        if let Some((name, _)) = checkpoint.files.iter().find(|(name, _)| !is_copied_file(name)) {
            return Err(CheckpointError::UnknownFile { name: name.clone() });
        }
        let run = self.path.as_path();
        fs::create_dir_all(run).map_err(CheckpointError::io("create", run))?;
        let mut notes = remove_partial(run)?;
        let tensors = checkpoint.model.iter().chain(&checkpoint.optimizer).map(|(_, tensor)| tensor.bytes().len());
        let copied = checkpoint.files.iter().map(|(_, content)| content.len());
        check_space(run, tensors.chain(copied).sum::<usize>() as u64)?;

        let step = checkpoint.state.step;
        let name = step_name(step);
        let path = run.join(&name);
        let partial = run.join(format!(".{name}.partial"));
        let files = match write_partial(&partial, checkpoint) {
            Ok(files) => files,
            Err(error) => {
                // The first error is reported; the next save removes files that cannot be removed now.
                let _ = remove_checkpoint(&partial);
                return Err(error);
            }
        };
        let same = |earlier: Manifest| holds_same_tensors(&earlier.files, &files);
        if Manifest::read(&path).is_ok_and(same) && is_undamaged(&path) {
            remove_checkpoint(&partial)?;
        } else {
            notes.extend(put_in_place(&partial, run, &name)?);
        }
        self.checked.insert(step, true);
        let [best, last_good] = checkpoint.state.required_steps();
        notes.extend(self.remove_older(&[Some(step), best, last_good])?);
        Ok(Saved { path, notes })
    }

    /// Renames the checkpoints that are newer than `step` (all of them without one), so that no run resumes from them; returns
    /// messages with their new names.
    ///
    /// # Errors
    /// If the file system reports an error.
    pub fn set_aside_after(&self, step: Option<u64>) -> Result<Vec<String>, CheckpointError> {
        let mut notes = Vec::new();
        for newer in steps_in(&self.path)?.into_iter().filter(|found| Some(*found) > step) {
            notes.push(set_aside(&self.path, newer, DIVERGED)?);
        }
        Ok(notes)
    }

    /// Removes all checkpoints.
    ///
    /// # Errors
    /// If the file system reports an error.
    pub fn remove_all(&self) -> Result<(), CheckpointError> {
        for step in steps_in(&self.path)? {
            remove_checkpoint(&self.path.join(step_name(step)))?;
        }
        Ok(())
    }

    /// Removes the complete checkpoints that are older than the newest undamaged ones, but for those that are always kept and
    /// those of the steps `required`.
    fn remove_older(&mut self, required: &[Option<u64>]) -> Result<Vec<String>, CheckpointError> {
        let mut notes = Vec::new();
        if self.keep.newest == 0 {
            return Ok(notes);
        }
        let mut newer = 0;
        for step in steps_in(&self.path)?.into_iter().rev() {
            let path = self.path.join(step_name(step));
            if !complete(&path) {
                continue;
            }
            if newer < self.keep.newest {
                newer += usize::from(self.check(step, &path, &mut notes));
                continue;
            }
            if self.keep.always(step) || required.contains(&Some(step)) {
                continue;
            }
            if checkpoint_files(&path)?.is_none() {
                notes.push(format!(
                    "{} was not removed: it holds files that are not part of a checkpoint",
                    path.display()
                ));
                continue;
            }
            // It is renamed first, so that an interruption between two removals leaves no incomplete checkpoint under its name.
            let partial = self.path.join(format!(".{}.partial", step_name(step)));
            fs::rename(&path, &partial).map_err(CheckpointError::io("rename", &path))?;
            remove_checkpoint(&partial)?;
        }
        Ok(notes)
    }

    /// Returns whether the checkpoint of `step` is undamaged, which is found out once; adds a message if it is not.
    fn check(&mut self, step: u64, path: &Path, notes: &mut Vec<String>) -> bool {
        *self.checked.entry(step).or_insert_with(|| {
            let undamaged = is_undamaged(path);
            if !undamaged {
                notes
                    .push(format!("{} is damaged, so it does not count among the checkpoints to keep", path.display()));
            }
            undamaged
        })
    }
}

/// Renames the checkpoint of `step` in the run directory for a reason; returns a message with the new name.
pub(super) fn set_aside(run: &Path, step: u64, reason: &str) -> Result<String, CheckpointError> {
    let name = step_name(step);
    let (path, aside) = (run.join(&name), unused_name(run, &name, reason));
    fs::rename(&path, &aside).map_err(CheckpointError::io("rename", &path))?;
    sync_directory(run)?;
    Ok(format!("{} was renamed to {}", path.display(), aside.display()))
}

/// Renames the directory `partial` to `name` in the run directory. An existing directory of that name is renamed too, with a
/// message.
pub(super) fn put_in_place(partial: &Path, run: &Path, name: &str) -> Result<Option<String>, CheckpointError> {
    let path = run.join(name);
    let mut note = None;
    if path.exists() {
        let aside = unused_name(run, name, REPLACED);
        let what = if is_undamaged(&path) { "another checkpoint of this step" } else { "a damaged checkpoint" };
        fs::rename(&path, &aside).map_err(CheckpointError::io("rename", &path))?;
        note = Some(format!("{}, {what}, was renamed to {}", path.display(), aside.display()));
    }
    fs::rename(partial, &path).map_err(CheckpointError::io("rename", partial))?;
    sync_directory(run)?;
    Ok(note)
}

/// Checks that the disk has space for `bytes`.
pub(super) fn check_space(directory: &Path, bytes: u64) -> Result<(), CheckpointError> {
    let ask = CheckpointError::io("read the free space of", directory);
    let (needed, free) = (bytes + SPACE_MARGIN, fs4::available_space(directory).map_err(ask)?);
    if needed > free {
        return Err(CheckpointError::NoSpace { directory: directory.to_path_buf(), needed, free });
    }
    Ok(())
}

/// Writes all files of a checkpoint into the new directory `partial`. The files are written, hashed and synced side by side,
/// because a sync may wait for the disk; the manifest follows.
fn write_partial(partial: &Path, checkpoint: &Checkpoint) -> Result<BTreeMap<String, FileRecord>, CheckpointError> {
    fn borrowed(tensors: &[(String, HostTensor)]) -> Vec<(&str, &HostTensor)> {
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }
    fs::create_dir(partial).map_err(CheckpointError::io("create", partial))?;
    checkpoint.files.iter().try_for_each(|(name, _)| create_folder_of(name, partial))?;
    let write = |name: &str| {
        let path = partial.join(name);
        let record = match name {
            MODEL => write_tensors(&path, &borrowed(&checkpoint.model)),
            OPTIMIZER => write_tensors(&path, &borrowed(&checkpoint.optimizer)),
            _ => write_bytes(&path, checkpoint.file(name).unwrap_or_default()),
        };
        record.map(|record| (name.to_owned(), record))
    };
    let names = [MODEL, OPTIMIZER].into_iter().chain(checkpoint.files.iter().map(|(name, _)| name.as_str()));
    let files: BTreeMap<String, FileRecord> = thread::scope(|scope| {
        let start = |name| thread::Builder::new().spawn_scoped(scope, move || write(name));
        let writers: Vec<_> = names.map(start).collect();
        writers
            .into_iter()
            .map(|writer| {
                let writer = writer.map_err(CheckpointError::io("start a thread to write into", partial))?;
                writer.join().unwrap_or_else(|panic| resume_unwind(panic))
            })
            .collect::<Result<_, _>>()
    })?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        sha256: String::new(),
        state: checkpoint.state.clone(),
        files: files.clone(),
    };
    let state = partial.join(STATE);
    let text = manifest.to_text().map_err(|e| CheckpointError::io("write", &state)(e.into()))?;
    write_bytes(&state, text.as_bytes())?;
    let folders = checkpoint.files.iter().filter_map(|(name, _)| Some(partial.join(name.split_once('/')?.0)));
    folders.collect::<BTreeSet<_>>().iter().try_for_each(|folder| sync_directory(folder))?;
    sync_directory(partial)?;
    Ok(files)
}

/// Syncs a directory to the disk: only then is a rename within it durable.
fn sync_directory(directory: &Path) -> Result<(), CheckpointError> {
    // Windows cannot open a directory as a file and does not need this.
    if cfg!(unix) {
        let sync = || File::open(directory)?.sync_all();
        sync().map_err(CheckpointError::io("sync", directory))?;
    }
    Ok(())
}

fn holds_same_tensors(a: &BTreeMap<String, FileRecord>, b: &BTreeMap<String, FileRecord>) -> bool {
    [MODEL, OPTIMIZER].iter().all(|name| a.contains_key(*name) && a.get(*name) == b.get(*name))
}

/// Returns whether `directory` has its manifest and every listed file with its recorded size.
pub(super) fn complete(directory: &Path) -> bool {
    Manifest::read(directory).is_ok_and(|manifest| manifest.check_sizes(directory).is_ok())
}

/// Returns whether `directory` holds a checkpoint whose files all have their recorded content. Reads them all.
pub(super) fn is_undamaged(directory: &Path) -> bool {
    let unchanged = |(name, record): (&String, &FileRecord)| {
        FileRecord::of(&directory.join(name)).is_ok_and(|found| found == *record)
    };
    Manifest::read(directory).is_ok_and(|manifest| manifest.files.iter().all(unchanged))
}

/// Returns `step-00004200.replaced-1` for the reason `replaced`, or the name with the first unused number.
fn unused_name(run: &Path, name: &str, reason: &str) -> PathBuf {
    let candidate = |n: u32| run.join(format!("{name}.{reason}-{n}"));
    (1..).map(candidate).find(|path| !path.exists()).unwrap_or_else(|| candidate(0))
}

/// Removes the directories of interrupted saves. One with other files than a checkpoint's stays, with a message.
fn remove_partial(run: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(run).map_err(CheckpointError::io("list", run))? {
        let entry = entry.map_err(CheckpointError::io("list", run))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix('.')?.strip_suffix(".partial")).and_then(step_of);
        if step.is_some() && !remove_checkpoint(&entry.path())? {
            notes.push(format!(
                "{} was not removed: it holds files that are not part of a checkpoint",
                entry.path().display()
            ));
        }
    }
    Ok(notes)
}

/// Returns whether a save writes files of this name.
pub(super) fn is_checkpoint_file(name: &str) -> bool {
    [MODEL, OPTIMIZER, STATE].contains(&name) || is_copied_file(name)
}

/// Lists `path` if it is a directory (not a link to one) with only files that a save writes.
fn checkpoint_files(path: &Path) -> Result<Option<Listing>, CheckpointError> {
    let listing = Listing::of(path).map_err(CheckpointError::io("list", path))?;
    Ok(listing.filter(|listing| listing.files.iter().all(|name| is_checkpoint_file(name))))
}

/// Removes a checkpoint directory if it holds no other files; returns whether it is gone.
pub(super) fn remove_checkpoint(path: &Path) -> Result<bool, CheckpointError> {
    if !path.exists() {
        return Ok(true);
    }
    let Some(listing) = checkpoint_files(path)? else { return Ok(false) };
    listing.remove(path).map_err(CheckpointError::io("remove", path))?;
    Ok(true)
}
