//! The manifest entry of an input file: enough to detect later whether the file has changed.

use serde::{Deserialize, Serialize};

use super::options::ReadCounts;
use crate::settings::is_default;

/// A named group of inputs with a weight in the mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The name, unique among the sources of a preparation.
    pub name: String,
    /// The number of times that each training document is used: 2 is twice, 0.25 is one document in four, 2.5 is twice and
    /// half of the documents a third time.
    pub weight: f64,
}

impl Default for Source {
    /// The source of inputs that are named without one.
    fn default() -> Self {
        Source { name: "text".to_owned(), weight: 1.0 }
    }
}

/// An input file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputEntry {
    /// The path of the file, as given to the preparation.
    pub name: String,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Time of last modification, in nanoseconds since 1970.
    pub modified: u64,
    /// sha256 of the file; empty before it is hashed.
    pub sha256: String,
    /// The source of the input, with its weight.
    #[serde(default, skip_serializing_if = "is_default")]
    pub source: Source,
    /// The counters of reading it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reading: ReadCounts,
    /// Training documents from this input, each counted as often as it is used.
    #[serde(default, skip_serializing_if = "is_default")]
    pub train_documents: u64,
}
