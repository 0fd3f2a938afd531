//! Installing PJRT plugins: pinned wheels, checked by sha256 and unpacked into the cache directory, where `pjrt` finds them.

pub mod catalog;
pub mod pins;
pub mod wheels;
