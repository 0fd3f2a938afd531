//! The parts of a preparation in a bucket: each machine uploads its own to `ADDRESS.parts`, and the one that joins them downloads all.
//! The journal of a part is transferred last, so a part with a journal is complete.

use std::fs;
use std::path::{Path, PathBuf};

use super::parts::{Part, parts_directory};
use super::staging::{self, Staging, write_to_disk};
use super::work_files::{JOURNAL, is_work};
use crate::data::error::{DataError, Result};
use crate::files;
use crate::storage::{Address, Bucket, ExpectedObject, Object};

/// A part that is complete and not yet in the bucket.
#[derive(Debug)]
pub struct PartUpload {
    bucket: Bucket,
    directory: PathBuf,
    names: Vec<String>,
    journal: String,
}

impl PartUpload {
    /// Lists the files of a part of the preparation of `out`, for the data at `address`. There are none if the bucket has them.
    ///
    /// # Errors
    /// If the part cannot be read, or the bucket cannot be reached.
    pub fn plan(out: &Path, part: Part, address: &Address) -> Result<PartUpload> {
        let directory = parts_directory(&staging::resolve(out)?);
        let (bucket, own) = (bucket_of_parts(address)?, directory.join(part.directory_name()));
        let name = |file: &str| format!("{}/{file}", part.directory_name());
        let journal = name(JOURNAL);
        let path = own.join(JOURNAL);
        let here = files::read(&path).map_err(DataError::io("read", &path))?;
        let mut names = Vec::new();
        if bucket.read(&journal).map_err(DataError::storage)? != Some(here) {
            for entry in fs::read_dir(&own).map_err(DataError::io("list", &own))? {
                let file = entry.map_err(DataError::io("list", &own))?.file_name();
                names.extend(file.to_str().filter(|file| is_work(file)).map(name));
            }
        }
        Ok(PartUpload { bucket, directory, names, journal })
    }

    /// Returns the number of bytes to upload.
    pub fn bytes(&self) -> u64 {
        let bytes = |name: &String| fs::metadata(self.directory.join(name)).map_or(0, |metadata| metadata.len());
        self.names.iter().map(bytes).sum()
    }

    /// Uploads the files. Calls `progress` with the number of bytes sent.
    ///
    /// # Errors
    /// If a file cannot be uploaded.
    pub fn run(self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        if self.names.is_empty() {
            return Ok(());
        }
        let journal = [self.journal.as_str()];
        let others: Vec<&str> = self.names.iter().map(String::as_str).filter(|name| *name != self.journal).collect();
        let uploaded = self.bucket.remove(&journal);
        let uploaded = uploaded.and_then(|()| self.bucket.upload(&self.directory, &others, progress));
        uploaded.and_then(|()| self.bucket.upload(&self.directory, &journal, progress)).map_err(DataError::storage)
    }
}

/// The complete parts in a bucket that this machine lacks.
#[derive(Debug)]
pub struct PartsDownload {
    bucket: Bucket,
    directory: PathBuf,
    parts: Vec<(Part, Vec<u8>)>,
    missing: Vec<ExpectedObject>,
}

impl PartsDownload {
    /// Compares the parts in the bucket with those beside `out`.
    ///
    /// # Errors
    /// If the bucket cannot be reached.
    pub fn plan(out: &Path, address: &Address) -> Result<PartsDownload> {
        let (bucket, directory) = (bucket_of_parts(address)?, parts_directory(&staging::resolve(out)?));
        let objects = bucket.list().map_err(DataError::storage)?;
        let (mut parts, mut missing) = (Vec::new(), Vec::new());
        for journal in objects.iter().filter_map(|object| object.name.strip_suffix(JOURNAL)) {
            let Some(part) = journal.strip_suffix('/').and_then(Part::of_directory) else { continue };
            let text = bucket.read(&format!("{journal}{JOURNAL}")).map_err(DataError::storage)?.unwrap_or_default();
            let here = files::read(directory.join(journal).join(JOURNAL)).ok();
            if here.as_ref() == Some(&text) {
                continue;
            }
            // Without a journal, a file here is a part of an interrupted download; with another one, it is of another attempt.
            let is_downloaded = |object: &Object| {
                let size = fs::metadata(directory.join(&object.name)).map(|metadata| metadata.len());
                here.is_none() && size.is_ok_and(|bytes| bytes == object.bytes)
            };
            let is_missing = |object: &&Object| {
                let file = object.name.strip_prefix(journal).filter(|file| is_work(file) && *file != JOURNAL);
                file.is_some() && !is_downloaded(object)
            };
            missing.extend(objects.iter().filter(is_missing).map(|Object { name, bytes }| ExpectedObject {
                name: name.clone(),
                bytes: *bytes,
                sha256: None,
            }));
            parts.push((part, text));
        }
        Ok(PartsDownload { bucket, directory, parts, missing })
    }

    /// Returns the number of bytes to download.
    pub fn bytes(&self) -> u64 {
        self.missing.iter().map(|object| object.bytes).sum()
    }

    /// Downloads the files; the checksum of each block is compared when it is read. Calls `progress` with the number of bytes received.
    ///
    /// # Errors
    /// If a file cannot be downloaded. Complete files are kept.
    pub fn run(self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        fs::create_dir_all(&self.directory).map_err(DataError::io("create", &self.directory))?;
        let own = |part: Part| self.directory.join(part.directory_name());
        let stagings = self.parts.iter().map(|(part, _)| Staging::at(own(*part))).collect::<Result<Vec<_>>>()?;
        self.bucket.download(&self.missing, &self.directory, progress).map_err(DataError::storage)?;
        for (part, journal) in &self.parts {
            write_to_disk(&own(*part).join(JOURNAL), journal)?;
        }
        drop(stagings);
        Ok(())
    }
}

/// Removes the parts of the preparation of `out` from the bucket of the data at `address`, unless they are still beside `out`: those of
/// other data.
///
/// # Errors
/// If an object cannot be removed.
pub fn remove_remote_parts(out: &Path, address: &Address) -> Result<()> {
    if parts_directory(&staging::resolve(out)?).exists() {
        return Ok(());
    }
    let bucket = bucket_of_parts(address)?;
    let objects = bucket.list().map_err(DataError::storage)?;
    let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    let (journals, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.ends_with(JOURNAL));
    bucket.remove(&journals).and_then(|()| bucket.remove(&others)).map_err(DataError::storage)
}

fn bucket_of_parts(address: &Address) -> Result<Bucket> {
    Bucket::open(&address.beside(".parts")).map_err(DataError::storage)
}
