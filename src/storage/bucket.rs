//! The objects under one address: list, read, download, upload, copy and remove. Calls block; several files are transferred
//! at once.
//!
//! `object_store` itself repeats a request that fails for a transient reason (no answer, a busy server) with growing pauses,
//! and resumes an interrupted stream, a few times within minutes. This module adds two things: a large object may take hours
//! and be interrupted any number of times, as long as it makes progress; and a downloaded file gets its name only when it is
//! complete and its sha256 is the expected one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientConfigKey, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig, StaticCredentialProvider, WriteMultipart,
};
use tokio::runtime::{Builder, Runtime};

use super::address::{Address, Provider};
use super::error::StorageError;
use crate::digest::Sha256Writer;
use crate::files::{self, partial_path};

/// Files transferred at once: a single stream does not fill a fast network.
const CONCURRENT_FILES: usize = 8;
/// Bytes of a part of a multipart upload; S3 accepts ten thousand parts, so files up to 160 GB.
const PART_BYTES: usize = 16 << 20;
/// Parts of one file uploaded at once.
const CONCURRENT_PARTS: usize = 4;
/// Repetitions of a request: with [`BACKOFF`], a busy or silent server is retried for 11 to 22 s.
const RETRIES: usize = 9;
/// A pause is drawn between the first pause and three times the previous one, and is at most three seconds.
const BACKOFF: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(500), max_backoff: Duration::from_secs(3), base: 3.0 };
/// The time limits of a silent server and of a whole response. The default of `object_store` is 30 s for both together, and a
/// checkpoint of gigabytes takes longer on most networks. The response to an upload comes after all of its part arrived.
const TIMEOUTS: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::ReadTimeout, "120 seconds"), (ClientConfigKey::Timeout, "1 day")];
/// Bytes that a stream must have delivered since its last restart to be restarted again.
const MIN_PROGRESS: u64 = 1 << 16;
/// Space for directories and the file system's own records, beside the bytes of files.
const SPACE_MARGIN: u64 = 1 << 20;

/// An object: its name below the bucket's address, and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The name below the address of the bucket.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
}

/// An object to download, with the size and sha256 that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedObject {
    /// The name below the address of the bucket.
    pub name: String,
    /// The expected size in bytes.
    pub bytes: u64,
    /// None for a file whose sha256 is not recorded.
    pub sha256: Option<String>,
}

/// The objects under an address.
#[derive(Debug)]
pub struct Bucket {
    address: Address,
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

impl Bucket {
    /// Opens the objects under `address` without a request. Credentials and endpoints come from the environment variables of
    /// Amazon's and Google's own tools. Unencrypted HTTP is allowed for an endpoint on this machine only, unless
    /// AWS_ALLOW_HTTP is set.
    ///
    /// # Errors
    /// If the environment holds an invalid setting.
    pub fn open(address: &Address) -> Result<Bucket, StorageError> {
        crate::tls::use_ring();
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: Duration::from_secs(180), backoff: BACKOFF };
        let store: Result<Box<dyn ObjectStore>, object_store::Error> = match address.provider {
            Provider::S3 => {
                let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
                let endpoint = endpoint.iter().find_map(|name| std::env::var(name).ok());
                let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.bucket).with_retry(retry);
                for (key, value) in TIMEOUTS {
                    builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
                }
                if let Some(endpoint) = endpoint.filter(|endpoint| is_on_this_machine(endpoint)) {
                    builder = builder.with_endpoint(endpoint).with_allow_http(true);
                }
                builder.build().map(|store| Box::new(store) as _)
            }
            Provider::Gcs => {
                let mut builder =
                    GoogleCloudStorageBuilder::from_env().with_bucket_name(&address.bucket).with_retry(retry);
                for (key, value) in TIMEOUTS {
                    builder = builder.with_config(GoogleConfigKey::Client(key), value);
                }
                // The variable of Google's own libraries: the address of a server that checks no credentials.
                let emulator = std::env::var("STORAGE_EMULATOR_HOST").ok().filter(|host| is_on_this_machine(host));
                if let Some(emulator) = emulator {
                    let anonymous = StaticCredentialProvider::new(GcpCredential { bearer: "anonymous".to_owned() });
                    let http = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
                    builder = builder.with_base_url(&emulator).with_config(http, "true");
                    builder = builder.with_credentials(Arc::new(anonymous));
                }
                builder.build().map(|store| Box::new(store) as _)
            }
        };
        let store = store.map_err(|error| StorageError::setting(address, &error))?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(StorageError::io("start threads for", Path::new(&address.to_string())))?;
        Ok(Bucket { address: address.clone(), store, runtime })
    }

    /// Returns the address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns the key of `name` below the address, unchanged: `Key::from` would encode some characters.
    ///
    /// # Errors
    /// If it is not a valid key. Names that a bucket lists are checked here too, before they become local paths, so that they
    /// cannot lead out of a directory.
    fn key(&self, name: &str) -> Result<Key, StorageError> {
        let object = self.address.join(name);
        let key = Key::parse(&object.prefix).ok().filter(|key| key.as_ref() == object.prefix);
        key.ok_or_else(|| StorageError::Object {
            object,
            required: "a name whose parts are separated by single slashes".to_owned(),
            found: format!("{name:?}"),
            next: "correct the name, or the file that lists it",
        })
    }

    /// Lists all objects below the address, in order of their names.
    ///
    /// # Errors
    /// If the request fails, for example because the bucket does not exist.
    pub fn list(&self) -> Result<Vec<Object>, StorageError> {
        let prefix = self.address.prefix.as_str();
        let prefix = (!prefix.is_empty()).then(|| Key::parse(prefix)).transpose();
        let prefix = prefix.map_err(|error| StorageError::request("list", self.address.clone())(error.into()))?;
        let found = self.runtime.block_on(self.store.list(prefix.as_ref()).try_collect::<Vec<_>>());
        let found = found.map_err(StorageError::request("list", self.address.clone()))?;
        let skipped = if self.address.prefix.is_empty() { 0 } else { self.address.prefix.len() + 1 };
        let object = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().get(skipped..)?.to_owned();
            Some(Object { name, bytes: meta.size })
        };
        let mut objects: Vec<Object> = found.into_iter().filter_map(object).collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// Returns the bytes of a small object; none if it does not exist.
    ///
    /// # Errors
    /// If the request fails, for example because the bucket does not exist.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let key = self.key(name)?;
        let read = self.runtime.block_on(async { self.store.get(&key).await?.bytes().await });
        match read {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(error @ object_store::Error::NotFound { .. }) if !error.to_string().contains("NoSuchBucket") => {
                Ok(None)
            }
            Err(error) => Err(StorageError::request("read", self.address.join(name))(error)),
        }
    }

    /// Downloads `files` into `directory`, several at once. Each is written under a temporary name, checked, and renamed.
    /// `progress` receives the number of bytes of each block that arrives.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] before the first byte; otherwise the first error, after the transfers in progress have ended.
    /// Complete files stay, so that a further call downloads the others.
    pub fn download(
        &self,
        files: &[ExpectedObject],
        directory: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        let needed = files.iter().map(|file| file.bytes).sum::<u64>() + SPACE_MARGIN;
        let free = fs4::available_space(directory).map_err(StorageError::io("read the free space of", directory))?;
        if needed > free {
            return Err(StorageError::NoSpace { directory: directory.to_path_buf(), needed, free });
        }
        for_each_concurrently(files, |object| self.download_one(object, directory, progress))
    }

    fn download_one(
        &self,
        object: &ExpectedObject,
        directory: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        let key = self.key(&object.name)?;
        let target = directory.join(&object.name);
        let folder = target.parent().unwrap_or(directory);
        fs::create_dir_all(folder).map_err(StorageError::io("create", folder))?;
        let partial = partial_path(&target);
        let address = self.address.join(&object.name);
        let failed = || StorageError::request("read", address.clone());

        let differs = |required: String, found: String| {
            let _ = fs::remove_file(&partial);
            let next = "it was changed after it was written: restore it, or write it again";
            StorageError::Object { object: address.clone(), required, found, next }
        };

        let mut file = Sha256Writer::new(File::create(&partial).map_err(StorageError::io("write", &partial))?);
        let (mut version, mut restarted_at) = (None, 0);
        let mut stream = match self.open_at(&key, 0, &mut version) {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(differs(format!("{} bytes", object.bytes), "no such object".to_owned()));
            }
            response => response.map_err(failed())?.into_stream(),
        };
        while let Some(bytes) = self.runtime.block_on(stream.next()) {
            if bytes.is_err() && file.bytes() - restarted_at >= MIN_PROGRESS {
                restarted_at = file.bytes();
                stream = self.open_at(&key, restarted_at, &mut version).map_err(failed())?.into_stream();
                continue;
            }
            let bytes = bytes.map_err(failed())?;
            file.write_all(&bytes).map_err(StorageError::io("write", &partial))?;
            progress(bytes.len() as u64);
        }
        let arrived = file.bytes();
        let (file, sha256) = file.finish();
        file.sync_all().map_err(StorageError::io("sync", &partial))?;
        if arrived != object.bytes {
            return Err(differs(format!("{} bytes", object.bytes), arrived.to_string()));
        }
        if let Some(expected) = object.sha256.as_ref().filter(|expected| **expected != sha256) {
            return Err(differs(format!("sha256 {expected}"), sha256));
        }
        fs::rename(&partial, &target).map_err(StorageError::io("rename", &partial))
    }

    /// Starts to read an object from byte `start`, of `version`, which the first call sets.
    fn open_at(&self, key: &Key, start: u64, version: &mut Option<String>) -> object_store::Result<GetResult> {
        let range = (start > 0).then_some(GetRange::Offset(start));
        let options = GetOptions { range, if_match: version.clone(), ..GetOptions::default() };
        let response = self.runtime.block_on(self.store.get_opts(key, options))?;
        *version = response.meta.e_tag.clone();
        Ok(response)
    }

    /// Uploads the files `names` of `directory`, several at once, replacing objects of the same names. `progress` receives the
    /// number of bytes of each block that is sent.
    ///
    /// # Errors
    /// The first error, after the transfers in progress have ended. An object appears only when all of it has arrived.
    pub fn upload(
        &self,
        directory: &Path,
        names: &[&str],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        for_each_concurrently(names, |name| self.upload_one(&directory.join(name), name, progress))
    }

    fn upload_one(&self, path: &Path, name: &str, progress: &(dyn Fn(u64) + Sync)) -> Result<(), StorageError> {
        let key = self.key(name)?;
        let read = || StorageError::io("read", path);
        let failed = || StorageError::request("write", self.address.join(name));
        let mut file = files::open(path).map_err(read())?;
        let mut part = Vec::new();
        let mut next_part = |part: &mut Vec<u8>| -> Result<bool, StorageError> {
            part.clear();
            (&mut file).take(PART_BYTES as u64).read_to_end(part).map_err(read())?;
            progress(part.len() as u64);
            Ok(part.len() == PART_BYTES)
        };
        if !next_part(&mut part)? {
            let put = self.store.put(&key, PutPayload::from(part));
            return self.runtime.block_on(put).map(drop).map_err(failed());
        }
        let upload = self.runtime.block_on(self.store.put_multipart(&key)).map_err(failed())?;
        let _entered = self.runtime.enter();
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        loop {
            upload.write(&part);
            self.runtime.block_on(upload.wait_for_capacity(CONCURRENT_PARTS)).map_err(failed())?;
            if part.len() < PART_BYTES {
                break;
            }
            next_part(&mut part)?;
        }
        self.runtime.block_on(upload.finish()).map(drop).map_err(failed())
    }

    /// Copies an object to another name within the bucket, without a download.
    ///
    /// # Errors
    /// If the request fails.
    pub fn copy(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let copied = self.runtime.block_on(self.store.copy(&self.key(from)?, &self.key(to)?));
        copied.map_err(StorageError::request("copy", self.address.join(from)))
    }

    /// Removes objects; a missing object is not an error.
    ///
    /// # Errors
    /// If a request fails.
    pub fn remove(&self, names: &[&str]) -> Result<(), StorageError> {
        for_each_concurrently(names, |name| match self.runtime.block_on(self.store.delete(&self.key(name)?)) {
            Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => {
                Err(StorageError::request("remove", self.address.join(name))(error))
            }
            _ => Ok(()),
        })
    }
}

/// Returns whether an endpoint is on this machine, where unencrypted traffic is safe.
fn is_on_this_machine(endpoint: &str) -> bool {
    let host = endpoint.strip_prefix("http://").unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"].contains(&host.rsplit_once(':').map_or(host, |(host, _)| host))
}

/// Runs `work` for every item on a few threads; after an error no further item is started.
fn for_each_concurrently<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), StorageError> + Sync,
) -> Result<(), StorageError> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let worker = || {
        while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Relaxed);
                failed.lock().expect("no thread panics while it holds the lock").get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENT_FILES.min(items.len()) {
            // If the system refuses a thread, this one does the work.
            if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                worker();
            }
        }
    });
    failed.into_inner().expect("no thread panicked while it held the lock").map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_allowed_on_this_machine_only() {
        for endpoint in ["http://127.0.0.1:5000", "http://localhost:9000/", "http://[::1]:80", "http://localhost"] {
            assert!(is_on_this_machine(endpoint), "{endpoint}");
        }
        for endpoint in ["http://127.0.0.1.evil.org", "https://localhost", "http://s3.amazonaws.com", "localhost"] {
            assert!(!is_on_this_machine(endpoint), "{endpoint}");
        }
    }
}
