//! Whether a prepared directory is whole, and whether its inputs are still those that it was made from.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::error::{DataError, Result};
use super::prepared::{Manifest, Prepared, SourceEntry};
use super::shard::sha256_of_file;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// The same bytes.
    Unchanged,
    /// Other bytes: the data is not what this input would give now.
    Changed,
    /// No file has that name here and now; the data does not need it.
    Absent,
}

/// What was found in a prepared directory.
#[derive(Debug)]
pub struct Checked {
    pub manifest: Manifest,
    /// Everything that is wrong with shards and tokenizer.
    pub faults: Vec<DataError>,
    /// The state of every input of the manifest, in its order.
    pub sources: Vec<SourceState>,
}

/// Reads every byte of the prepared data in `directory`, and of its inputs where they are still there; `progress` hears of
/// the bytes read.
///
/// # Errors
/// If the manifest cannot be read, or an input is there and cannot be read. What is wrong with the data is no error but part
/// of the answer.
pub fn check(directory: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Checked> {
    let manifest = Manifest::read(directory)?;
    let mut faults: Vec<DataError> =
        manifest.shards.par_iter().filter_map(|entry| entry.check(directory, progress).err()).collect();
    faults.extend(manifest.check_tokenizer(directory).err());
    if faults.is_empty() {
        // Starts, counts and vocabulary, which training looks at.
        faults.extend(Prepared::open(directory).err());
    }
    let sources = manifest.inputs.par_iter().map(|entry| entry.state(progress)).collect::<Result<_>>()?;
    Ok(Checked { manifest, faults, sources })
}

impl SourceEntry {
    fn state(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<SourceState> {
        let path = Path::new(&self.name);
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(SourceState::Absent),
            Err(error) => Err(DataError::io("read", path)(error)),
            Ok(metadata) if metadata.len() != self.bytes => Ok(SourceState::Changed),
            Ok(_) if sha256_of_file(path, progress)? != self.sha256 => Ok(SourceState::Changed),
            Ok(_) => Ok(SourceState::Unchanged),
        }
    }
}
