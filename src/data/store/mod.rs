//! Prepared data on disk: shards of token ids, the manifest, its verification and its copy in a bucket.

pub mod check;
pub mod documents;
pub mod manifest;
pub mod mapped_file;
pub mod prepared;
pub mod remote;
pub mod shard;
pub mod shard_reader;
