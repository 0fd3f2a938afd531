//! The lines of a `metrics.jsonl`.

use std::io::{BufRead, BufReader, ErrorKind};
use std::path::Path;

use anyhow::Context;
use serde::de::DeserializeOwned;

use crate::checkpoint::METRICS_FILE;
use crate::files;

/// Calls `add` with each line of the `metrics.jsonl` of the run directory `run` that is a `T`, and skips others, such as a line that a
/// crash cut off. Returns whether the file exists.
///
/// # Errors
/// If the file cannot be read.
pub fn for_each_line<T: DeserializeOwned>(run: &Path, mut add: impl FnMut(T)) -> anyhow::Result<bool> {
    let path = run.join(METRICS_FILE);
    let failed = || format!("cannot read {}", path.display());
    let file = match files::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.with_context(failed)?,
    };
    for line in BufReader::new(file).split(b'\n') {
        if let Ok(line) = serde_json::from_slice(&line.with_context(failed)?) {
            add(line);
        }
    }
    Ok(true)
}
