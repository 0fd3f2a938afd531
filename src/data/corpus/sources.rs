//! Sources: groups of inputs with a name and a weight in the mixture.

use std::path::PathBuf;
use std::str::FromStr;

use super::discover::{FoundInputs, check_unique, find_inputs};
use super::input_entry::Source;
use crate::data::error::{DataError, Result};

/// The largest weight.
const LARGEST_WEIGHT: f64 = 100.0;

/// A source and one of its paths, written `NAME=PATH` or `NAME:WEIGHT=PATH`.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcePath {
    /// The source, with its weight.
    pub source: Source,
    /// A file, directory or pattern.
    pub path: PathBuf,
}

impl FromStr for SourcePath {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("requires NAME=PATH or NAME:WEIGHT=PATH, with a weight above 0 up to {LARGEST_WEIGHT}");
        let (source, path) = text.split_once('=').ok_or_else(wrong)?;
        let (name, weight) = source.split_once(':').unwrap_or((source, "1"));
        let weight: f64 = weight.parse().map_err(|_| wrong())?;
        match name.is_empty() || path.is_empty() || !(weight > 0.0 && weight <= LARGEST_WEIGHT) {
            true => Err(wrong()),
            false => Ok(SourcePath { source: Source { name: name.to_owned(), weight }, path: path.into() }),
        }
    }
}

/// Finds the inputs that `paths` name, which belong to the source `text`, and those of `sources`.
///
/// # Errors
/// As [`find_inputs`], or if a source has two weights.
pub fn find_sources(paths: &[PathBuf], sources: &[SourcePath]) -> Result<FoundInputs> {
    let mut found = find_inputs(paths)?;
    for SourcePath { source, path } in sources {
        let named = found.inputs.iter();
        if let Some(other) = named.map(|input| &input.source).find(|s| s.name == source.name && *s != source) {
            let found = format!("{} and {} for {:?}", other.weight, source.weight, source.name);
            return Err(DataError::setting("source", "one weight for each name", found));
        }
        let mut of_source = find_inputs(std::slice::from_ref(path))?;
        of_source.inputs.iter_mut().for_each(|input| input.source.clone_from(source));
        found.inputs.append(&mut of_source.inputs);
        found.skipped.append(&mut of_source.skipped);
    }
    check_unique(&found.inputs)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_paths_are_parsed() {
        let read = |text: &str| text.parse::<SourcePath>().map(|s| (s.source.name, s.source.weight, s.path));
        assert_eq!(read("wiki=a/b=c").unwrap(), ("wiki".into(), 1.0, "a/b=c".into()));
        assert_eq!(read("books:2.5=*.txt").unwrap(), ("books".into(), 2.5, "*.txt".into()));
        for wrong in ["wiki", "=a", "wiki=", "wiki:=a", "wiki:x=a", "wiki:0=a", "wiki:-1=a", "wiki:NaN=a", "wiki:101=a"]
        {
            assert!(read(wrong).unwrap_err().contains("NAME:WEIGHT=PATH"), "{wrong}");
        }
    }

    #[test]
    fn inputs_have_their_source_and_are_unique() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        ["a.txt", "b.txt", "c.txt"].iter().for_each(|name| std::fs::write(path(name), "text").unwrap());
        let source = |name: &str, weight: f64, file: &str| SourcePath {
            source: Source { name: name.into(), weight },
            path: path(file),
        };
        let found = find_sources(&[path("a.txt")], &[source("x", 2.0, "b.txt"), source("x", 2.0, "c.txt")]).unwrap();
        let found: Vec<(&str, f64)> = found.inputs.iter().map(|i| (i.source.name.as_str(), i.source.weight)).collect();
        assert_eq!(found, [("text", 1.0), ("x", 2.0), ("x", 2.0)]);
        let message = |sources: &[SourcePath]| find_sources(&[path("a.txt")], sources).unwrap_err().to_string();
        assert!(message(&[source("x", 2.0, "b.txt"), source("x", 3.0, "c.txt")]).contains("2 and 3 for \"x\""));
        assert!(message(&[source("x", 2.0, "a.txt")]).contains("twice"));
    }
}
