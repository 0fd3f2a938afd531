//! Which files paths name: themselves, those in a directory whose names say a form, those that match a pattern.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::input::{Input, NameSays};
use crate::data::error::{DataError, Result};
use crate::data::files::MANIFEST;

/// What paths name.
#[derive(Debug, Default)]
pub struct FoundInputs {
    pub inputs: Vec<Input>,
    /// What lies in the directories or matches the patterns, and is no text to train on whatever its name.
    pub skipped: Vec<SkippedPath>,
}

/// A file or directory that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedPath {
    pub path: PathBuf,
    pub reason: &'static str,
}

/// What is named where no input was found.
const FORMS: &str = "a file .txt, .text, .jsonl, .ndjson, .parquet, .xml or wiki_00 (also .gz, .zst, .bz2, .xz)";
const VOCABULARY: &str = "vocab.txt";

/// The files that `paths` name: a file is taken as it is (plain text unless its name says otherwise), a directory gives
/// those of its files whose names say a form, at any depth, in the order of their names, and a path that does not exist
/// but has `*`, `?`, `[` or `**` gives what matches it. Of directories and patterns, hidden files, prepared data and the
/// vocabularies of tokenizers are passed over.
///
/// # Errors
/// If a path does not exist, a directory or pattern has no such file, or a file comes twice.
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
            return Err(DataError::file(path, FORMS, got, "name the files themselves if they are called otherwise"));
        }
    }
    check_each_is_once(&found.inputs)?;
    Ok(found)
}

/// An error if a file comes twice, whatever it is called.
pub(super) fn check_each_is_once(inputs: &[Input]) -> Result<()> {
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
        return Err(DataError::file(path, "every input once", got, "name it once"));
    }
    Ok(())
}

/// What matches a path that is a pattern, in the order of the names; none if it is no pattern or there is such a path.
fn matches_of(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let pattern = path.to_string_lossy();
    if path.exists() || !pattern.contains(['*', '?', '[']) {
        return Ok(None);
    }
    let wrong = |error: glob::PatternError| {
        DataError::file(path, "a pattern", error.to_string(), "see `lambert prepare --help`")
    };
    // Such a pattern says no more of a name than a directory does.
    let takes_any = path.ends_with("*") || path.ends_with("**");
    // `**` itself would match directories alone.
    let pattern = if pattern.ends_with("**") { format!("{pattern}/*") } else { pattern.into_owned() };
    let hidden_parts = |path: &Path| path.components().filter(is_hidden).count();
    let mut matches = Vec::new();
    for found in glob::glob(&pattern).map_err(wrong)? {
        let found = found.map_err(|e| DataError::io("read", e.path().to_owned())(e.into()))?;
        // As in a shell, a name that begins with a dot is matched by one alone that does so, and `.*` is not `.` and `..`.
        let is_spelt = hidden_parts(&found) <= hidden_parts(path);
        let leads_back = found.ends_with("..") || found.as_os_str().as_encoded_bytes().ends_with(b"/.");
        let is_wanted = match found.is_dir() {
            // A pattern with `**` comes to what is in a directory by itself.
            true => !pattern.contains("**"),
            false => !takes_any || NameSays::of(&found).is_a_form,
        };
        if is_spelt && !leads_back && is_wanted {
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
            let next = "write what comes from it into a file: inputs are read more than once";
            return Err(DataError::file(path, "a file or directory", "a pipe or a device", next));
        }
        self.inputs.push(Input::new(path, NameSays::of(path))?);
        Ok(())
    }

    fn take_match(&mut self, path: &Path) -> Result<()> {
        // A file of prepared data lies in its directory, or in that of the tokenizer in there.
        let mut directories = path.ancestors().skip(1).take(2);
        if let Some(prepared) = directories.find(|directory| directory.join(MANIFEST).exists()) {
            self.pass_over(prepared, "prepared data");
        } else if path.ends_with(VOCABULARY) {
            self.pass_over(path, "a vocabulary");
        } else {
            self.take(path)?;
        }
        Ok(())
    }

    /// Takes the files of a directory, in it and below it. `above` are the directories in which it lies, by their true names.
    fn take_directory(&mut self, directory: &Path, above: &mut Vec<PathBuf>) -> Result<()> {
        if directory.join(MANIFEST).exists() {
            self.pass_over(directory, "prepared data");
            return Ok(());
        }
        let fail = || DataError::io("list", directory);
        let true_name = fs::canonicalize(directory).map_err(fail())?;
        if above.contains(&true_name) {
            // A link that leads back: its files are taken where they are.
            return Ok(());
        }
        above.push(true_name);
        let entries = fs::read_dir(directory).map_err(fail())?;
        let mut paths = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>().map_err(fail())?;
        paths.retain(|path| !path.components().next_back().is_some_and(|name| is_hidden(&name)));
        paths.sort();
        for path in paths {
            let says = NameSays::of(&path);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.take_directory(&path, above)?,
                _ if !says.is_a_form => {}
                Err(error) => return Err(DataError::io("read", &path)(error)),
                Ok(_) if path.ends_with(VOCABULARY) => self.pass_over(&path, "a vocabulary"),
                Ok(metadata) if metadata.is_file() => self.inputs.push(Input::new(&path, says)?),
                Ok(_) => self.pass_over(&path, "a pipe or a device"),
            }
        }
        above.pop();
        Ok(())
    }

    fn pass_over(&mut self, path: &Path, reason: &'static str) {
        let skipped = SkippedPath { path: path.to_owned(), reason };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}
