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

/// The figures of a run, in bytes.
struct Memory {
    /// The memory that the run says it requires, beside that of the plugin and its compiler.
    required: f64,
    /// The most resident memory of the process.
    peak: f64,
}

/// Trains a run with `settings` and observes its memory.
fn observed(workshop: &Workshop, directory: &str, settings: &[&str]) -> Memory {
    let directory = format!("checkpoint.directory={directory}");
    let sets = settings.iter().copied().chain([directory.as_str()]).flat_map(|set| ["--set", set]);
    let mut command = workshop.command(&TRAIN.into_iter().chain(sets).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("asked").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB") * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    let words = text(&child.wait_with_output().expect("it ends"));
    let required = words.split_once("memory: ").and_then(|(_, rest)| rest.split_once(" of host memory"));
    let (number, unit) = required.and_then(|(size, _)| size.split_once(' ')).unwrap_or_else(|| panic!("{words}"));
    let factor = match unit {
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        other => panic!("{other}"),
    };
    Memory { required: number.parse::<f64>().expect("a number") * factor, peak: peak as f64 }
}

#[test]
fn the_memory_that_a_run_says_it_requires_is_near_its_peak() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let small = observed(&workshop, "small", &[]);
    let settings = ["model.hidden_size=768", "model.intermediate_size=3072", "phase.2.steps=2"];
    let large = observed(&workshop, "large", &settings);
    // The plugin and its compiler are those of the small run.
    let (required, used) = (large.required - small.required, large.peak - small.peak);
    assert!(used > 80e6, "{used} bytes are too few to measure");
    let share = required / used;
    assert!((0.7..1.5).contains(&share), "requires {required:.3e} bytes, and used {used:.3e}: {share:.2}");
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
