//! Options that several verbs share.

pub mod device;
pub mod host;
pub mod precision;
pub mod read;
pub mod shell;
