//! A location that a user may name: a directory, or a prefix in a bucket.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::error::StorageError;
use crate::cache;

/// A directory, or an address with the directory of its local copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Location {
    address: Option<Address>,
    local: PathBuf,
}

impl Location {
    /// Returns the local directory: the location itself, or the copy of the bucket's objects.
    pub fn local(&self) -> &Path {
        &self.local
    }

    /// Returns the address, if the location is in a bucket.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Returns the location of `name` below this one.
    #[must_use]
    pub fn join(&self, name: &str) -> Location {
        Location { address: self.address.as_ref().map(|address| address.join(name)), local: self.local.join(name) }
    }

    /// Returns the location with its copy in `cache`, if that is given. A directory has no copy, so it takes no cache.
    ///
    /// # Errors
    /// [`StorageError::Cache`] for a directory with a cache.
    pub fn cached_in(self, cache: Option<&Path>) -> Result<Location, StorageError> {
        match (cache, &self.address) {
            (None, _) => Ok(self),
            (Some(cache), Some(_)) => Ok(Location { local: cache.to_path_buf(), ..self }),
            (Some(cache), None) => Err(StorageError::Cache { cache: cache.to_path_buf(), directory: self.local }),
        }
    }
}

impl FromStr for Location {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Location, StorageError> {
        let address = Address::parse(text)?;
        let local = match &address {
            None => PathBuf::from(text),
            // The default, which [`Location::cached_in`] replaces.
            Some(address) => cache::directory()
                .ok_or_else(|| StorageError::NoCache { address: address.clone() })?
                .join("buckets")
                .join(address.provider.scheme())
                .join(copy_name(address)),
        };
        Ok(Location { address, local })
    }
}

/// Returns the name of an address's copy. No copy lies within the copy of a shorter prefix.
fn copy_name(address: &Address) -> String {
    let Address { bucket, prefix, .. } = address;
    let path = if prefix.is_empty() { bucket.clone() } else { format!("{bucket}/{prefix}") };
    path.replace('%', "%25").replace('/', "%2F")
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
    fn an_invalid_address_is_reported_with_the_valid_forms() {
        for (text, reason) in [
            ("hdfs://a/b", "the scheme hdfs:// is unknown"),
            ("s3:///wiki", "names no bucket"),
            ("s3:/bucket/wiki", "two slashes"),
            ("gs://bucket//wiki", "no empty part"),
            ("gs://bucket/../wiki", "`..`"),
            ("s3://bucket/wi\nki", "a control character"),
        ] {
            let error = text.parse::<Location>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a valid location: ")), "{error}");
            assert!(error.contains(reason) && error.contains("s3://BUCKET/PREFIX or gs://BUCKET/PREFIX"), "{error}");
        }
    }

    #[test]
    fn a_location_in_a_bucket_has_a_local_directory() {
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
