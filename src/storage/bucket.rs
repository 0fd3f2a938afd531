//! The objects under one address: listed, read, written, removed. Calls block; several files go at once.
//!
//! A request that fails for a passing reason (no answer, a server that is busy) is repeated with growing pauses, and a
//! stream that breaks is taken up where it broke, by `object_store` itself: several times, within minutes. What this module
//! adds is that large objects may take hours and break off again and again, as long as they get ahead, and that a file
//! appears here under its own name only when it is whole and its sha256 is the one that was promised.

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
use crate::files::partial_path;

/// Files on their way at once: one stream alone fills no fast network.
const AT_ONCE: usize = 8;
/// Bytes of a part of a large upload; S3 takes ten thousand parts, so files up to 160 GB.
const PART: usize = 16 << 20;
/// Parts of one file on their way at once.
const PARTS_AT_ONCE: usize = 4;
/// Repetitions of a request: with [`PAUSES`], a server that answers nothing or that it is busy is asked for 11 to 22 s.
const RETRIES: usize = 9;
/// A pause is drawn between the first and thrice the one before, and is at most three seconds.
const PAUSES: BackoffConfig =
    BackoffConfig { init_backoff: Duration::from_millis(500), max_backoff: Duration::from_secs(3), base: 3.0 };
/// How long a server may be silent, and how long all of an answer may take. `object_store` would give both together 30 s: a
/// checkpoint of gigabytes takes longer on most networks. A part of an upload is answered when all of it is there.
const PATIENCE: [(ClientConfigKey, &str); 2] =
    [(ClientConfigKey::ReadTimeout, "120 seconds"), (ClientConfigKey::Timeout, "1 day")];
/// Bytes that a stream must have brought since it was last begun anew to be begun once more.
const PROGRESS: u64 = 1 << 16;
/// Room for directories and the file system's own records, beside the bytes of files.
const MARGIN: u64 = 1 << 20;

/// An object, by its name below the bucket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub name: String,
    pub bytes: u64,
}

/// An object that is to be brought here, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub bytes: u64,
    /// None for a file that nothing vouches for but the file that lists it.
    pub sha256: Option<String>,
}

/// The objects whose names begin with an address.
#[derive(Debug)]
pub struct Bucket {
    address: Address,
    store: Box<dyn ObjectStore>,
    runtime: Runtime,
}

impl Bucket {
    /// Gets ready to ask for what is under `address`. Credentials and endpoints come from the environment, by the names
    /// that Amazon's and Google's own tools use; unencrypted HTTP is spoken with an endpoint on this machine only, unless
    /// AWS_ALLOW_HTTP says otherwise.
    ///
    /// # Errors
    /// If the environment holds something that is no setting. No request is made.
    pub fn open(address: &Address) -> Result<Bucket, StorageError> {
        crate::tls::use_ring();
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: Duration::from_secs(180), backoff: PAUSES };
        let store: Result<Box<dyn ObjectStore>, object_store::Error> = match address.provider {
            Provider::S3 => {
                let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
                let endpoint = endpoint.iter().find_map(|name| std::env::var(name).ok());
                let mut builder = AmazonS3Builder::from_env().with_bucket_name(&address.bucket).with_retry(retry);
                for (key, value) in PATIENCE {
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
                for (key, value) in PATIENCE {
                    builder = builder.with_config(GoogleConfigKey::Client(key), value);
                }
                // What Google's own libraries read: the address of a server that checks no credentials.
                let emulator = std::env::var("STORAGE_EMULATOR_HOST").ok().filter(|host| is_on_this_machine(host));
                if let Some(emulator) = emulator {
                    let nobody = StaticCredentialProvider::new(GcpCredential { bearer: "nobody".to_owned() });
                    let http = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
                    builder = builder.with_base_url(&emulator).with_config(http, "true");
                    builder = builder.with_credentials(Arc::new(nobody));
                }
                builder.build().map(|store| Box::new(store) as _)
            }
        };
        let store = store.map_err(|refusal| StorageError::setting(address, &refusal))?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(StorageError::io("start threads for", Path::new(&address.to_string())))?;
        Ok(Bucket { address: address.clone(), store, runtime })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The key of `name` below the address, as it is written: `Key::from` would write some characters otherwise.
    ///
    /// # Errors
    /// If no key is written so. What a bucket lists is checked here too, before it becomes a path on this machine: it may not
    /// lead out of a directory.
    fn key(&self, name: &str) -> Result<Key, StorageError> {
        let object = self.address.join(name);
        let key = Key::parse(&object.prefix).ok().filter(|key| key.as_ref() == object.prefix);
        key.ok_or_else(|| StorageError::Object {
            object,
            required: "a name of parts between single slashes".to_owned(),
            found: format!("{name:?}"),
            next: "correct the name, or whatever lists it",
        })
    }

    /// All objects below the address, in the order of their names.
    ///
    /// # Errors
    /// What the server says; a bucket that does not exist is one.
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

    /// The bytes of a small object; none if it does not exist.
    ///
    /// # Errors
    /// What the server says; a bucket that does not exist is one.
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

    /// Brings `files` into `directory`, several at once, each whole or not at all: it is written beside its name, held
    /// against what was promised, and renamed. `progress` hears of the bytes that arrive.
    ///
    /// # Errors
    /// [`StorageError::NoSpace`] before the first byte; otherwise the first error, when the files under way have ended.
    /// What is whole by then stays, and is not needed again.
    pub fn download(
        &self,
        files: &[Wanted],
        directory: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        let needed = files.iter().map(|file| file.bytes).sum::<u64>() + MARGIN;
        let free = fs4::available_space(directory).map_err(StorageError::io("ask for the free space of", directory))?;
        if needed > free {
            return Err(StorageError::NoSpace { directory: directory.to_path_buf(), needed, free });
        }
        several_at_once(files, |wanted| self.download_one(wanted, directory, progress))
    }

    fn download_one(
        &self,
        wanted: &Wanted,
        directory: &Path,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        let key = self.key(&wanted.name)?;
        let target = directory.join(&wanted.name);
        let folder = target.parent().unwrap_or(directory);
        fs::create_dir_all(folder).map_err(StorageError::io("create", folder))?;
        let partial = partial_path(&target);
        let object = self.address.join(&wanted.name);
        let refused = || StorageError::request("read", object.clone());

        let differs = |required: String, found: String| {
            let _ = fs::remove_file(&partial);
            let next = "it was changed after it was written: put the right one back, or write it again";
            StorageError::Object { object: object.clone(), required, found, next }
        };

        let mut file = Sha256Writer::new(File::create(&partial).map_err(StorageError::io("write", &partial))?);
        let (mut version, mut begun_at) = (None, 0);
        let mut stream = match self.open_at(&key, 0, &mut version) {
            Err(object_store::Error::NotFound { .. }) => {
                return Err(differs(format!("{} bytes", wanted.bytes), "no such object".to_owned()));
            }
            answer => answer.map_err(refused())?.into_stream(),
        };
        while let Some(bytes) = self.runtime.block_on(stream.next()) {
            if bytes.is_err() && file.bytes() - begun_at >= PROGRESS {
                begun_at = file.bytes();
                stream = self.open_at(&key, begun_at, &mut version).map_err(refused())?.into_stream();
                continue;
            }
            let bytes = bytes.map_err(refused())?;
            file.write_all(&bytes).map_err(StorageError::io("write", &partial))?;
            progress(bytes.len() as u64);
        }
        let arrived = file.bytes();
        let (file, sha256) = file.finish();
        file.sync_all().map_err(StorageError::io("sync", &partial))?;
        if arrived != wanted.bytes {
            return Err(differs(format!("{} bytes", wanted.bytes), arrived.to_string()));
        }
        if let Some(promised) = wanted.sha256.as_ref().filter(|promised| **promised != sha256) {
            return Err(differs(format!("sha256 {promised}"), sha256));
        }
        fs::rename(&partial, &target).map_err(StorageError::io("rename", &partial))
    }

    /// Begins to read an object from byte `start` on: of `version`, which is set if it is not known yet.
    fn open_at(&self, key: &Key, start: u64, version: &mut Option<String>) -> object_store::Result<GetResult> {
        let range = (start > 0).then_some(GetRange::Offset(start));
        let options = GetOptions { range, if_match: version.clone(), ..GetOptions::default() };
        let answer = self.runtime.block_on(self.store.get_opts(key, options))?;
        *version = answer.meta.e_tag.clone();
        Ok(answer)
    }

    /// Sends the files `names` of `directory`, several at once; what has such a name in the bucket is replaced.
    /// `progress` hears of the bytes that leave.
    ///
    /// # Errors
    /// The first error, when the files under way have ended. An object appears only when all of it has arrived.
    pub fn upload(
        &self,
        directory: &Path,
        names: &[&str],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), StorageError> {
        several_at_once(names, |name| self.upload_one(&directory.join(name), name, progress))
    }

    fn upload_one(&self, path: &Path, name: &str, progress: &(dyn Fn(u64) + Sync)) -> Result<(), StorageError> {
        let key = self.key(name)?;
        let read = || StorageError::io("read", path);
        let refused = || StorageError::request("write", self.address.join(name));
        let mut file = File::open(path).map_err(read())?;
        let mut part = Vec::new();
        let mut next_part = |part: &mut Vec<u8>| -> Result<bool, StorageError> {
            part.clear();
            (&mut file).take(PART as u64).read_to_end(part).map_err(read())?;
            progress(part.len() as u64);
            Ok(part.len() == PART)
        };
        if !next_part(&mut part)? {
            let put = self.store.put(&key, PutPayload::from(part));
            return self.runtime.block_on(put).map(drop).map_err(refused());
        }
        let upload = self.runtime.block_on(self.store.put_multipart(&key)).map_err(refused())?;
        let _entered = self.runtime.enter();
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
        loop {
            upload.write(&part);
            self.runtime.block_on(upload.wait_for_capacity(PARTS_AT_ONCE)).map_err(refused())?;
            if part.len() < PART {
                break;
            }
            next_part(&mut part)?;
        }
        self.runtime.block_on(upload.finish()).map(drop).map_err(refused())
    }

    /// Copies an object to another name, without its bytes passing through here.
    ///
    /// # Errors
    /// What the server says.
    pub fn copy(&self, from: &str, to: &str) -> Result<(), StorageError> {
        let copied = self.runtime.block_on(self.store.copy(&self.key(from)?, &self.key(to)?));
        copied.map_err(StorageError::request("copy", self.address.join(from)))
    }

    /// Removes objects; one that is not there is none too many.
    ///
    /// # Errors
    /// What the server says.
    pub fn remove(&self, names: &[&str]) -> Result<(), StorageError> {
        several_at_once(names, |name| match self.runtime.block_on(self.store.delete(&self.key(name)?)) {
            Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => {
                Err(StorageError::request("remove", self.address.join(name))(error))
            }
            _ => Ok(()),
        })
    }
}

/// Whether a server's address is one that no other machine can listen in on.
fn is_on_this_machine(endpoint: &str) -> bool {
    let host = endpoint.strip_prefix("http://").unwrap_or_default();
    let host = host.split('/').next().unwrap_or_default();
    ["127.0.0.1", "localhost", "[::1]"].contains(&host.rsplit_once(':').map_or(host, |(host, _)| host))
}

/// Does `work` on every item, on a few threads; after an error no further item is begun.
fn several_at_once<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), StorageError> + Sync,
) -> Result<(), StorageError> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                    if let Err(error) = work(item) {
                        next.store(items.len(), Relaxed);
                        failed.lock().expect("no thread panics while it holds the lock").get_or_insert(error);
                    }
                }
            });
        }
    });
    failed.into_inner().expect("no thread panicked while it held the lock").map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for endpoint in ["http://127.0.0.1:5000", "http://localhost:9000/", "http://[::1]:80", "http://localhost"] {
            assert!(is_on_this_machine(endpoint), "{endpoint}");
        }
        for endpoint in ["http://127.0.0.1.evil.org", "https://localhost", "http://s3.amazonaws.com", "localhost"] {
            assert!(!is_on_this_machine(endpoint), "{endpoint}");
        }
    }
}
