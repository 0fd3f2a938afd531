//! Saving: everything is written to a hidden sibling, synced, and renamed; what was there before stays until then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::tensor_file::{FileRecord, write_bytes, write_tensors};
use super::{COPIED_FILES, Checkpoint, CheckpointError, FORMAT_VERSION, MODEL, Manifest, OPTIMIZER, STATE};
use super::{step_name, step_of, steps_in};
use crate::shape::HostTensor;

/// Room for headers, `state.json` and the file system's own records, beside the tensors' bytes.
const MARGIN: u64 = 1 << 20;

/// What a save did.
#[derive(Debug)]
pub struct Saved {
    /// The new checkpoint's directory.
    pub path: PathBuf,
    /// Sentences that a user should see: an earlier directory set aside, an old one that could not be removed.
    pub notes: Vec<String>,
}

/// Saves `checkpoint` into the run directory `run`, then removes the oldest checkpoints beyond the newest `keep` (0 keeps
/// all of them). If a different checkpoint of the same step is there, it is renamed, not replaced.
///
/// # Errors
/// [`CheckpointError::NoSpace`] before anything is written; otherwise what the file system says. After an error the
/// earlier checkpoints are as they were.
pub fn save(run: &Path, checkpoint: &Checkpoint, keep: usize) -> Result<Saved, CheckpointError> {
    if let Some((name, _)) = checkpoint.files.iter().find(|(name, _)| !COPIED_FILES.contains(&name.as_str())) {
        return Err(CheckpointError::UnknownFile { name: name.clone() });
    }
    fs::create_dir_all(run).map_err(CheckpointError::io("create", run))?;
    let mut notes = remove_partial(run)?;
    let tensors = checkpoint.model.iter().chain(&checkpoint.optimizer).map(|(_, tensor)| tensor.bytes().len());
    let copied = checkpoint.files.iter().map(|(_, content)| content.len());
    check_space(run, tensors.chain(copied).sum::<usize>() as u64)?;

    let name = step_name(checkpoint.state.step);
    let path = run.join(&name);
    let partial = run.join(format!(".{name}.partial"));
    let files = match write_partial(&partial, checkpoint) {
        Ok(files) => files,
        Err(error) => {
            // The error that matters is the first one; what cannot be removed now is removed by the next save.
            let _ = remove_ours(&partial);
            return Err(error);
        }
    };

    if Manifest::read(&path).is_ok_and(|earlier| holds_same_tensors(&earlier.files, &files) && complete(&path)) {
        remove_ours(&partial)?;
        return Ok(Saved { path, notes });
    }
    notes.extend(put_in_place(&partial, run, &name)?);

    if keep > 0 {
        notes.extend(remove_oldest(run, keep, checkpoint.state.step)?);
    }
    Ok(Saved { path, notes })
}

/// Gives the directory `partial` its `name` in the run directory. What has that name is renamed, not replaced: the
/// sentence says to what.
pub(super) fn put_in_place(partial: &Path, run: &Path, name: &str) -> Result<Option<String>, CheckpointError> {
    let path = run.join(name);
    let mut note = None;
    if path.exists() {
        let aside = unused_name(run, name);
        fs::rename(&path, &aside).map_err(CheckpointError::io("rename", &path))?;
        note = Some(format!("{} held another checkpoint of this step; it is now {}", path.display(), aside.display()));
    }
    fs::rename(partial, &path).map_err(CheckpointError::io("rename", partial))?;
    sync_directory(run)?;
    Ok(note)
}

/// Asks whether `bytes` fit before the first of them is written.
pub(super) fn check_space(directory: &Path, bytes: u64) -> Result<(), CheckpointError> {
    let ask = CheckpointError::io("ask for the free space of", directory);
    let (needed, free) = (bytes + MARGIN, fs4::available_space(directory).map_err(ask)?);
    if needed > free {
        return Err(CheckpointError::NoSpace { directory: directory.to_path_buf(), needed, free });
    }
    Ok(())
}

fn write_partial(partial: &Path, checkpoint: &Checkpoint) -> Result<BTreeMap<String, FileRecord>, CheckpointError> {
    fn borrowed(tensors: &[(String, HostTensor)]) -> Vec<(&str, &HostTensor)> {
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }
    fs::create_dir(partial).map_err(CheckpointError::io("create", partial))?;
    let mut files = BTreeMap::new();
    for (name, tensors) in [(MODEL, &checkpoint.model), (OPTIMIZER, &checkpoint.optimizer)] {
        files.insert(name.to_owned(), write_tensors(&partial.join(name), &borrowed(tensors))?);
    }
    for (name, content) in &checkpoint.files {
        files.insert(name.clone(), write_bytes(&partial.join(name), content)?);
    }
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        sha256: String::new(),
        state: checkpoint.state.clone(),
        files: files.clone(),
    };
    let state = partial.join(STATE);
    let text = manifest.to_text().map_err(|e| CheckpointError::io("write", &state)(e.into()))?;
    write_bytes(&state, text.as_bytes())?;
    sync_directory(partial)?;
    Ok(files)
}

/// A rename is on disk only when the directory that holds the name is.
fn sync_directory(directory: &Path) -> Result<(), CheckpointError> {
    // Windows opens no directory as a file, and needs no such call.
    if cfg!(unix) {
        let sync = || File::open(directory)?.sync_all();
        sync().map_err(CheckpointError::io("sync", directory))?;
    }
    Ok(())
}

fn holds_same_tensors(a: &BTreeMap<String, FileRecord>, b: &BTreeMap<String, FileRecord>) -> bool {
    [MODEL, OPTIMIZER].iter().all(|name| a.contains_key(*name) && a.get(*name) == b.get(*name))
}

/// True if `directory` has its manifest and every file listed there, each of the recorded size.
pub(super) fn complete(directory: &Path) -> bool {
    Manifest::read(directory).is_ok_and(|manifest| manifest.check_sizes(directory).is_ok())
}

/// `step-00004200.replaced-1`, or the first number that is free.
fn unused_name(run: &Path, name: &str) -> PathBuf {
    let candidate = |n: u32| run.join(format!("{name}.replaced-{n}"));
    (1..).map(candidate).find(|path| !path.exists()).unwrap_or_else(|| candidate(0))
}

/// Removes what interrupted saves left. A directory that holds anything but a checkpoint's files is not ours: it stays.
fn remove_partial(run: &Path) -> Result<Vec<String>, CheckpointError> {
    let mut notes = Vec::new();
    for entry in fs::read_dir(run).map_err(CheckpointError::io("list", run))? {
        let entry = entry.map_err(CheckpointError::io("list", run))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|n| n.strip_prefix('.')?.strip_suffix(".partial")).and_then(step_of);
        if step.is_some() && !remove_ours(&entry.path())? {
            notes.push(format!("{} holds files that no save wrote; it was left as it is", entry.path().display()));
        }
    }
    Ok(notes)
}

/// Removes the oldest complete checkpoints until `keep` are left; never the one just `saved`.
fn remove_oldest(run: &Path, keep: usize, saved: u64) -> Result<Vec<String>, CheckpointError> {
    let mut notes = Vec::new();
    let steps: Vec<u64> = steps_in(run)?.into_iter().filter(|&step| complete(&run.join(step_name(step)))).collect();
    for &step in &steps[..steps.len().saturating_sub(keep)] {
        let path = run.join(step_name(step));
        if step == saved {
            continue;
        }
        if !holds_only_ours(&path)? {
            notes.push(format!("{} holds files that no save wrote; it was kept", path.display()));
            continue;
        }
        // Renamed first: an interruption between two removals must not leave half a checkpoint under a whole one's name.
        let partial = run.join(format!(".{}.partial", step_name(step)));
        fs::rename(&path, &partial).map_err(CheckpointError::io("rename", &path))?;
        remove_ours(&partial)?;
    }
    Ok(notes)
}

/// True for the name of a file that a save writes.
pub(super) fn is_ours(name: &str) -> bool {
    [MODEL, OPTIMIZER, STATE].contains(&name) || COPIED_FILES.contains(&name)
}

/// True if `path` is a directory (not a link to one) that holds nothing but files a save writes.
fn holds_only_ours(path: &Path) -> Result<bool, CheckpointError> {
    let list = CheckpointError::io("list", path);
    let look = || -> std::io::Result<bool> {
        if !fs::symlink_metadata(path)?.is_dir() {
            return Ok(false);
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            if !entry.file_type()?.is_file() || !name.to_str().is_some_and(is_ours) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    look().map_err(list)
}

/// Removes a checkpoint's files one by one, then the directory, if it holds nothing else; says whether it did.
pub(super) fn remove_ours(path: &Path) -> Result<bool, CheckpointError> {
    if !path.exists() || !holds_only_ours(path)? {
        return Ok(!path.exists());
    }
    let remove = || -> std::io::Result<()> {
        for entry in fs::read_dir(path)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(path)
    };
    remove().map_err(CheckpointError::io("remove", path))?;
    Ok(true)
}
