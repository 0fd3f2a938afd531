//! Options that several verbs share.

pub mod buckets;
pub mod device;
pub mod host;
pub mod read;
