//! A directory with text files and a tokenizer, for tests of `lambert prepare`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lambert::rng::Key;

use super::text;

/// A directory with a trained tokenizer and `inputs/`, many text files.
pub struct Place(pub tempfile::TempDir);

const WORDS: [&str; 10] = [
    "the river",
    "stones and",
    "of the mountain",
    "with light",
    "walked",
    "were singing",
    "under the",
    "quiet",
    "from their houses",
    "that have been",
];

/// Documents of five sentences, all different.
pub fn documents(count: usize, seed: u64) -> String {
    let mut stream = Key::new(seed).stream();
    let mut text = String::new();
    for _ in 0..count {
        for _ in 0..5 {
            let words: Vec<&str> = (0..stream.between(6, 14)).map(|_| WORDS[stream.below(10) as usize]).collect();
            text += &format!("The {}. ", words.join(" "));
        }
        text += "\n\n";
    }
    text
}

impl Place {
    pub fn new(files: usize, documents_each: usize) -> Place {
        let place = Place(tempfile::tempdir().expect("a temporary directory"));
        fs::create_dir(place.at("inputs")).expect("writable");
        for file in 0..files {
            let text = documents(documents_each, file as u64);
            fs::write(place.at(&format!("inputs/{file:03}.txt")), text).expect("writable");
        }
        place.succeed(&["tokenizer", "train", "inputs/000.txt", "--vocab-size", "120", "--out", "tokenizer"]);
        place
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lambert"));
        command.args(arguments).current_dir(self.0.path());
        command
    }

    pub fn lambert(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("lambert starts")
    }

    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.lambert(arguments);
        assert!(output.status.success(), "{arguments:?}\n{}", text(&output));
        text(&output)
    }

    #[track_caller]
    pub fn fails(&self, arguments: &[&str], code: i32, expected: &[&str]) {
        let output = self.lambert(arguments);
        let words = text(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{words}");
        expected.iter().for_each(|part| assert!(words.contains(part), "{arguments:?} requires {part:?}, got\n{words}"));
        assert!(!words.contains("panicked"), "{words}");
    }

    /// Returns the number of records in the journal of the preparation of `out`.
    pub fn records(&self, out: &str) -> usize {
        let journal = fs::read(self.at(&format!(".{out}.partial/journal.jsonl"))).unwrap_or_default();
        journal.iter().filter(|&&byte| byte == b'\n').count()
    }
}

/// All files below a directory, by relative path.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(directory: &Path, top: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, top, into);
            } else {
                let name = path.strip_prefix(top).expect("below it").to_owned();
                into.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(directory, directory, &mut into);
    into
}

pub fn prepare(out: &str) -> [&str; 10] {
    let options = ["--held-out", "0.1", "--shard-tokens", "20000"];
    ["prepare", "inputs", "--tokenizer", "tokenizer", "--out", out, options[0], options[1], options[2], options[3]]
}
