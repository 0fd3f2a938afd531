//! The documents: every `lambert` command in them parses, their run file is valid, and their links lead to files and
//! headings that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use lambert::bert::Preset;
use lambert::cli::Cli;
use lambert::run::Run;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A Markdown file, with its path relative to the package.
struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    /// Returns the lines of the blocks of `language`, each with its number.
    fn code(&self, language: &str) -> Vec<(usize, &str)> {
        let mut current = None;
        let mut lines = Vec::new();
        for (i, line) in self.text.lines().enumerate() {
            match line.trim_start().strip_prefix("```") {
                Some(opened) => current = if current.is_none() { Some(opened) } else { None },
                None if current == Some(language) => lines.push((i + 1, line)),
                None => {}
            }
        }
        lines
    }

    /// Returns the text without code blocks and without code in lines.
    fn prose(&self) -> String {
        let mut in_code = false;
        let lines = self.text.lines().filter(|line| {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            !in_code && !fence
        });
        lines.map(|line| line.split('`').step_by(2).collect::<String>() + "\n").collect()
    }

    /// Returns the anchors of the headings, as GitHub makes them.
    fn anchors(&self) -> BTreeSet<String> {
        let mut in_code = false;
        let headings = self.text.lines().filter(|line| {
            in_code ^= line.trim_start().starts_with("```");
            !in_code && line.starts_with('#')
        });
        let anchor = |heading: &str| -> String {
            let text = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.map(anchor).collect()
    }
}

fn documents() -> Vec<Document> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    let root = Path::new(ROOT);
    let names = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut found: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
    found.extend(["data", "checkpoints", "graphs", "scripts"].map(|folder| root.join(folder).join("README.md")));
    ["docs", "data/recipes"].iter().for_each(|folder| walk(&root.join(folder), &mut found));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Document { path: path.strip_prefix(root).unwrap().to_path_buf(), text }
    };
    found.into_iter().map(read).collect()
}

/// Splits a command line as a shell does: quotes hold words together, and a comment, a pipe or a redirection ends it.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut quote, mut in_word) = (None, false);
    for c in line.chars() {
        match c {
            _ if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => {
                quote = Some(c);
                if !std::mem::replace(&mut in_word, true) {
                    words.push(String::new());
                }
            }
            '#' | '|' | '>' if quote.is_none() && !in_word => break,
            _ if c.is_whitespace() && quote.is_none() => in_word = false,
            _ => {
                if !std::mem::replace(&mut in_word, true) {
                    words.push(String::new());
                }
                words.last_mut().unwrap().push(c);
            }
        }
    }
    words
}

#[test]
fn commands_of_the_documents_parse() {
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for document in documents() {
        let lines = document.code("sh");
        for (i, (number, line)) in lines.iter().enumerate() {
            let mut command = (*line).to_owned();
            let mut next = i + 1;
            while let (Some(joined), Some((_, more))) = (command.strip_suffix('\\'), lines.get(next)) {
                command = format!("{joined} {more}");
                next += 1;
            }
            let words = words(&command);
            let start = words.iter().position(|word| word == "lambert" || word.ends_with("/lambert"));
            let Some(start) = start.filter(|start| *start == 0 || words[0] == "srun") else { continue };
            checked += 1;
            if let Err(error) = Cli::try_parse_from(&words[start..])
                && error.use_stderr()
            {
                wrong.push(format!("{}:{number}: {line}\n{error}", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 40, "found only {checked} commands");
}

#[test]
fn run_file_of_the_readme_is_valid() {
    let documents = documents();
    let readme = documents.iter().find(|document| document.path == Path::new("README.md")).unwrap();
    let text: String = readme.code("toml").iter().map(|(_, line)| format!("{line}\n")).collect();
    let run = Run::from_checkpoint(&readme.path, &text, &Preset::Base.config(30_522)).unwrap();
    assert_eq!(run.schedule.steps(), 7037 + 1562);
}

#[test]
fn links_of_the_documents_lead_to_files_and_headings() {
    let documents = documents();
    let mut wrong = Vec::new();
    for document in &documents {
        let prose = document.prose();
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let base = if file.is_empty() { document.path.clone() } else { document.path.with_file_name(file) };
            let Ok(path) = Path::new(ROOT).join(&base).canonicalize() else {
                wrong.push(format!("{}: {target}: no such file", document.path.display()));
                continue;
            };
            let of_target =
                documents.iter().find(|other| Path::new(ROOT).join(&other.path).canonicalize().unwrap() == path);
            if !anchor.is_empty() && !of_target.is_some_and(|other| other.anchors().contains(anchor)) {
                wrong.push(format!("{}: {target}: no such heading", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn command_lines_are_split_as_a_shell_does() {
    assert_eq!(words("a --set 'x=\"y z\"' b#c   # comment"), ["a", "--set", "x=\"y z\"", "b#c"]);
    assert_eq!(words("  # nothing"), Vec::<String>::new());
}
