//! Options that several verbs share.

pub mod device;
pub mod host;
pub mod pooling;
pub mod precision;
pub mod prediction;
pub mod probe;
pub mod read;
pub mod shell;
pub mod training;
pub mod weights;
