//! Buckets: what lies under `s3://` or `gs://` is brought here, checked, and sent back. Every other room reads and writes
//! directories; a [`Location`] says which directory stands for which bucket.
//!
//! ```text
//! s3://BUCKET/wiki  ──download, sha256 checked──►  directory here  ──►  PreparedData::open, checkpoint::load
//! s3://BUCKET/run   ◄──upload, marker last──────  directory here  ◄──  checkpoint::save
//! ```
//!
//! A bucket has neither renames nor locks. What is whole is therefore said by one object, which is written last and
//! removed first (`prepared.json`, `state.json`); the copy here is guarded by a file of its own ([`LocalCopy`]).
//!
//! Requests are asynchronous inside this room and nowhere else.

mod address;
mod bucket;
mod error;
mod local_copy;
mod location;

pub use address::{Address, NotAnAddress, Provider};
pub use bucket::{Bucket, Object, Wanted};
pub use error::StorageError;
pub use local_copy::LocalCopy;
pub use location::Location;
