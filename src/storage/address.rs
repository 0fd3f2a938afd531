//! The address of a prefix in a bucket: `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.

use std::fmt;

/// The service that stores a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3, or a server with its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
}

impl Provider {
    /// Returns the scheme of its addresses.
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
    /// The provider, given by the scheme.
    pub provider: Provider,
    /// The name of the bucket.
    pub bucket: String,
    /// Without a slash at either end; empty for the whole bucket.
    pub prefix: String,
}

impl Address {
    /// Parses an address; returns none if `text` is a path.
    ///
    /// # Errors
    /// If the scheme is unknown, the bucket has no name, or no object can have the prefix.
    pub fn parse(text: &str) -> Result<Option<Address>, InvalidAddress> {
        let wrong = |what: &str| InvalidAddress { found: text.to_owned(), what: what.to_owned() };
        let Some((scheme, rest)) = text.split_once("://") else {
            return match ["s3:", "gs:"].iter().any(|scheme| text.starts_with(scheme)) {
                true => Err(wrong("two slashes must follow the scheme")),
                false => Ok(None),
            };
        };
        let provider = [Provider::S3, Provider::Gcs].into_iter().find(|provider| provider.scheme() == scheme);
        let provider = provider.ok_or_else(|| wrong(&format!("the scheme {scheme}:// is unknown")))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() {
            return Err(wrong("it names no bucket"));
        }
        if !prefix.is_empty() && prefix.split('/').any(|part| ["", ".", ".."].contains(&part)) {
            return Err(wrong("a bucket has no empty part, `.` or `..` in its names"));
        }
        if text.contains(|c: char| c.is_ascii_control()) {
            return Err(wrong("it holds a control character"));
        }
        Ok(Some(Address { provider, bucket: bucket.to_owned(), prefix: prefix.to_owned() }))
    }

    /// Returns the address of `name` below this one.
    pub fn join(&self, name: &str) -> Address {
        let prefix = if self.prefix.is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Address { prefix, ..self.clone() }
    }

    /// Returns the address whose prefix has this suffix in addition.
    pub fn beside(&self, suffix: &str) -> Address {
        Address { prefix: format!("{}{suffix}", self.prefix), ..self.clone() }
    }

    /// Returns the last part of the prefix.
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

/// An address that is not valid, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{found:?} is not a valid location: {what}; requires a path, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")]
pub struct InvalidAddress {
    found: String,
    what: String,
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
}
