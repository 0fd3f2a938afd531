//! A prefix in a bucket, and how it is written.

use std::fmt;

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
    /// For a scheme that is not known, a bucket without a name, or a prefix that no object has.
    pub fn parse(text: &str) -> Result<Option<Address>, NotAnAddress> {
        let wrong = |what: &str| NotAnAddress { found: text.to_owned(), what: what.to_owned() };
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

/// Why a text that is no path is no address either.
#[derive(Debug, thiserror::Error)]
#[error("{found:?} is no place: {what}; name a path, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")]
pub struct NotAnAddress {
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
