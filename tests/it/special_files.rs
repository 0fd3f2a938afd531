//! A named pipe in the place of each kind of file: refused with one sentence, where opening it would wait for a writer.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use lambert::plugins::pins::PACKAGES;

use crate::common::labelled::{KINDS, LabelledFiles, file_name};
use crate::common::{Workshop, text};

/// Waits for `command`, but not for ever.
fn output(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts");
    let begin = Instant::now();
    while child.try_wait().expect("a child can be asked").is_none() {
        if begin.elapsed() > Duration::from_secs(30) {
            child.kill().expect("a child can be killed");
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("a child has output")
}

/// Puts a named pipe in the place of the file `path` while `command` runs, and checks that it is refused.
#[track_caller]
fn refused(path: &Path, command: Command) {
    let hidden = path.with_added_extension("hidden");
    let existed = path.exists();
    if existed {
        fs::rename(path, &hidden).expect("the file is moved away");
    }
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    let output = output(command);
    let words = text(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    let expected = ["a regular file is required, found a named pipe", "got a pipe or a device", " bytes, found 0)"];
    assert!(expected.iter().any(|expected| words.contains(expected)), "{}: {words}", path.display());
    assert!(!words.contains("panicked") && words.lines().filter(|line| line.starts_with("error: ")).count() == 1);
    fs::remove_file(path).expect("the pipe is removed");
    if existed {
        fs::rename(hidden, path).expect("the file is moved back");
    }
}

#[test]
fn pipes_in_the_place_of_texts_tokenizers_and_prepared_data_are_refused() {
    let workshop = Workshop::new();
    let check = |file: &str, arguments: &[&str]| refused(&workshop.path(file), workshop.command(arguments));
    check("text.txt", &["prepare", "text.txt", "--tokenizer", "tokenizer", "--out", "more"]);
    check("text.txt", &["tokenizer", "train", "text.txt", "--vocab-size", "150", "--out", "words"]);
    check("text.txt", &["tokenizer", "encode", "text.txt", "--tokenizer", "tokenizer", "--out", "ids.jsonl"]);
    for file in ["tokenizer.json", "vocab.txt", "tokenizer_config.json"] {
        check(&format!("tokenizer/{file}"), &["prepare", "text.txt", "--tokenizer", "tokenizer", "--out", "more"]);
    }
    check("words.txt", &["prepare", "text.txt", "--tokenizer", "words.txt", "--out", "more"]);
    check("words.json", &["prepare", "text.txt", "--tokenizer", "words.json", "--out", "more"]);
    for file in ["prepared.json", "tokenizer/vocab.txt", "train-00000.safetensors", "held_out-00000.safetensors"] {
        check(&format!("data/{file}"), &["inspect", "data"]);
    }
    check("data/tokenizer/tokenizer.json", &["inspect", "data", "--check"]);
    check("run.toml", &["pretrain", "run.toml", "--platform", "cpu"]);
    check("run.toml", &["finetune", "run.toml", "--platform", "cpu"]);
    check("plugin.so", &["bench", "--model", "tiny", "--platform", "./plugin.so"]);
    let wheel = PACKAGES[0].wheels[0].file;
    let mut command = workshop.command(&["plugin", "install", "cpu", "--wheel", wheel]);
    command.env("XDG_CACHE_HOME", workshop.path("cache"));
    refused(&workshop.path(wheel), command);
    assert!(!workshop.path("more").exists() && !workshop.path("ids.jsonl").exists());
}

#[test]
fn pipes_in_the_place_of_models_and_labelled_files_are_refused() {
    let files = LabelledFiles::new();
    let lambert = |arguments: &[&str]| {
        let mut command = crate::common::lambert();
        command.args(arguments).current_dir(files.path("."));
        command
    };
    let checkpoint = fs::read_dir(files.path("model")).expect("a run directory").map(|entry| entry.expect("an entry"));
    let checkpoint = checkpoint.map(|entry| entry.path()).find(|path| path.is_dir()).expect("a checkpoint");
    // A checkpoint is named, because a damaged one of a run is passed over.
    let name = checkpoint.to_str().expect("text");
    for file in ["state.json", "config.json", "model.safetensors"] {
        refused(&checkpoint.join(file), lambert(&["export", name, "--out", "exported"]));
    }
    let exported = output(lambert(&["export", name, "--out", "exported"]));
    assert!(exported.status.success(), "{}", text(&exported));
    for file in ["config.json", "model.safetensors"] {
        refused(&files.path("exported").join(file), lambert(&["import", "exported", "--out", "imported"]));
    }
    files.write("run.toml", &files.run(KINDS[0], "run"));
    for split in ["train", "dev"] {
        refused(&files.path(&file_name(KINDS[0], split)), lambert(&["finetune", "run.toml", "--platform", "cpu"]));
    }
}
