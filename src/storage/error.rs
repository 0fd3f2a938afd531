//! The errors of buckets and their local copies. Each message names the object or file, what was found, and what to do next.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use object_store::Error as ServerError;

use super::address::{Address, InvalidAddress, Provider};
use crate::units::byte_size;

/// An error of a download, an upload or a local copy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message of each variant explains it and its fields")]
pub enum StorageError {
    #[error(transparent)]
    Address(#[from] InvalidAddress),

    #[error("{} is a local directory and takes no cache, found {}; remove the cache, or name a bucket", directory.display(), cache.display())]
    Cache { cache: PathBuf, directory: PathBuf },

    #[error(
        "{address} requires a cache directory for its copy, found neither XDG_CACHE_HOME nor HOME; set one of them"
    )]
    NoCache { address: Address },

    #[error("{} is not a copy of {address}; choose another cache directory, or move this one", path.display())]
    NotACopy { path: PathBuf, address: Address },

    #[error("cannot {action} {object}: {what}; {next}")]
    Request { action: &'static str, object: Address, what: String, next: String },

    #[error("{object} requires {required}, found {found}; {next}")]
    Object { object: Address, required: String, found: String, next: &'static str },

    // Not named `source`: the message states the cause, and an error chain would state it again.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },

    #[error("{} requires {} of free space for the copy, found {}; free some space, or choose another cache directory", directory.display(), byte_size(*needed as f64), byte_size(*free as f64))]
    NoSpace { directory: PathBuf, needed: u64, free: u64 },
}

impl StorageError {
    /// Returns a function for `map_err` that adds the action and the path to an input or output error.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
        let path = path.to_path_buf();
        move |cause| StorageError::Io { action, path, cause }
    }

    /// Returns a function for `map_err` that explains a failed request for `object` and adds what to do next.
    pub(super) fn request(action: &'static str, object: Address) -> impl FnOnce(ServerError) -> StorageError {
        move |error| {
            let (what, next) = explain(&error, &object);
            StorageError::Request { action, object, what, next }
        }
    }

    /// Returns the error for an invalid setting in the environment.
    pub(super) fn setting(object: &Address, error: &ServerError) -> StorageError {
        let (what, next) = (chain(error), credentials(object).to_owned());
        StorageError::Request { action: "open", object: object.clone(), what, next }
    }
}

/// Returns a short reason for a server's error, and what to do next.
fn explain(error: &ServerError, object: &Address) -> (String, String) {
    let reason = chain(error);
    let text = format!("{error} {reason}");
    let mentions = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // Without credentials, object_store asks the metadata server of a cloud machine, which other machines do not have.
    let no_credentials = mentions(&["/latest/api/token", "/latest/meta-data/", "/computeMetadata/", "token request"]);
    let denied = matches!(error, ServerError::Unauthenticated { .. } | ServerError::PermissionDenied { .. });
    if mentions(&["NoSuchBucket", "specified bucket does not exist"]) {
        let next = format!("create it, or correct the name {:?}", object.bucket);
        return ("the bucket does not exist".to_owned(), next);
    }
    if matches!(error, ServerError::NotFound { .. }) {
        return ("the object does not exist".to_owned(), "correct the address, or upload it".to_owned());
    }
    if matches!(error, ServerError::Precondition { .. }) {
        let what = "the object was replaced while it was read".to_owned();
        return (what, "wait until no other process writes it, then try again".to_owned());
    }
    if denied {
        return (format!("access is denied ({reason})"), format!("request access to it, or {}", credentials(object)));
    }
    if no_credentials {
        return (format!("no credentials were found ({reason})"), credentials(object).to_owned());
    }
    if mentions(&["scheme is not allowed"]) {
        let next = "use an https:// endpoint, or set AWS_ALLOW_HTTP=true on a trusted network";
        return ("the endpoint is unencrypted (http://) and on another machine".to_owned(), next.to_owned());
    }
    // A region answers only for its own buckets.
    if mentions(&["redirect", "301 Moved", "400 Bad Request"]) {
        return (reason, format!("correct {}", endpoint(object)));
    }
    if mentions(&["client error (Connect)"]) {
        return (reason, format!("correct {}, or try again later; local files are kept", endpoint(object)));
    }
    (reason, "try again later; local files are kept".to_owned())
}

/// Returns the settings that locate a bucket.
fn endpoint(object: &Address) -> &'static str {
    match object.provider {
        Provider::S3 => "AWS_REGION and AWS_ENDPOINT_URL",
        Provider::Gcs => "STORAGE_EMULATOR_HOST if it is set, and the bucket's name",
    }
}

/// Returns how to set credentials.
fn credentials(object: &Address) -> &'static str {
    match object.provider {
        Provider::S3 => {
            "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION (and AWS_ENDPOINT_URL for another server), or \
             AWS_SKIP_SIGNATURE=true for a public bucket; profiles in ~/.aws are not read"
        }
        Provider::Gcs => {
            "name a key file in GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`, or set \
             GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
    }
}

/// Joins the causes of an error; the innermost ones hold the reason.
fn chain(error: &ServerError) -> String {
    let mut causes = Vec::new();
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    // Most causes repeat the one below them.
    let outer: Vec<String> = causes
        .iter()
        .enumerate()
        .filter(|(i, text)| causes.get(i + 1).is_none_or(|below| !text.contains(below.as_str())))
        .map(|(_, text)| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    if outer.is_empty() { error.to_string() } else { outer.join(": ") }
}
