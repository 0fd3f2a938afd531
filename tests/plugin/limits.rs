//! Limits of the operating system and files that change under a run: each ends with one sentence.
#![cfg(target_os = "linux")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use lambert::pjrt::{Environment, Platform, PlatformChoice};

use crate::common::{Workshop, limited, metrics, refused, text};

const TRAIN: [&str; 4] = ["pretrain", "run.toml", "--platform", "cpu"];

fn plugin() -> PathBuf {
    let choice = PlatformChoice::Platform(Platform::Cpu);
    Environment::of_process().find(&choice).expect("run `lambert plugin install cpu`").path
}

#[test]
fn low_limits_are_refused_or_have_no_effect() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let address_space = limited(&workshop, "-v 700000", &TRAIN);
    refused(&address_space, &["a plugin requires ", "of address space", "raise it (`ulimit -v`)"]);
    let few_files = limited(&workshop, "-n 9", &TRAIN);
    refused(&few_files, &["Too many open files"]);
    assert_eq!(text(&few_files).matches("os error 24").count(), 1, "{}", text(&few_files));
    // The stack of the main thread alone is limited: verbs run on another one.
    for arguments in [&["inspect", "data"][..], &["graph", "run.toml", "--out", "graphs"], &TRAIN] {
        let output = limited(&workshop, "-s 64", arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    }
}

#[test]
fn a_run_that_does_not_fit_into_memory_is_refused_before_its_first_step() {
    let workshop = Workshop::new();
    // 1.2 GB of weights and optimizer state; the programs are compiled in less.
    let wide = |text: String| text.replace("hidden_size = 16", "hidden_size = 4096");
    workshop.run_file("run.toml", "run", wide);
    // The address space that threads take grows with the number of processors, and varies with their timing.
    let on_one_processor = "taskset -cp $(taskset -cp $$ | sed 's/.*: *//; s/[-,].*//') $$ > /dev/null";
    let output = limited(&workshop, &format!("-v 2400000 && {on_one_processor}"), &TRAIN);
    refused(&output, &["the run requires", "of host memory", "(the limit on address space", "set ignore_memory"]);
    assert!(!workshop.path("run/metrics.jsonl").exists());
}

#[test]
fn a_plugin_that_was_cut_short_is_refused_before_it_is_loaded() {
    let workshop = Workshop::new();
    let path = workshop.path("pjrt_c_api_cpu_plugin.so");
    std::fs::copy(plugin(), &path).expect("the plugin is copied");
    let file = std::fs::File::options().write(true).open(&path).expect("writable");
    let length = file.metadata().expect("a length").len();
    let devices = || workshop.lambert(&["devices", "--platform", path.to_str().expect("text")]);
    for length in [length - 1, length / 2, 4096] {
        file.set_len(length).expect("cut");
        refused(&devices(), &[&format!("it has {length} bytes, and its ELF headers describe"), "it was cut short"]);
    }
    file.set_len(100).expect("cut");
    refused(&devices(), &["it has 100 bytes"]);
    std::fs::write(&path, "not a library").expect("written");
    // The loader's own words, once.
    refused(&devices(), &["pjrt_c_api_cpu_plugin.so cannot be opened: ", "file too short"]);
}

#[test]
fn a_shard_that_is_truncated_while_it_is_read_ends_the_run_with_a_sentence() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text.replace("steps = 6\n", "steps = 1_000_000\n"));
    let mut child = workshop.command(&TRAIN).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let begin = Instant::now();
    let trains = |run: &Path| run.join("metrics.jsonl").exists() && metrics(run).keys().any(|(_, step)| *step > 2);
    while !trains(&workshop.path("run")) {
        assert!(begin.elapsed() < Duration::from_secs(240) && child.try_wait().expect("asked").is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    let shard = workshop.path("data/train-00000.safetensors");
    std::fs::File::options().write(true).open(shard).expect("writable").set_len(64).expect("cut");
    let mut words = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut words).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{words}");
    assert!(
        words.contains("train-00000.safetensors: requires") && words.contains("as when it was opened, got 64"),
        "{words}"
    );
}

#[test]
fn a_closed_pipe_ends_no_verb_with_a_message() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let verbs: [&[&str]; 6] = [
        &["inspect", "data"],
        &["inspect", "data", "--json"],
        &["devices"],
        &["plan", "run.toml", "--topology", "cpu"],
        &["--help"],
        &TRAIN,
    ];
    for arguments in verbs {
        let mut child =
            workshop.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts");
        drop(child.stdout.take());
        let mut words = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut words).expect("text");
        let code = child.wait().expect("it ends").code();
        assert!(!words.contains("panicked") && !words.contains("roken pipe"), "{arguments:?}: {words}");
        assert!(code.is_some(), "{arguments:?} ended by a signal: {words}");
    }
}
