//! Fetching PJRT plugins: pinned wheels, checked by sha256 and unpacked into the cache directory.

pub mod pins;
pub mod wheels;
