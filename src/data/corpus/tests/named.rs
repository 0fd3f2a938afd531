//! Discovery of inputs by paths, directories and patterns.

use crate::data::corpus::tests::*;

/// Creates a directory with files of these names below it.
fn directory_of(files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        let path = directory.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "text").unwrap();
    }
    directory
}

/// Returns the inputs found by `pattern` below the directory, and the skipped paths.
fn found_in(directory: &tempfile::TempDir, pattern: &str) -> std::result::Result<(Vec<String>, Vec<String>), String> {
    let below = |path: &std::path::Path| path.strip_prefix(directory.path()).unwrap().to_string_lossy().into_owned();
    let found = find_inputs(&[directory.path().join(pattern)]).map_err(|e| e.to_string())?;
    let inputs = found.inputs.iter().map(|input| below(input.path())).collect();
    Ok((inputs, found.skipped.iter().map(|passed| format!("{}: {}", below(&passed.path), passed.reason)).collect()))
}

#[test]
fn paths_patterns_and_directories_select_files() {
    let directory = directory_of(&[
        "a/wiki_00",
        "a/b/c.TXT.xz",
        "a/b/d.parquet",
        "a/b/dump.xml-p1p2.bz2",
        "a/b/notes.md",
        "a/wiki_x",
        "e.jsonl.zst",
        "a/x-multistream-index.txt.bz2",
        "a/c4.json.gz",
    ]);
    let found = |pattern: &str| found_in(&directory, pattern).map(|(inputs, _)| inputs);
    let all = ["a/b/c.TXT.xz", "a/b/d.parquet", "a/b/dump.xml-p1p2.bz2", "a/wiki_00", "e.jsonl.zst"];
    assert_eq!(found("").unwrap(), all);
    assert_eq!(found("a/**/*.parquet").unwrap(), ["a/b/d.parquet"]);
    assert_eq!(found("*/b").unwrap(), ["a/b/c.TXT.xz", "a/b/d.parquet", "a/b/dump.xml-p1p2.bz2"]);
    assert_eq!(found("a/b/*.md").unwrap(), ["a/b/notes.md"], "named itself");
    for all in ["**", "**/*", "*/**", "a/**"] {
        assert_eq!(found(all).unwrap().len(), if all.starts_with("**") { 5 } else { 4 }, "{all}");
    }
    assert_eq!(found("*").unwrap().len(), 5);
    assert_eq!(found("a/b/*").unwrap().len(), 3);
    assert_eq!(found("a/b/n*").unwrap(), ["a/b/notes.md"]);
    assert_eq!(found("a/w*").unwrap(), ["a/wiki_00", "a/wiki_x"]);
    assert_eq!(found("a/*.json.gz").unwrap(), ["a/c4.json.gz"], "named itself");
    assert!(found("a/*.nothing").unwrap_err().contains("a/*.nothing: requires a file .txt"));
    assert!(found("a/***").unwrap_err().contains("requires a pattern"));
    std::fs::write(directory.path().join("x.parquet.gz"), "text").unwrap();
    assert!(found("x.parquet.gz").unwrap_err().contains("unpack it"));
    assert!(found("no-such-file.txt").unwrap_err().contains("no-such-file.txt"));
    assert!(read(&[("notes.md", b"text")]).unwrap_err().to_string().contains("requires a file .txt"));
}

#[test]
fn a_named_json_file_holds_records() {
    let directory = directory_of(&["c4.json"]);
    let path = directory.path().join("c4.json");
    std::fs::write(&path, "{\"text\": \"One.\"}\n").unwrap();
    let input = &find_inputs(&[path]).unwrap().inputs[0];
    let mut text = String::new();
    let whole = input.read(&ReadOptions::default(), &|_| (), &mut |batch| {
        text += &batch.text;
        true
    });
    assert!(whole.unwrap() && text == "One.", "{text}");
}

#[test]
fn prepared_data_vocabularies_and_hidden_files_are_skipped() {
    let directory = directory_of(&[
        "a.txt",
        "prepared/prepared.json",
        "prepared/train-00000.safetensors",
        "prepared/tokenizer/vocab.txt",
        ".prepared.partial/journal.jsonl",
        ".prepared.partial/tokenizer/vocab.txt",
        ".other.replaced/prepared.json",
        "tokenizer/vocab.txt",
        "tokenizer/tokenizer.json",
        "more/old/prepared.json",
        "more/old/notes.txt",
        "more/b.txt",
        "more/._b.txt",
        ".cache/c.txt",
    ]);
    let found = |pattern: &str| found_in(&directory, pattern);
    let (prepared, old) = ("prepared: prepared data", "more/old: prepared data");
    let vocabulary = "tokenizer/vocab.txt: a vocabulary";
    let (inputs, skipped) = found("").unwrap();
    assert_eq!(
        (inputs, skipped),
        (vec!["a.txt".into(), "more/b.txt".into()], vec![old.into(), prepared.into(), vocabulary.into()])
    );
    let (inputs, mut skipped) = found("**/*.txt").unwrap();
    skipped.sort();
    assert_eq!(
        (inputs, skipped),
        (vec!["a.txt".into(), "more/b.txt".into()], vec![old.into(), prepared.into(), vocabulary.into()])
    );
    let (inputs, skipped) = found("*").unwrap();
    assert_eq!((inputs.len(), skipped.len()), (2, 3));
    for pattern in ["prepared", "prepared/*", "more/old", "**/prepared.json"] {
        let message = found(pattern).unwrap_err();
        assert!(message.contains("got none but prepared data, ") && message.contains("name the files"), "{message}");
    }
    assert!(found("tokenizer").unwrap_err().contains("got none but a vocabulary, "));
    // Explicitly named paths are taken.
    assert_eq!(found("tokenizer/vocab.txt").unwrap().0, ["tokenizer/vocab.txt"]);
    assert_eq!(found(".c*").unwrap().0, [".cache/c.txt"]);
    assert!(found("more/o*/.*").unwrap_err().contains("got none; "), "neither the directory nor the one above");
    for (pattern, file) in [(".cache", ".cache/c.txt"), (".c*/*.txt", ".cache/c.txt"), ("more/._*", "more/._b.txt")] {
        assert_eq!(found(pattern).unwrap().0, [file]);
    }
}

#[test]
fn names_may_contain_any_character() {
    let directory = directory_of(&["a [1].txt", "b*.txt", "c d/[x]/e?.txt"]);
    let found = |pattern: &str| found_in(&directory, pattern).map(|(inputs, _)| inputs);
    assert_eq!(found("").unwrap(), ["a [1].txt", "b*.txt", "c d/[x]/e?.txt"]);
    assert_eq!(found("a [1].txt").unwrap(), ["a [1].txt"]);
    assert_eq!(found("c d/[x]").unwrap(), ["c d/[x]/e?.txt"]);
    assert_eq!(found("c*/*/*.txt").unwrap(), ["c d/[x]/e?.txt"]);
}

#[cfg(unix)]
#[test]
fn links_non_utf8_names_and_special_files_are_handled() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    let directory = directory_of(&["a/x.txt", "b/y.txt"]);
    let path = |name: &str| directory.path().join(name);
    let found = |pattern: &str| found_in(&directory, pattern);
    // Links to an enclosing directory, and a broken link whose name would not be taken.
    symlink(directory.path(), path("a/up")).unwrap();
    symlink("loop", path("a/loop")).unwrap();
    symlink("gone", path("a/notes.md")).unwrap();
    assert_eq!(found("").unwrap().0, ["a/x.txt", "b/y.txt"]);
    assert_eq!(found("a").unwrap().0, ["a/up/b/y.txt", "a/x.txt"]);

    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    std::fs::write(path("b").join(name), "text").unwrap();
    assert_eq!(found("b").unwrap().0, ["b/caf\u{fffd}.txt", "b/y.txt"]);

    let pipe = path("a/pipe.txt");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(found("a").unwrap().1, ["a/pipe.txt: a pipe or a device"]);
    let message = find_inputs(&[pipe, "/dev/null".into()]).unwrap_err().to_string();
    assert!(message.contains("a/pipe.txt: requires a file or directory, got a pipe or a device; write"), "{message}");

    symlink(path("b"), path("c")).unwrap();
    let message = found("").unwrap_err();
    assert!(message.contains("c/caf") && message.contains("got it twice, the first time as "), "{message}");
    std::fs::remove_file(path("c")).unwrap();
    let message = found_in(&directory, "b/*").unwrap();
    assert_eq!(message.0, ["b/y.txt"], "a pattern skips names that are not UTF-8");
    symlink("gone", path("a/z.txt")).unwrap();
    assert!(found("").unwrap_err().contains("a/z.txt"));
}
