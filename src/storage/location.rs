//! What a user may name as a place: a directory, or a prefix in a bucket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::StorageError;
use crate::cache;

/// Who keeps a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3, or a server that speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
}

impl Provider {
    /// The scheme of its addresses.
    pub const fn scheme(self) -> &'static str {
        match self {
            Provider::S3 => "s3",
            Provider::Gcs => "gs",
        }
    }
}

/// `s3://BUCKET/PREFIX`: the objects whose names begin with `PREFIX/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub provider: Provider,
    pub bucket: String,
    /// Without a slash at either end; empty for the whole bucket.
    pub prefix: String,
}

impl Address {
    /// Reads an address; none if `text` is a path.
    ///
    /// # Errors
    /// [`StorageError::Address`] for a scheme that is not known, a bucket without a name, or a prefix that no object has.
    pub fn parse(text: &str) -> Result<Option<Address>, StorageError> {
        let wrong = |what: &str| StorageError::Address { found: text.to_owned(), what: what.to_owned() };
        let Some((scheme, rest)) = text.split_once("://") else {
            return match ["s3:", "gs:"].iter().any(|scheme| text.starts_with(scheme)) {
                true => Err(wrong("the scheme of an address is followed by two slashes")),
                false => Ok(None),
            };
        };
        let provider = [Provider::S3, Provider::Gcs].into_iter().find(|provider| provider.scheme() == scheme);
        let provider = provider.ok_or_else(|| wrong(&format!("{scheme}:// is not known")))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() {
            return Err(wrong("it names no bucket"));
        }
        if !prefix.is_empty() && prefix.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(wrong("an empty part, `.` and `..` mean nothing in a bucket"));
        }
        if text.contains(|c: char| c.is_ascii_control()) {
            return Err(wrong("it holds a control character"));
        }
        Ok(Some(Address { provider, bucket: bucket.to_owned(), prefix: prefix.to_owned() }))
    }

    /// The address of `name` below this one.
    pub fn join(&self, name: &str) -> Address {
        let prefix = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Address { prefix, ..self.clone() }
    }

    /// The last part of the prefix.
    pub fn name(&self) -> &str {
        self.prefix.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// A directory, or an address and the directory that holds its copy here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location {
    address: Option<Address>,
    local: PathBuf,
}

impl Location {
    /// The directory on this machine: the place itself, or the copy of what is in the bucket.
    pub fn local(&self) -> &Path {
        &self.local
    }

    /// The place in a bucket, if it is one.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// The same place, with its copy in `cache`, if one is named. A directory needs no copy: there `cache` must be none.
    ///
    /// # Errors
    /// [`StorageError::Cache`].
    pub fn cached_in(self, cache: Option<&Path>) -> Result<Location, StorageError> {
        match (cache, &self.address) {
            (None, _) => Ok(self),
            (Some(cache), Some(_)) => Ok(Location { local: cache.to_path_buf(), ..self }),
            (Some(cache), None) => Err(StorageError::Cache { cache: cache.to_path_buf(), place: self.local }),
        }
    }
}

impl FromStr for Location {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Location, StorageError> {
        let address = Address::parse(text)?;
        let local = match &address {
            None => PathBuf::from(text),
            // Unless someone says otherwise with [`Location::cached_in`].
            Some(address) => cache::directory()
                .ok_or_else(|| StorageError::NoCache { address: address.clone() })?
                .join("buckets")
                .join(address.provider.scheme())
                .join(copy_name(address)),
        };
        Ok(Location { address, local })
    }
}

/// One directory for each address: the copy of a prefix does not lie within that of a shorter one.
fn copy_name(address: &Address) -> String {
    let Address { bucket, prefix, .. } = address;
    let place = if prefix.is_empty() { bucket.clone() } else { format!("{bucket}/{prefix}") };
    place.replace('%', "%25").replace('/', "%2F")
}

impl TryFrom<String> for Location {
    type Error = StorageError;

    fn try_from(text: String) -> Result<Location, StorageError> {
        text.parse()
    }
}

impl From<Location> for String {
    fn from(location: Location) -> String {
        location.to_string()
    }
}

impl From<PathBuf> for Location {
    fn from(local: PathBuf) -> Location {
        Location { address: None, local }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => address.fmt(f),
            None => self.local.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_bucket_and_a_prefix() {
        let parse = |text: &str| Address::parse(text).unwrap();
        let wiki = parse("s3://corpora/bert/wiki/").unwrap();
        assert_eq!((wiki.provider, wiki.bucket.as_str(), wiki.prefix.as_str()), (Provider::S3, "corpora", "bert/wiki"));
        assert_eq!(wiki.join("prepared.json").to_string(), "s3://corpora/bert/wiki/prepared.json");
        assert_eq!(wiki.name(), "wiki");
        let whole = parse("gs://runs").unwrap();
        assert_eq!(
            (whole.provider, whole.prefix.as_str(), whole.to_string().as_str()),
            (Provider::Gcs, "", "gs://runs")
        );
        assert_eq!(whole.join("step").to_string(), "gs://runs/step");
        for path in ["data/wiki", "/data", "a:b", "."] {
            assert_eq!(parse(path), None);
        }
    }

    #[test]
    fn a_wrong_address_is_answered_with_the_forms_there_are() {
        for (text, what) in [
            ("hdfs://a/b", "hdfs:// is not known"),
            ("s3:///wiki", "names no bucket"),
            ("s3:/bucket/wiki", "two slashes"),
            ("gs://bucket//wiki", "an empty part"),
            ("gs://bucket/../wiki", "`..`"),
            ("s3://bucket/wi\nki", "a control character"),
        ] {
            let error = text.parse::<Location>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is no place: ")), "{error}");
            assert!(error.contains(what) && error.contains("s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"), "{error}");
        }
    }

    #[test]
    fn a_place_in_a_bucket_has_a_directory_here() {
        let run: Location = "gs://runs/large".parse().unwrap();
        assert!(run.local().ends_with("lambert/buckets/gs/runs%2Flarge"), "{:?}", run.local());
        assert_eq!(run.to_string(), "gs://runs/large");
        let elsewhere = run.cached_in(Some(Path::new("/scratch/large"))).unwrap();
        assert_eq!(
            (elsewhere.local(), elsewhere.to_string().as_str()),
            (Path::new("/scratch/large"), "gs://runs/large")
        );

        let directory: Location = "runs/large".parse().unwrap();
        assert_eq!((directory.local(), directory.address()), (Path::new("runs/large"), None));
        assert!(directory.cached_in(Some(Path::new("x"))).unwrap_err().to_string().contains("runs/large"));
    }
}
