//! Downloads prepared data from a bucket into a directory for [`PreparedData::open`](crate::data::PreparedData::open),
//! and uploads it from one. `prepared.json` is written last in either direction, so a directory with a manifest is
//! complete.

use std::fs;
use std::path::Path;

use super::manifest::{Manifest, ShardEntry};
use crate::data::error::{DataError, Result};
use crate::data::files::{MANIFEST, TOKENIZER_DIRECTORY, sha256_of_file};
use crate::files::{self, partial_path, replace_file};
use crate::storage::{Address, Bucket, ExpectedObject, LocalCopy, Location};

/// A planned download of the files that a local copy lacks. Holds the lock of the copy.
#[derive(Debug)]
pub struct DataFetch {
    bucket: Bucket,
    copy: LocalCopy,
    /// The manifest in the bucket.
    manifest: Vec<u8>,
    missing: Vec<ExpectedObject>,
}

impl DataFetch {
    /// Compares the data at `address` with its copy in `directory`. If the copy has the same manifest, only removed
    /// files are missing. Otherwise, shards that the new manifest also lists are kept.
    ///
    /// # Errors
    /// If there is no prepared data at `address`, it is of another format, or `directory` is not a copy of it.
    pub fn plan(address: &Address, directory: &Path) -> Result<DataFetch> {
        let bucket = Bucket::open(address).map_err(DataError::storage)?;
        let manifest = bucket.read(MANIFEST).map_err(DataError::storage)?.ok_or_else(|| no_data(address))?;
        let listed = Manifest::parse(Path::new(&address.join(MANIFEST).to_string()), &manifest)?;
        let copy = LocalCopy::lock(address, directory).map_err(DataError::storage)?;
        let marker = directory.join(MANIFEST);
        let current = files::read(&marker).is_ok_and(|here| here == manifest);
        if !current && marker.exists() {
            // From here on the directory is incomplete.
            fs::remove_file(&marker).map_err(DataError::io("remove", &marker))?;
        }

        let mut missing = Vec::new();
        let objects = bucket.list().map_err(DataError::storage)?.into_iter();
        for object in objects.filter(|object| tokenizer_file(&object.name).is_some()) {
            if !current || !has_size(&directory.join(&object.name), object.bytes) {
                let sha256 = tokenizer_file(&object.name).and_then(|file| listed.tokenizer.get(file)).cloned();
                missing.push(ExpectedObject { name: object.name, bytes: object.bytes, sha256 });
            }
        }
        for ShardEntry { file, bytes, sha256, .. } in listed.shards {
            let here = directory.join(&file);
            let same = || Ok::<_, DataError>(current || sha256_of_file(&here, &|_| ())? == sha256);
            if !has_size(&here, bytes) || !same()? {
                missing.push(ExpectedObject { name: file, bytes, sha256: Some(sha256) });
            }
        }
        Ok(DataFetch { bucket, copy, manifest, missing })
    }

    /// Returns the number of bytes to download.
    pub fn bytes(&self) -> u64 {
        self.missing.iter().map(|object| object.bytes).sum()
    }

    /// Downloads the missing files. Calls `progress` with the number of bytes received.
    ///
    /// # Errors
    /// If a file cannot be downloaded or differs from the manifest. Complete files are kept.
    pub fn run(self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let directory = self.copy.directory();
        self.bucket.download(&self.missing, directory, progress).map_err(DataError::storage)?;
        let marker = directory.join(MANIFEST);
        let written = replace_file(&marker, &partial_path(&marker), &self.manifest);
        written.map_err(DataError::write(&marker, self.manifest.len()))
    }
}

/// Returns the manifest of the data at `address`, without downloading the data.
///
/// # Errors
/// As [`DataFetch::plan`].
pub fn remote_manifest(address: &Address) -> Result<Manifest> {
    let text = Bucket::open(address)
        .and_then(|bucket| bucket.read(MANIFEST))
        .map_err(DataError::storage)?
        .ok_or_else(|| no_data(address))?;
    Manifest::parse(Path::new(&address.join(MANIFEST).to_string()), &text)
}

/// Uploads the prepared data in `directory` to `address`, unless the same data is there already.
///
/// # Errors
/// If other prepared data is there and `force` is not set, or if a file cannot be uploaded.
pub fn publish(directory: &Path, address: &Address, force: bool, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let copy = LocalCopy::lock(address, directory).map_err(DataError::storage)?;
    let path = copy.directory().join(MANIFEST);
    let manifest = files::read(&path).map_err(DataError::io("read", &path))?;
    let bucket = Bucket::open(address).map_err(DataError::storage)?;
    match bucket.read(MANIFEST).map_err(DataError::storage)? {
        Some(there) if there == manifest => return Ok(()),
        Some(_) if !force => {
            return Err(DataError::file(
                address.join(MANIFEST).to_string(),
                "the same data, or none",
                "other prepared data",
                "choose another address, or set force to replace it",
            ));
        }
        Some(_) => bucket.remove(&[MANIFEST]).map_err(DataError::storage)?,
        None => {}
    }
    let tokenizer = directory.join(TOKENIZER_DIRECTORY);
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&tokenizer).map_err(DataError::io("list", &tokenizer))? {
        let name = entry.map_err(DataError::io("list", &tokenizer))?.file_name();
        names.push(format!("{TOKENIZER_DIRECTORY}/{}", name.to_string_lossy()));
    }
    names.extend(Manifest::parse(&path, &manifest)?.shards.into_iter().map(|shard| shard.file));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let uploaded = bucket.upload(directory, &names, progress);
    uploaded.and_then(|()| bucket.upload(directory, &[MANIFEST], &|_| ())).map_err(DataError::storage)
}

/// Returns the name of the tokenizer file that an object holds, if it is one.
fn tokenizer_file(name: &str) -> Option<&str> {
    let file = name.strip_prefix(TOKENIZER_DIRECTORY)?.strip_prefix('/')?;
    (!file.is_empty() && !file.contains('/')).then_some(file)
}

fn has_size(path: &Path, bytes: u64) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes)
}

fn no_data(address: &Address) -> DataError {
    DataError::file(
        address.to_string(),
        format!("an object {MANIFEST}"),
        "none",
        "name the address to which the data was prepared",
    )
}

/// Returns the manifest of the prepared data at `data`, without the data; `None` if `data` is a directory that does not
/// exist.
///
/// # Errors
/// If there is other content than prepared data.
pub fn data_manifest(data: &Location) -> Result<Option<Manifest>> {
    Ok(match data.address() {
        Some(address) => Some(remote_manifest(address)?),
        None if data.local().exists() => Some(Manifest::read(data.local())?),
        None => None,
    })
}
