//! Buckets: objects under `s3://` or `gs://` are downloaded, checked and uploaded. All other modules read and write
//! directories; a [`Location`] gives the local directory of a bucket.
//!
//! ```text
//! s3://BUCKET/wiki  ──download, sha256 checked──►  local directory ──►  PreparedData::open, checkpoint::load
//! s3://BUCKET/run   ◄──upload, marker last───────  local directory ◄──  checkpoint::RunDirectory
//! ```
//!
//! A bucket has neither renames nor locks. One object therefore marks complete content; it is written last and removed first
//! (`prepared.json`, `state.json`). The local copy has a lock file of its own ([`LocalCopy`]).
//!
//! Requests are asynchronous within this module only.

mod address;
mod bucket;
mod error;
mod local_copy;
mod location;

pub use address::{Address, InvalidAddress, Provider};
pub use bucket::{Bucket, ExpectedObject, Object};
pub use error::StorageError;
pub use local_copy::LocalCopy;
pub use location::Location;
