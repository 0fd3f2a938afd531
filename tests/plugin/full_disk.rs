//! A disk that becomes full during a write, simulated by a limit on the size of a file: writing beyond the limit fails in the
//! same way.
#![cfg(unix)]

use std::process::Output;

use crate::common::{Workshop, limited, metrics, refused, text};

/// Runs `lambert` with a limit of about `kilobytes` on file sizes (shells count in units of 512 or 1,024 bytes).
fn with_small_files(workshop: &Workshop, kilobytes: u32, arguments: &[&str]) -> Output {
    limited(workshop, &format!("-f {kilobytes}"), arguments)
}

fn names(workshop: &Workshop, directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(workshop.path(directory)).expect("a directory");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

const DISK_FULL: &str = "and the disk is full";

#[test]
fn a_failed_preparation_can_be_resumed_and_keeps_existing_data() {
    let workshop = Workshop::new();
    let before = names(&workshop, ".");
    let output = with_small_files(
        &workshop,
        4,
        &["prepare", "text.txt", "--tokenizer", "tokenizer", "--out", "more", "--held-out", "0.2"],
    );
    refused(&output, &["train-00000.spool: requires", DISK_FULL, "free some space"]);
    let output = with_small_files(
        &workshop,
        4,
        &["prepare", "text.txt", "--tokenizer", "tokenizer", "--out", "data", "--force", "--seed", "5"],
    );
    refused(&output, &["train-00000.spool: requires", DISK_FULL]);
    let with_partial = |more: &[&str]| {
        let mut names = [before.clone(), more.iter().map(|name| name.to_string()).collect()].concat();
        names.sort();
        names
    };
    assert_eq!(names(&workshop, "."), with_partial(&[".data.partial", ".more.partial"]));
    workshop.succeed(&["inspect", "data", "--check"]);
    // With free space, the preparation is resumed.
    workshop.succeed(&["prepare", "text.txt", "--tokenizer", "tokenizer", "--out", "more", "--held-out", "0.2"]);
    assert_eq!(names(&workshop, "."), with_partial(&[".data.partial", "more"]));
    workshop.succeed(&["prepare", "--check", "more"]);
    let output =
        with_small_files(&workshop, 1, &["tokenizer", "train", "text.txt", "--vocab-size", "150", "--out", "words"]);
    refused(&output, &["words", DISK_FULL]);
    assert_eq!(names(&workshop, "words"), Vec::<String>::new());
}

#[test]
fn a_run_that_cannot_write_its_metrics_saves_its_state_and_ends() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    std::fs::create_dir(workshop.path("run")).expect("the run directory is created");
    // The limit of the file's size is reached after a few steps.
    std::fs::write(workshop.path("run/metrics.jsonl"), "\n".repeat(510 * 1024)).expect("the metrics are written");
    let output = with_small_files(&workshop, 512, &["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
    refused(&output, &["cannot write run/metrics.jsonl", "to resume: lambert"]);
    let saved = names(&workshop, "run").into_iter().filter(|name| name.starts_with("step-")).collect::<Vec<_>>();
    assert_eq!(saved.len(), 1, "{saved:?}\n{}", text(&output));
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu", "--resume"]);
}

#[test]
fn a_failed_save_or_export_changes_nothing() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text.replace("hidden_size = 16", "hidden_size = 128"));
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let run = workshop.path("run");
    let (before, logged) = (names(&workshop, "run"), metrics(&run));

    let resume = ["pretrain", "run.toml", "--platform", "cpu", "--resume", "--accept-changes", "--set"];
    let output = with_small_files(&workshop, 150, &[&resume[..], &["phase.2.steps=6"]].concat());
    refused(&output, &[".step-00000012.partial/", "model.safetensors: it requires", DISK_FULL, "to resume: lambert"]);
    // The metrics of the steps are written, but the only checkpoint is the earlier one.
    assert!(metrics(&run).len() > logged.len());
    let checkpoints =
        |names: &[String]| -> Vec<String> { names.iter().filter(|name| name.contains("step-")).cloned().collect() };
    assert_eq!(checkpoints(&names(&workshop, "run")), checkpoints(&before));
    workshop.succeed(&[
        "evaluate",
        "run",
        "--data",
        "data",
        "--platform",
        "cpu",
        "--examples",
        "8",
        "--micro-batch-size",
        "4",
    ]);

    let top = names(&workshop, ".");
    refused(
        &with_small_files(&workshop, 150, &["export", "run", "--out", "exported"]),
        &["model.safetensors: it requires", DISK_FULL],
    );
    let logits = ["evaluate", "run", "--data", "data", "--platform", "cpu", "--logits", "logits.safetensors"];
    refused(&with_small_files(&workshop, 8, &logits), &["logits.safetensors", DISK_FULL]);
    assert_eq!(names(&workshop, "."), top, "no partial file is left");
    // With free space, both succeed.
    workshop.succeed(&["export", "run", "--out", "exported"]);
    workshop.succeed(&[&resume[..], &["phase.2.steps=6"]].concat());
    assert!(names(&workshop, "run").contains(&"step-00000012".to_owned()));
}
