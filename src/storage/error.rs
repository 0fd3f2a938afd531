//! What can be wrong with a bucket and its copy here: each sentence names the object or the file, what was found, and the
//! next move.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use object_store::Error as Refusal;

use super::address::{Address, NotAnAddress, Provider};

/// Why something was not brought here, or not sent.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error(transparent)]
    Address(#[from] NotAnAddress),

    #[error("{place} is on this machine and needs no copy in {cache}; leave the cache out, or name a bucket", place = place.display(), cache = cache.display())]
    Cache { cache: PathBuf, place: PathBuf },

    #[error("{address} requires a directory for its copy, found neither XDG_CACHE_HOME nor a home; set one of them")]
    NoCache { address: Address },

    #[error("{} is there and is not a copy of {address}; name another directory as its cache, or move this one away", path.display())]
    NotACopy { path: PathBuf, address: Address },

    #[error("cannot {action} {object}: {what}; {next}")]
    Request { action: &'static str, object: Address, what: String, next: String },

    #[error("{object} requires {required}, found {found}; {next}")]
    Object { object: Address, required: String, found: String, next: &'static str },

    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("no space in {}: the copy requires {needed} bytes, {free} are free; make room, or name another cache", directory.display())]
    NoSpace { directory: PathBuf, needed: u64, free: u64 },
}

impl StorageError {
    /// An input or output error with the verb and the path that the operating system does not say.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.to_path_buf();
        move |source| StorageError::Io { action, path, source }
    }

    /// What a server, or the way to it, said of a request about `object`, and what a user can do.
    pub(super) fn request(action: &'static str, object: Address) -> impl FnOnce(Refusal) -> StorageError {
        move |refusal| {
            let (what, next) = explain(&refusal, &object);
            StorageError::Request { action, object, what, next }
        }
    }

    /// What in the environment is no setting of a bucket.
    pub(super) fn setting(object: &Address, refusal: &Refusal) -> StorageError {
        let (what, next) = (chain(refusal), credentials(object).to_owned());
        StorageError::Request { action: "ask for", object: object.clone(), what, next }
    }
}

/// What the server said, in a few words, and the next move.
fn explain(refusal: &Refusal, object: &Address) -> (String, String) {
    let said = chain(refusal);
    let all_of_it = format!("{refusal} {said}");
    let says = |words: &[&str]| words.iter().any(|word| all_of_it.contains(word));
    // Without any, the metadata server of a rented machine is asked, and on other machines nobody answers.
    let no_credentials = says(&["/latest/api/token", "/latest/meta-data/", "/computeMetadata/", "token request"]);
    let refused = matches!(refusal, Refusal::Unauthenticated { .. } | Refusal::PermissionDenied { .. });
    if says(&["NoSuchBucket", "specified bucket does not exist"]) {
        let next = format!("create it, or correct the name {:?}", object.bucket);
        return ("the bucket does not exist".to_owned(), next);
    }
    if matches!(refusal, Refusal::NotFound { .. }) {
        return ("there is no such object".to_owned(), "correct the address, or put it there".to_owned());
    }
    if matches!(refusal, Refusal::Precondition { .. }) {
        let what = "it was replaced while it was read".to_owned();
        return (what, "wait until nobody writes there, then try again".to_owned());
    }
    if refused {
        return (format!("access is refused ({said})"), format!("ask for the right to it, or {}", credentials(object)));
    }
    if no_credentials {
        return (format!("no credentials were found ({said})"), credentials(object).to_owned());
    }
    if says(&["scheme is not allowed"]) {
        let next = "name an endpoint at https://, or set AWS_ALLOW_HTTP=true if nobody can listen in";
        return ("its endpoint is at http:// on another machine".to_owned(), next.to_owned());
    }
    // Regions answer for buckets of their own.
    if says(&["redirect", "301 Moved", "400 Bad Request"]) {
        return (said, format!("correct {}", endpoint(object)));
    }
    if says(&["client error (Connect)"]) {
        return (said, format!("correct {}, or try again later; what is here is kept", endpoint(object)));
    }
    (said, "try again later; what is here is kept".to_owned())
}

/// What says where a bucket is.
fn endpoint(object: &Address) -> &'static str {
    match object.provider {
        Provider::S3 => "AWS_REGION and AWS_ENDPOINT_URL",
        Provider::Gcs => "STORAGE_EMULATOR_HOST if it is set, and the bucket's name",
    }
}

/// How credentials are given.
fn credentials(object: &Address) -> &'static str {
    match object.provider {
        Provider::S3 => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (and AWS_ENDPOINT_URL for a server of one's own), or \
             AWS_SKIP_SIGNATURE=true for a public bucket; profiles in ~/.aws are not read"
        }
        Provider::Gcs => {
            "name a key file in GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`, or set \
             GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
    }
}

/// The innermost causes say what happened; the outer ones only where.
fn chain(refusal: &Refusal) -> String {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn Error> = refusal.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    // Most repeat the one below them.
    let outer: Vec<String> = causes
        .iter()
        .enumerate()
        .filter(|(i, text)| causes.get(i + 1).is_none_or(|below| !text.contains(below.as_str())))
        .map(|(_, text)| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if outer.is_empty() { refusal.to_string() } else { outer.join(": ") }
}
