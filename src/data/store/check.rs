//! Checks that a prepared directory holds the content of its manifest, and that its inputs are unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use rayon::prelude::*;

use super::manifest::{Manifest, PREPARE_AGAIN, ShardEntry};
use super::prepared::PreparedData;
use super::shard::{Counts, Split};
use super::shard_reader::Shard;
use crate::data::corpus::{InputEntry, ReadCounts};
use crate::data::error::{DataError, Result};
use crate::data::files::{MANIFEST, TOKENIZER_DIRECTORY, sha256_of_file};
use crate::data::tokenizer::encode::Tokenizer;
use crate::data::tokenizer::vocabulary::Vocabulary;

/// The current state of an input file.
#[derive(Debug)]
pub enum InputState {
    /// The content is the same.
    Unchanged,
    /// The content has changed: the same preparation would give other data.
    Changed,
    /// No file has this name here; the data does not need it.
    Absent,
    /// The file cannot be read; the data does not need it.
    Unreadable(DataError),
}

/// The result of [`check`].
#[derive(Debug)]
pub struct CheckReport {
    /// The manifest of the directory.
    pub manifest: Manifest,
    /// All errors in the manifest, the shards and the tokenizer.
    pub faults: Vec<DataError>,
    /// The state of each input, in the order of the manifest.
    pub inputs: Vec<InputState>,
}

/// Reads every byte of the prepared data in `directory`, and of its inputs if they still exist. Calls `progress` with
/// the number of bytes read.
///
/// # Errors
/// If the manifest cannot be read. Faults of the data are part of the result.
pub fn check(directory: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<CheckReport> {
    let manifest = Manifest::read(directory)?;
    let faults = faults(&manifest, directory, progress);
    let inputs = manifest.inputs.par_iter().map(|entry| entry.state(progress)).collect();
    Ok(CheckReport { manifest, faults, inputs })
}

impl PreparedData {
    /// Reads every byte of the shards and the tokenizer and compares them with the manifest. Calls `progress` with the
    /// number of bytes read from shards.
    ///
    /// # Errors
    /// The first difference.
    pub fn verify(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        faults(self.manifest(), self.directory(), progress).into_iter().next().map_or(Ok(()), Err)
    }
}

/// Returns all differences between `directory` and `manifest`. Calls `progress` with the number of bytes read from
/// shards.
fn faults(manifest: &Manifest, directory: &Path, progress: &(dyn Fn(u64) + Sync)) -> Vec<DataError> {
    let vocabulary = manifest.check_tokenizer(directory);
    let mut faults: Vec<DataError> = manifest
        .shards
        .par_iter()
        .filter_map(|entry| entry.check(manifest, directory, vocabulary.as_ref().ok(), progress).err())
        .collect();
    faults.extend(vocabulary.err());
    faults.extend(manifest.check_sums(directory).err());
    if faults.is_empty() {
        // The checks at the start of training.
        faults.extend(PreparedData::open(directory).err());
    }
    faults
}

impl Manifest {
    /// Returns the vocabulary. Fails if the tokenizer in `directory` is not the one that encoded the data, because
    /// checkpoints and exports later copy it.
    fn check_tokenizer(&self, directory: &Path) -> Result<Vocabulary> {
        let directory = directory.join(TOKENIZER_DIRECTORY);
        let differs = |path: &Path, required: String, found: String| {
            let next = "restore the tokenizer, or run `lambert prepare` again (set force to overwrite the data)";
            Err(DataError::file(path, required, found, next))
        };
        let (rules, names) = (self.rules(), self.rules().file_names());
        for &name in names {
            let path = directory.join(name);
            if !path.exists() {
                return differs(&path, "a file of the tokenizer".into(), "none".into());
            }
            // Data of earlier versions does not record it.
            let Some(sha256) = self.tokenizer.get(name) else { continue };
            let found = sha256_of_file(&path, &|_| ())?;
            if found != *sha256 {
                return differs(&path, format!("sha256 {sha256}"), found);
            }
        }
        for entry in fs::read_dir(&directory).map_err(DataError::io("list", &directory))? {
            let name = entry.map_err(DataError::io("list", &directory))?.file_name();
            // Hidden files belong to the file system and are never read.
            if !names.iter().any(|own| name == *own) && !name.as_encoded_bytes().starts_with(b".") {
                let found = "another file, which libraries might read";
                let required = format!("only {}", names.join(", "));
                return Err(DataError::file(directory.join(name), required, found, "move it away"));
            }
        }
        let tokenizer = Tokenizer::open(&directory, false)?;
        let vocabulary = tokenizer.vocabulary();
        if (vocabulary.sha256(), vocabulary.len()) != (&self.vocabulary_sha256, self.vocabulary_size) {
            let required = format!("{} tokens with sha256 {}", self.vocabulary_size, self.vocabulary_sha256);
            return differs(&directory, required, format!("{} with {}", vocabulary.len(), vocabulary.sha256()));
        }
        if tokenizer.rules() != rules {
            return differs(&directory, format!("{rules}, as for the prepared data"), tokenizer.rules().to_string());
        }
        Ok(vocabulary.clone())
    }

    /// Returns an error if a total differs from the sum of its parts.
    fn check_sums(&self, directory: &Path) -> Result<()> {
        let differs = |name: &str, required: String, found: String| {
            let required = format!("{name} to be the sum over its parts, {required}");
            Err(DataError::file(directory.join(MANIFEST), required, found, PREPARE_AGAIN))
        };
        for split in [Split::Train, Split::HeldOut] {
            let mut sum = Counts::default();
            self.shards.iter().filter(|entry| entry.split == split).for_each(|entry| sum += entry.counts);
            if sum != self.counts(split) {
                return differs(split.name(), sum.to_string(), self.counts(split).to_string());
            }
        }
        // Data of earlier versions does not record the counters of each input.
        let mut read = ReadCounts::default();
        self.inputs.iter().for_each(|entry| read += entry.reading);
        if read != self.reading && read != ReadCounts::default() {
            return differs("reading", read.to_string(), self.reading.to_string());
        }
        let taken: u64 = self.inputs.iter().map(|entry| entry.train_documents).sum();
        if taken != self.train.documents && taken != 0 {
            return differs("train.documents", taken.to_string(), self.train.documents.to_string());
        }
        Ok(())
    }
}

impl ShardEntry {
    /// Returns an error if the shard in `directory` has changed since it was written, or contradicts the manifest.
    /// Calls `progress` with the number of bytes read.
    fn check(
        &self,
        manifest: &Manifest,
        directory: &Path,
        vocabulary: Option<&Vocabulary>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let path = directory.join(&self.file);
        let differs = |required: String, found: String| {
            let next = "the shard or prepared.json changed after it was written: run `lambert prepare` again (set force to overwrite the data)";
            Err(DataError::file(&path, required, found, next))
        };
        let sha256 = sha256_of_file(&path, progress)?;
        if sha256 != self.sha256 {
            return differs(format!("sha256 {}", self.sha256), sha256);
        }
        let bytes = fs::metadata(&path).map_err(DataError::io("read the size of", &path))?.len();
        if bytes != self.bytes {
            return differs(format!("{} bytes", self.bytes), bytes.to_string());
        }
        let Some(vocabulary) = vocabulary else { return Ok(()) };
        let shard = Shard::open(&path, self.split, vocabulary)?;
        let counted: (u64, u64) =
            (shard.token_counts().iter().sum(), shard.token_counts()[vocabulary.special().unk as usize]);
        if shard.counts() != self.counts || counted != (self.counts.tokens, self.counts.unknown_tokens) {
            return differs(self.counts.to_string(), shard.counts().to_string());
        }
        let sources: BTreeMap<&String, &String> =
            manifest.inputs.iter().map(|entry| (&entry.name, &entry.sha256)).collect();
        if !shard.header().sources.iter().eq(sources) {
            return differs("the inputs and sha256 that prepared.json lists".into(), "others".into());
        }
        Ok(())
    }
}

impl InputEntry {
    fn state(&self, progress: &(dyn Fn(u64) + Sync)) -> InputState {
        let path = Path::new(&self.name);
        let is_same = match fs::metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return InputState::Absent;
            }
            Err(error) => Err(DataError::io("read", path)(error)),
            Ok(metadata) if metadata.len() != self.bytes => Ok(false),
            Ok(_) => sha256_of_file(path, progress).map(|sha256| sha256 == self.sha256),
        };
        match is_same {
            Ok(true) => InputState::Unchanged,
            Ok(false) => InputState::Changed,
            Err(error) => InputState::Unreadable(error),
        }
    }
}
