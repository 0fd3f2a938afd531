//! Checks the project's source rules: layers of modules, sizes of files and folders, file heads, `unsafe`, printing and
//! unfinished code. Each test reads the sources as text and strips comments before it applies a rule about code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module may import from lower layers; modules of one layer do not import each other.
const LAYERS: &[&[&str]] = &[
    &["cache", "deadline", "divergence", "files", "metrics", "panics", "rng", "settings", "shape", "tls", "units"],
    &["digest", "file_kind", "output", "probe"],
    &["batch", "graph", "key_value", "library_file", "storage"],
    &["autodiff", "eval", "hlo", "onnx", "pjrt", "task", "triton"],
    &["bert", "checkpoint", "data", "optim", "plugins", "schedule"],
    &["rendezvous", "step"],
    &["run", "runtime"],
    &["plan", "predict", "report", "verify"],
    &["train"],
    &["study"],
    &["cli"],
];

/// This file, which contains the forbidden words.
const TIDY: &str = "tests/it/tidy.rs";
/// Lines of a file.
const MAX_LINES: usize = 600;
/// Files of a folder in `src`.
const MAX_FILES: usize = 18;

struct Source {
    /// Path relative to the package, for example `src/graph/op.rs`.
    path: String,
    text: String,
}

impl Source {
    /// Returns the lines without comments, numbered from 1. A `//` inside a string literal also ends its line, because no
    /// code can follow it in the literal.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
    }

    /// Returns [`Source::code`] up to the unit tests at the end of the file, and nothing for a file of tests.
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

    /// Returns the top-level module: `graph` for `src/graph/op.rs`, `rng` for `src/rng.rs`.
    fn module(&self) -> Option<&str> {
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

/// Fails with the list of all complaints.
fn assert_none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Returns whether `line` contains `word` as a whole word.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word))
}

/// Returns the modules imported by paths such as `crate::graph::Op` and `crate::{graph, shape::Shape}`.
fn imported_modules(code: &str) -> BTreeSet<String> {
    let name =
        |s: &str| -> String { s.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            modules.insert(name(rest));
            continue;
        };
        modules.insert(name(group));
        let mut depth = 1;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => drop(modules.insert(name(&group[i + 1..]))),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    modules.remove("");
    modules
}

#[test]
fn modules_import_lower_layers_only() {
    let layer = |module: &str| LAYERS.iter().position(|modules| modules.contains(&module));
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        let Some(module) = source.module().filter(|module| !["lib", "main"].contains(module)) else { continue };
        let Some(own) = layer(module) else {
            complaints
                .push(format!("{}: module {module} has no layer; add it to LAYERS in tests/it/tidy.rs", source.path));
            continue;
        };
        let code = source.code().fold(String::new(), |mut code, (_, line)| {
            writeln!(code, "{line}").unwrap();
            code
        });
        for imported in imported_modules(&code).into_iter().filter(|imported| imported != module) {
            match layer(&imported) {
                Some(other) if other < own => {}
                Some(_) => complaints.push(format!("{}: {module} must not import {imported}", source.path)),
                None => complaints.push(format!("{}: imports {imported}, which has no layer", source.path)),
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn imports_are_read_from_paths_and_groups() {
    let code = "use crate::graph::Op;\nuse crate::{hlo, shape::{DType, Shape}, rng};\nlet x = crate::eval::evaluate();";
    assert_eq!(imported_modules(code).into_iter().collect::<Vec<_>>(), ["eval", "graph", "hlo", "rng", "shape"]);
}

/// Returns the paths of all `use` declarations, with groups written out: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn used_paths(code: &str) -> Vec<String> {
    fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
        let (mut depth, mut start) = (0, 0);
        let mut parts = Vec::new();
        for (i, c) in tree.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => parts.push(&tree[std::mem::replace(&mut start, i + 1)..i]),
                _ => {}
            }
        }
        parts.push(&tree[start..]);
        for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('{') {
                Some((path, group)) => expand(&format!("{prefix}{path}"), group.trim_end_matches('}'), paths),
                None => paths.push(format!("{prefix}{part}")),
            }
        }
    }
    let mut paths = Vec::new();
    for declaration in code.split(';') {
        let Some(start) = declaration.rfind("use ").filter(|_| declaration.trim_start().contains("use ")) else {
            continue;
        };
        let tree: String = declaration[start + 4..].split_whitespace().collect::<Vec<_>>().join(" ");
        expand("", &tree, &mut paths);
    }
    paths
}

/// Returns the path of the module that a file of `src` holds: `graph::op` for `src/graph/op.rs`.
fn module_path(file: &str) -> Vec<&str> {
    let inside = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inside.split('/').collect()
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let sources = sources(&["src"]);
    let by_module: BTreeMap<Vec<&str>, usize> =
        sources.iter().enumerate().map(|(i, source)| (module_path(&source.path), i)).collect();
    // The files that a file imports. A module's face, which passes names on, is none of them.
    let imports = |source: &Source| -> BTreeSet<usize> {
        let own = module_path(&source.path);
        let code = source.code_without_tests().into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        let resolve = |path: &String| {
            let mut segments: Vec<&str> = path.split("::").map(|segment| segment.split(' ').next().unwrap()).collect();
            let mut base = match segments[0] {
                "crate" => Vec::new(),
                "self" => own.clone(),
                "super" => own[..own.len() - 1].to_vec(),
                _ => return None,
            };
            segments.remove(0);
            while segments.first() == Some(&"super") {
                base.pop();
                segments.remove(0);
            }
            let full = [base, segments].concat();
            let found = (1..=full.len()).rev().find_map(|length| by_module.get(&full[..length]))?;
            (!sources[*found].path.ends_with("/mod.rs")).then_some(*found)
        };
        used_paths(&code).iter().filter_map(resolve).collect()
    };
    let imports: Vec<BTreeSet<usize>> = sources.iter().map(imports).collect();
    assert!(imports.iter().map(BTreeSet::len).sum::<usize>() > sources.len(), "imports are not read");
    // Files that import none of the others, or that none imports, are removed until only circles remain.
    let mut remaining: BTreeSet<usize> = (0..sources.len()).collect();
    let is_outside = |i: usize, remaining: &BTreeSet<usize>| {
        let mut others = remaining.iter().filter(|&&other| other != i);
        imports[i].iter().all(|other| *other == i || !remaining.contains(other))
            || others.all(|&other| !imports[other].contains(&i))
    };
    while let Some(outside) = remaining.iter().copied().find(|&i| is_outside(i, &remaining)) {
        remaining.remove(&outside);
    }
    let name = |i: &usize| sources[*i].path.clone();
    let complaint = |i: &usize| {
        let others: Vec<String> = imports[*i].intersection(&remaining).map(name).collect();
        format!("{} imports {}, in a circle", name(i), others.join(", "))
    };
    assert_none(remaining.iter().map(complaint).collect());
}

#[test]
fn used_paths_are_read_from_groups() {
    let code = "use a::b;\npub use super::{c, d::{e, f as g},\n    h};\nlet x = 1;";
    assert_eq!(used_paths(code), ["a::b", "super::c", "super::d::e", "super::d::f as g", "super::h"]);
}

#[test]
fn every_file_has_a_head_comment() {
    let headless = sources(&["src", "tests", "benches"]).into_iter().filter(|s| !s.text.starts_with("//! "));
    assert_none(headless.map(|s| format!("{}: must start with a `//!` comment", s.path)).collect());
}

#[test]
fn files_have_at_most_600_lines() {
    let lengths = sources(&["src", "tests", "benches"]).into_iter().map(|s| (s.text.lines().count(), s.path));
    let long = lengths.filter(|(lines, _)| *lines > MAX_LINES);
    assert_none(long.map(|(lines, path)| format!("{path}: {lines} lines, at most {MAX_LINES}")).collect());
}

#[test]
fn folders_of_src_have_at_most_18_files() {
    let mut folders = BTreeMap::<String, usize>::new();
    for source in sources(&["src"]) {
        let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        *folders.entry(folder.to_owned()).or_default() += 1;
    }
    let full = folders.into_iter().filter(|(_, files)| *files > MAX_FILES);
    assert_none(full.map(|(folder, files)| format!("{folder}: {files} files, at most {MAX_FILES}")).collect());
}

#[test]
fn unsafe_is_in_pjrt_only_and_has_a_safety_comment() {
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]).into_iter().filter(|s| s.path != TIDY) {
        let raw: Vec<&str> = source.text.lines().collect();
        for (number, line) in source.code().filter(|(_, line)| has_word(line, "unsafe")) {
            if source.module() != Some("pjrt") {
                complaints.push(format!("{}:{number}: unsafe outside src/pjrt", source.path));
            }
            // Blocks and impls need a reason; types of unsafe function pointers do not.
            let needs_reason = line.contains("unsafe {") || line.contains("unsafe impl");
            let above = raw[..number - 1].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
            let has_reason =
                raw[number - 1].contains("// SAFETY:") || above.into_iter().any(|l| l.contains("// SAFETY:"));
            if needs_reason && !has_reason {
                complaints.push(format!("{}:{number}: unsafe without `// SAFETY:` above it", source.path));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn no_unfinished_code_is_committed() {
    const UNFINISHED: [&str; 5] = ["todo!", "unimplemented!", "dbg!", "#[ignore", "FIXME"];
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]).into_iter().filter(|s| s.path != TIDY) {
        for (number, line) in source.text.lines().enumerate() {
            for word in UNFINISHED.into_iter().filter(|word| line.contains(word)) {
                complaints.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn only_the_output_module_prints() {
    // These macros panic when the reader of a pipe closes it; the functions of `output` do not.
    const PRINTING: [&str; 4] = ["print!", "println!", "eprint!", "eprintln!"];
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        for (number, line) in source.code_without_tests() {
            for word in PRINTING.into_iter().filter(|word| has_word(line, word)) {
                complaints.push(format!("{}:{number}: {word}; use the functions of `output`", source.path));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn files_are_opened_by_functions_that_refuse_pipes_and_devices() {
    const OPENING: [&str; 3] = ["fs::read", "fs::read_to_string", "File::open"];
    // The first is the module of these functions; the others read files of the kernel.
    const ALLOWED: [&str; 8] = [
        "src/files.rs",
        "src/pjrt/discovery/platform.rs",
        "src/rendezvous/session.rs",
        "src/report/tensorboard/mod.rs",
        "src/runtime/compilation_cache/identity.rs",
        "src/runtime/limits.rs",
        "src/runtime/processor.rs",
        "src/train/bench.rs",
    ];
    let mut complaints = Vec::new();
    for source in sources(&["src"]).into_iter().filter(|source| !ALLOWED.contains(&source.path.as_str())) {
        // A file or directory that this process has written is opened again to sync it to the disk.
        for (number, line) in source.code_without_tests().into_iter().filter(|(_, line)| !line.contains("sync_all")) {
            for word in OPENING.into_iter().filter(|word| has_word(line, word)) {
                complaints.push(format!("{}:{number}: {word}; use the functions of `files`", source.path));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn library_strings_contain_no_command_line_flags() {
    // Library errors name the setting; only the command line names flags. These files contain options of other programs, or CSS.
    const FLAGS_OF_OTHERS: [(&str, &str); 4] = [
        ("src/plugins/", "options of pip"),
        ("src/data/corpus/decompress/", "options of zstd"),
        ("src/report/summary.rs", "options of TensorBoard"),
        ("src/report/pages/", "variables of CSS"),
    ];
    let is_allowed = |path: &str| FLAGS_OF_OTHERS.iter().any(|(allowed, _)| path.starts_with(allowed));
    let mut complaints = Vec::new();
    for source in sources(&["src"]).into_iter().filter(|source| source.module() != Some("cli")) {
        if is_allowed(&source.path) {
            continue;
        }
        for (number, line) in source.code_without_tests().into_iter().filter(|(_, line)| has_flag(line)) {
            complaints.push(format!("{}:{number}: name the setting, not the flag: {}", source.path, line.trim()));
        }
    }
    assert_none(complaints);
}

/// Returns whether `line` contains `--word`, as no Rust code outside of string literals does.
fn has_flag(line: &str) -> bool {
    line.match_indices("--").any(|(at, _)| {
        !line[..at].ends_with(|c: char| c == '-' || c.is_alphanumeric())
            && line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase())
    })
}

#[test]
fn flags_are_found_in_strings() {
    assert!(has_flag("bail!(\"--steps requires\")") && has_flag("(with --resume)"));
    assert!(!has_flag("let x = a - -b;") && !has_flag("a table | --- |") && !has_flag("year 1990--91"));
}

#[test]
fn library_code_has_no_unwrap() {
    // `expect` states why the case is impossible; reviewers check that no user input can cause it.
    let mut complaints = Vec::new();
    for source in sources(&["src"]) {
        for (number, line) in source.code_without_tests().into_iter().filter(|(_, line)| line.contains(".unwrap()")) {
            complaints.push(format!("{}:{number}: use expect with a reason: {}", source.path, line.trim()));
        }
    }
    assert_none(complaints);
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let mut complaints = Vec::new();
    let (mut in_dependencies, mut reasoned) = (false, false);
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        }
        match line.chars().next() {
            // A comment covers the lines below it, up to the next empty line.
            Some('#') => reasoned = true,
            None | Some('[') => reasoned = false,
            Some(_) if in_dependencies && !reasoned => complaints.push(format!("Cargo.toml: no reason above `{line}`")),
            Some(_) => {}
        }
    }
    assert_none(complaints);
}
