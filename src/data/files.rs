//! File names of a prepared directory, and the sha256 of a file with the errors of this module.

use std::path::Path;

use super::error::{DataError, Result};
use crate::digest;
use crate::files;

/// File name of the manifest.
pub const MANIFEST: &str = "prepared.json";

/// Directory of the tokenizer's copy, within a prepared directory.
pub const TOKENIZER_DIRECTORY: &str = "tokenizer";

/// Returns the sha256 of a file in hexadecimal. Calls `progress` with the size of every block read, in bytes.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256_of_file(path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<String> {
    let file = files::open(path).map_err(DataError::io("open", path))?;
    digest::sha256_of_reader(file, progress).map_err(DataError::io("read", path))
}
