//! The record of an input file in a manifest: enough to tell later whether the file has changed.

use serde::{Deserialize, Serialize};

use super::input::Source;
use super::options::ReadCounts;

/// An input file as it was when it was prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputEntry {
    pub name: String,
    pub bytes: u64,
    /// Nanoseconds since 1970 of the last modification.
    pub modified: u64,
    pub sha256: String,
    /// The source that it belongs to, with its weight.
    #[serde(default, skip_serializing_if = "is_default")]
    pub source: Source,
    /// What was met while reading it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reading: ReadCounts,
    /// Documents of it to train on, each as often as it was taken.
    #[serde(default, skip_serializing_if = "is_default")]
    pub train_documents: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
