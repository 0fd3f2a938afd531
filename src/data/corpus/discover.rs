//! Finds the input files that paths, directories and glob patterns name.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::input::{Input, NameHints};
use crate::data::error::{DataError, Result};
use crate::data::files::MANIFEST;

/// The input files that were found, and the files that were skipped.
#[derive(Debug, Default)]
pub struct FoundInputs {
    /// The input files, in order.
    pub inputs: Vec<Input>,
    /// Files and directories in the named directories or patterns that are never training text.
    pub skipped: Vec<SkippedPath>,
}

/// A file or directory that was skipped, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedPath {
    /// The skipped file or directory.
    pub path: PathBuf,
    /// The kind of file, such as "prepared data".
    pub reason: &'static str,
}

/// The accepted file names, for errors.
const ACCEPTED_NAMES: &str =
    "a file .txt, .text, .jsonl, .ndjson, .parquet, .xml or wiki_00 (also .gz, .zst, .bz2, .xz)";
const VOCABULARY: &str = "vocab.txt";

/// Finds the files that `paths` name. A file is taken as plain text unless its name says otherwise. A directory gives
/// all files below it with a known extension, ordered by name. A path that does not exist but contains `*`, `?`, `[` or
/// `**` gives the files that match the pattern. In directories and patterns, hidden files, prepared data and
/// vocabularies of tokenizers are skipped.
///
/// # Errors
/// If a path does not exist, a directory or pattern has no such file, or a file is named twice.
pub fn find_inputs(paths: &[PathBuf]) -> Result<FoundInputs> {
    let mut found = FoundInputs::default();
    for path in paths {
        let (inputs, skipped) = (found.inputs.len(), found.skipped.len());
        match matches_of(path)? {
            None => found.take(path)?,
            Some(matches) => matches.iter().try_for_each(|path| found.take_match(path))?,
        }
        if found.inputs.len() == inputs {
            let got = match found.skipped.get(skipped) {
                None => "none".to_owned(),
                Some(SkippedPath { path, reason }) => format!("none but {reason}, {}", path.display()),
            };
            return Err(DataError::file(
                path,
                ACCEPTED_NAMES,
                got,
                "name the files themselves if they have other names",
            ));
        }
    }
    check_unique(&found.inputs)?;
    Ok(found)
}

/// Returns an error if a file is named twice, under any path.
pub(super) fn check_unique(inputs: &[Input]) -> Result<()> {
    let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
    for input in inputs {
        let path = input.path();
        let Some(first) = seen.insert(fs::canonicalize(path).map_err(DataError::io("read", path))?, path) else {
            continue;
        };
        let got = match first == path {
            true => "it twice".to_owned(),
            false => format!("it twice, the first time as {}", first.display()),
        };
        return Err(DataError::file(path, "each input once", got, "name it once"));
    }
    Ok(())
}

/// Returns the matches of a glob pattern, ordered by name; `None` if the path exists or is not a pattern.
fn matches_of(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let pattern = path.to_string_lossy();
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(None);
    }
    let wrong = |error: glob::PatternError| {
        DataError::file(
            path,
            "a pattern",
            error.to_string(),
            "correct the pattern: * and ? match within a name, ** matches directories",
        )
    };
    // Such a pattern names no extension, so files are chosen as in a directory.
    let takes_any = path.ends_with("*") || path.ends_with("**");
    // `**` alone would match directories only.
    let pattern = if pattern.ends_with("**") { format!("{pattern}/*") } else { pattern.into_owned() };
    let hidden_parts = |path: &Path| path.components().filter(is_hidden).count();
    let mut matches = Vec::new();
    for found in glob::glob(&pattern).map_err(wrong)? {
        let found = found.map_err(|e| DataError::io("read", e.path().to_owned())(e.into()))?;
        // As in a shell, a hidden name is matched only by a pattern that begins with a dot, and `.*` matches neither
        // `.` nor `..`.
        let matches_hidden = hidden_parts(&found) <= hidden_parts(path);
        let is_parent = found.ends_with("..") || found.as_os_str().as_encoded_bytes().ends_with(b"/.");
        let is_wanted = match found.is_dir() {
            // A pattern with `**` reaches the content of a directory by itself.
            true => !pattern.contains("**"),
            false => !takes_any || NameHints::of(&found).is_known,
        };
        if matches_hidden && !is_parent && is_wanted {
            matches.push(found);
        }
    }
    Ok(Some(matches))
}

fn is_hidden(part: &Component) -> bool {
    matches!(part, Component::Normal(name) if name.as_encoded_bytes().starts_with(b"."))
}

impl FoundInputs {
    fn take(&mut self, path: &Path) -> Result<()> {
        let metadata = fs::metadata(path).map_err(DataError::io("read", path))?;
        if metadata.is_dir() {
            return self.take_directory(path, &mut Vec::new());
        }
        if !metadata.is_file() {
            let next = "write its content to a file: inputs are read more than once";
            return Err(DataError::file(path, "a file or directory", "a pipe or a device", next));
        }
        self.inputs.push(Input::new(path, NameHints::of(path))?);
        Ok(())
    }

    fn take_match(&mut self, path: &Path) -> Result<()> {
        // A file of prepared data is in the prepared directory or in its tokenizer directory.
        let mut directories = path.ancestors().skip(1).take(2);
        if let Some(prepared) = directories.find(|directory| directory.join(MANIFEST).exists()) {
            self.skip(prepared, "prepared data");
        } else if path.ends_with(VOCABULARY) {
            self.skip(path, "a vocabulary");
        } else {
            self.take(path)?;
        }
        Ok(())
    }

    /// Adds the files in a directory and below it. `above` holds the canonical paths of the enclosing directories.
    fn take_directory(&mut self, directory: &Path, above: &mut Vec<PathBuf>) -> Result<()> {
        if directory.join(MANIFEST).exists() {
            self.skip(directory, "prepared data");
            return Ok(());
        }
        let fail = || DataError::io("list", directory);
        let canonical = fs::canonicalize(directory).map_err(fail())?;
        if above.contains(&canonical) {
            // A symbolic link to an enclosing directory: its files are found there.
            return Ok(());
        }
        above.push(canonical);
        let entries = fs::read_dir(directory).map_err(fail())?;
        let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>().map_err(fail())?;
        paths.retain(|path| !path.components().next_back().is_some_and(|name| is_hidden(&name)));
        paths.sort();
        for path in paths {
            let hints = NameHints::of(&path);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.take_directory(&path, above)?,
                _ if !hints.is_known => {}
                Err(error) => return Err(DataError::io("read", &path)(error)),
                Ok(_) if path.ends_with(VOCABULARY) => self.skip(&path, "a vocabulary"),
                Ok(metadata) if metadata.is_file() => self.inputs.push(Input::new(&path, hints)?),
                Ok(_) => self.skip(&path, "a pipe or a device"),
            }
        }
        above.pop();
        Ok(())
    }

    fn skip(&mut self, path: &Path, reason: &'static str) {
        let skipped = SkippedPath { path: path.to_owned(), reason };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}
