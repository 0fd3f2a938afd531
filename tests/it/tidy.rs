//! The rules of the house that no compiler checks: layers, file heads and lengths, where `unsafe` may stand, what must
//! not be left behind. Each test reads the sources as text; comments are cut off before a rule about code is applied.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module may import from lower layers; modules of one layer do not import each other.
const LAYERS: [&[&str]; 9] = [
    &["cache", "deadline", "digest", "files", "output", "rng", "settings", "shape", "tls", "units"],
    &["graph", "key_value", "storage"],
    &["autodiff", "eval", "hlo", "pjrt"],
    &["bert", "checkpoint", "data", "optim", "plugins", "schedule"],
    &["rendezvous", "step"],
    &["run", "runtime"],
    &["plan", "report", "verify"],
    &["train"],
    &["cli"],
];

const LONGEST_FILE: usize = 600;

struct Source {
    /// Relative to the package, `src/graph/op.rs`.
    path: String,
    text: String,
}

impl Source {
    /// The lines, numbered from 1, without their comments. (A `//` inside a string literal cuts too: what follows it is
    /// not code either.)
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }

    /// [`Source::code`] up to the module of unit tests that closes the file; nothing of a file of tests.
    fn code_without_tests(&self) -> Vec<(usize, &str)> {
        if self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return Vec::new();
        }
        let lines: Vec<(usize, &str)> = self.code().collect();
        let opens_tests = |i: usize| {
            let next = lines.get(i + 1).map_or("", |(_, line)| line.trim());
            lines[i].1.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{')
        };
        let end = (0..lines.len()).find(|&i| opens_tests(i)).unwrap_or(lines.len());
        lines[..end].to_vec()
    }

    /// `graph` for `src/graph/op.rs`, `rng` for `src/rng.rs`.
    fn room(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => walk(&path, found),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root.join(folder), &mut found));
    found.sort();
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        Source { path: relative, text: fs::read_to_string(&path).unwrap() }
    };
    found.into_iter().map(read).collect()
}

/// Fails with all complaints at once.
fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word))
}

/// The first names of all paths that start at the crate: `crate::graph::Op` and `crate::{graph, shape::Shape}`.
fn imported_rooms(code: &str) -> BTreeSet<String> {
    let name =
        |s: &str| -> String { s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(name(rest));
            continue;
        };
        rooms.insert(name(group));
        let mut depth = 1;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => drop(rooms.insert(name(&group[i + 1..]))),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn imports_run_downward_only() {
    let layer = |room: &str| LAYERS.iter().position(|rooms| rooms.contains(&room));
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room().filter(|room| !["lib", "main"].contains(room)) else { continue };
        let Some(own) = layer(room) else {
            complaints.push(format!("{}: room {room} has no layer; give it one in tests/it/tidy.rs", source.path));
            continue;
        };
        let code = source.code().fold(String::new(), |mut code, (_, line)| {
            writeln!(code, "{line}").unwrap();
            code
        });
        for imported in imported_rooms(&code).into_iter().filter(|imported| imported != room) {
            match layer(&imported) {
                Some(other) if other < own => {}
                Some(_) => complaints.push(format!("{}: {room} must not import {imported}", source.path)),
                None => complaints.push(format!("{}: imports {imported}, which is no room", source.path)),
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn imports_are_read_from_paths_and_groups() {
    let code = "use crate::graph::Op;\nuse crate::{hlo, shape::{DType, Shape}, rng};\nlet x = crate::eval::evaluate();";
    assert_eq!(imported_rooms(code).into_iter().collect::<Vec<_>>(), ["eval", "graph", "hlo", "rng", "shape"]);
}

#[test]
fn every_file_opens_by_saying_what_one_must_know() {
    let silent = sources(&["src", "tests", "benches"]).into_iter().filter(|s| !s.text.starts_with("//! "));
    assert_none(silent.map(|s| format!("{}: must open with a `//!` comment", s.path)).collect());
}

#[test]
fn no_file_is_longer_than_can_be_read_at_once() {
    let lengths = sources(&["src", "tests", "benches"]).into_iter().map(|s| (s.text.lines().count(), s.path));
    let long = lengths.filter(|(lines, _)| *lines > LONGEST_FILE);
    assert_none(long.map(|(lines, path)| format!("{path}: {lines} lines, at most {LONGEST_FILE}")).collect());
}

#[test]
fn unsafe_stands_in_pjrt_only_and_gives_its_reason() {
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]).into_iter().filter(|s| s.path != "tests/it/tidy.rs") {
        let raw: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code().filter(|(_, line)| has_word(line, "unsafe")) {
            if source.room() != Some("pjrt") {
                complaints.push(format!("{}:{number}: unsafe outside src/pjrt", source.path));
            }
            // A block or an impl makes a promise; a function pointer's type only passes one on.
            let promises = line.contains("unsafe {") || line.contains("unsafe impl");
            let above = raw[..number - 1].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            let reasoned =
                raw[number - 1].contains("// SAFETY:") || above.into_iter().any(|l| l.contains("// SAFETY:"));
            if promises && !reasoned {
                complaints.push(format!("{}:{number}: unsafe without `// SAFETY:` above it", source.path));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn nothing_unfinished_is_left_behind() {
    const UNFINISHED: [&str; 5] = ["todo!", "unimplemented!", "dbg!", "#[ignore", "FIXME"];
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]).into_iter().filter(|s| s.path != "tests/it/tidy.rs") {
        for (number, line) in source.text.lines().enumerate() {
            for word in UNFINISHED.into_iter().filter(|word| line.contains(word)) {
                complaints.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn words_leave_the_house_by_one_door() {
    // These panic when the reader of a pipe has gone; `output` does not.
    const PRINTING: [&str; 4] = ["print!", "println!", "eprint!", "eprintln!"];
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        for (number, line) in source.code_without_tests() {
            for word in PRINTING.into_iter().filter(|word| has_word(line, word)) {
                complaints.push(format!("{}:{number}: {word}, where `output` has print and note", source.path));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn an_impossible_case_says_why_it_is_impossible() {
    // `expect` must state the reason; whether a user can cause the case after all is for the reviewer.
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        for (number, line) in source.code_without_tests().into_iter().filter(|(_, line)| line.contains(".unwrap()")) {
            complaints.push(format!("{}:{number}: {}", source.path, line.trim()));
        }
    }
    assert_none(complaints);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let mut complaints = Vec::new();
    let (mut in_dependencies, mut reasoned) = (false, false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        }
        match line.chars().next() {
            // A comment speaks for the lines below it, up to the next empty one.
            Some('#') => reasoned = true,
            None | Some('[') => reasoned = false,
            Some(_) if in_dependencies && !reasoned => complaints.push(format!("Cargo.toml: no reason above `{line}`")),
            Some(_) => {}
        }
    }
    assert_none(complaints);
}
