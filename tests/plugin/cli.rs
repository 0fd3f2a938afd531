//! The command line: exit codes, and a one-line error for every user mistake before any long work.

use std::process::Stdio;

use crate::common::{Workshop, text};
use clap::CommandFactory;
use lambert::bert::{Preset, param_specs};
use lambert::cli::Cli;

#[track_caller]
fn fails(workshop: &Workshop, arguments: &[&str], code: i32, expected: &[&str]) {
    let output = workshop.lambert(arguments);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "lambert {arguments:?}\n{text}");
    for words in expected {
        assert!(text.contains(words), "lambert {arguments:?} requires {words:?}, got\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn user_errors_print_one_line_and_the_documented_exit_code() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.run_file("typo.toml", "run", |text| {
        text.replace("micro_batch_size = 4\nsteps = 4", "mirco_batch_size = 4\nsteps = 4")
    });
    let pretrain = |set: &'static str| ["pretrain", "run.toml", "--platform", "cpu", "--set", set];

    fails(&workshop, &["pretrian"], 2, &["unrecognized subcommand", "pretrain"]);
    let logits = ["evaluate", "run", "--data", "data", "--logits", "logits.safetensors"];
    for measured in [&["--probe", "reviews.tsv"][..], &["--json"]] {
        fails(
            &workshop,
            &[&logits[..], measured].concat(),
            2,
            &["'--logits <FILE>' cannot be used with '", measured[0]],
        );
    }
    fails(&workshop, &["pretrain", "run.toml", "--platform", "gpu"], 2, &["requires auto, cpu, cuda, tpu"]);
    fails(&workshop, &["pretrain", "none.toml"], 1, &["cannot read the run file none.toml", "scripts/runs/"]);
    fails(
        &workshop,
        &["pretrain", "typo.toml"],
        1,
        &["typo.toml:41: unknown key `mirco_batch_size` in [[phase]]; did you mean `micro_batch_size`?"],
    );
    fails(
        &workshop,
        &pretrain("data.path=nowhere"),
        1,
        &["no prepared data at nowhere", "set vocab_size, or prepare the data with `lambert prepare`"],
    );
    fails(
        &workshop,
        &pretrain("model.vocab_size=99"),
        1,
        &["[model] requires word embeddings with a row for each", "[99, 16]"],
    );
    fails(
        &workshop,
        &pretrain("model.num_attention_heads=3"),
        1,
        &["hidden_size requires a multiple of num_attention_heads (3)"],
    );
    fails(
        &workshop,
        &pretrain("phase.1.max_predictions_per_seq=25"),
        1,
        &["max_predictions_per_seq requires at most sequence_length (24)"],
    );
    fails(
        &workshop,
        &pretrain("phase.2.sequence_length=49"),
        1,
        &["requires 1 to max_position_embeddings (48), got 49"],
    );
    fails(&workshop, &pretrain("phase.1.global_batch=6"), 1, &["global_batch requires a multiple of micro_batch_size"]);
    fails(&workshop, &pretrain("checkpoint.directory=text.txt"), 1, &["[checkpoint] directory", "text.txt"]);
    fails(&workshop, &pretrain("precision=f64"), 1, &["`precision` requires \"f32\" or \"bf16\""]);
    fails(
        &workshop,
        &["pretrain", "run.toml", "--platform", "cpu", "--devices", "4"],
        1,
        &["devices × micro_batch_size (4 × 4 = 16), got 8; the nearest are 16"],
    );
    fails(&workshop, &["evaluate", "text.txt", "--data", "data"], 1, &["text.txt", "it is not a directory"]);
    fails(&workshop, &["pretrain", "run.toml", "--platform", "text.txt"], 1, &["text.txt"]);
    assert!(!workshop.path("run/metrics.jsonl").exists(), "no run was started");
}

#[test]
fn bench_accepts_the_sharding_options_of_run_files() {
    let workshop = Workshop::new();
    let bench = |more: &[&str]| -> serde_json::Value {
        let line = [
            "bench",
            "--model",
            "tiny",
            "--vocab-size",
            "64",
            "--sequence-length",
            "16",
            "--micro-batch-size",
            "2",
            "--steps",
            "100",
        ];
        let devices = ["--platform", "cpu", "--devices", "2", "--optimizer-sharding", "sharded", "--json"];
        let output = workshop.succeed(&[&line[..], &devices, more].concat());
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    };
    let (exact, rounded) = (bench(&[]), bench(&["--gradient-reduce-dtype", "bf16"]));
    let elements: usize = param_specs(&Preset::Tiny.config(64)).iter().map(|p| p.dims.iter().product::<usize>()).sum();
    for (bench, exchange) in [(&exact, "f32"), (&rounded, "bf16")] {
        let found =
            ["gradient_reduce_dtype", "optimizer_sharding", "optimizer_is_sharded"].map(|name| bench[name].clone());
        assert_eq!(serde_json::json!(found), serde_json::json!([exchange, "sharded", true]));
        let state = bench["program_state_bytes"].as_f64().unwrap() / (3 * 4 * elements) as f64;
        assert!((0.5..0.51).contains(&state), "a device holds half of weights and optimizer state, got {state}");
    }
    let [exact, rounded] = [exact, rounded].map(|bench| bench["loss"].as_f64().unwrap());
    assert!(exact != rounded && (exact - rounded).abs() < 0.01, "only gradients are rounded: {exact}, {rounded}");
    fails(&workshop, &["bench", "--gradient-reduce-dtype", "fp8"], 2, &["fp8", "f32, bf16"]);
    fails(&workshop, &["bench", "--optimizer-sharding", "half"], 2, &["half", "none, sharded, auto"]);
}

/// Without kept blocks, the kernel maps and clears the temporaries, 32 MB here, in each step: 8,000 pages of 4 kB, or 16 of 2 MB and
/// hundreds around them.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_memory_of_temporaries_is_kept_between_steps() {
    let workshop = Workshop::new();
    let line =
        ["bench", "--model", "tiny", "--vocab-size", "2048", "--sequence-length", "64", "--micro-batch-size", "16"];
    let output = workshop.succeed(&[&line[..], &["--platform", "cpu", "--steps", "40", "--json"]].concat());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let [temporaries, faults] =
        ["program_temporary_bytes", "page_faults_per_step"].map(|key| found[key].as_f64().unwrap());
    assert!(temporaries > 20e6, "the program is too small for this test: {temporaries} bytes");
    assert!(faults < 100.0, "{faults} page faults for each step");
}

#[test]
fn bench_finds_the_fastest_micro_batch_size() {
    let workshop = Workshop::new();
    let tiny =
        ["--model", "tiny", "--vocab-size", "64", "--sequence-length", "16", "--platform", "cpu", "--steps", "3"];
    // Near the fastest size, so that few are compiled.
    let search = ["bench", "--find-micro-batch-size", "--micro-batch-size", "64"];
    let output = workshop.succeed(&[&search[..], &tiny, &["--json"]].concat());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let tried = found["tried"].as_array().unwrap();
    let rate_of = |tried: &serde_json::Value| tried["sequences_per_second"].as_f64().unwrap();
    let sizes: Vec<u64> = tried.iter().map(|tried| tried["micro_batch_size"].as_u64().unwrap()).collect();
    assert!(
        sizes.len() > 1 && sizes.is_sorted() && sizes.contains(&64) && sizes.iter().all(|size| size.is_power_of_two())
    );
    let best = tried.iter().map(rate_of).fold(0.0, f64::max);
    let chosen = tried.iter().find(|tried| rate_of(tried) >= 0.99 * best).unwrap();
    assert_eq!(found["micro_batch_size"], chosen["micro_batch_size"], "the smallest within 1 % of the best: {tried:?}");
    assert_eq!(found["sequences_per_second"], chosen["sequences_per_second"]);
    fails(&workshop, &[&search[..], &tiny, &["--profile"]].concat(), 2, &["--find-micro-batch-size", "--profile"]);
}

#[test]
fn every_command_has_examples_in_its_help() {
    fn leaves(command: &clap::Command, road: &str, found: &mut Vec<(String, String)>) {
        let road = format!("{road} {}", command.get_name()).trim().to_owned();
        for verb in command.get_subcommands() {
            leaves(verb, &road, found);
        }
        if !command.has_subcommands() {
            found.push((road, command.get_after_help().map(ToString::to_string).unwrap_or_default()));
        }
    }
    let mut verbs = Vec::new();
    leaves(&Cli::command(), "", &mut verbs);
    assert!(verbs.len() > 12, "{verbs:?}");
    for (verb, after) in verbs {
        let examples = after.split_once("Examples:\n").map(|(_, examples)| examples.split("\n\n").next().unwrap());
        let example = format!("  {verb}");
        assert!(examples.is_some_and(|text| text.lines().any(|line| line.starts_with(&example))), "{verb}: {after}");
        // Longer lines are wrapped, which breaks lists and commands.
        let long = after.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{verb}");
    }
}

#[test]
fn closed_output_pipes_do_not_stop_a_command() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    for line in [
        ["tokenizer", "train", "text.txt", "--vocab-size", "170", "--out", "other"].as_slice(),
        &["prepare", "text.txt", "--tokenizer", "tokenizer", "--held-out", "0.2", "--out", "other-data"],
        &["inspect", "data", "--sequence-length", "24"],
        &["plugin", "list"],
        &["devices"],
        &["graph", "run.toml", "--out", "dump"],
        &["pretrain", "run.toml", "--platform", "cpu"],
        &["evaluate", "run", "--data", "data", "--platform", "cpu"],
        &["export", "run", "--out", "exported"],
        &["import", "exported", "--out", "imported"],
        &["bench", "--model", "tiny", "--vocab-size", "64", "--steps", "1", "--platform", "cpu"],
    ] {
        // Both streams are closed before the command writes anything.
        let mut child =
            workshop.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts");
        drop((child.stdout.take(), child.stderr.take()));
        let status = child.wait().expect("lambert ends");
        assert_eq!(status.code(), Some(0), "lambert {line:?} | true");
    }
    assert!(workshop.path("dump/small.phase-2.hlo.pb").exists(), "the command completed its work");
    assert!(workshop.path("run/step-00000010").exists() && workshop.path("imported/step-00000000").exists());

    // A full disk behind the stream is an error, unlike a closed pipe.
    let full = std::fs::File::options().write(true).open("/dev/full");
    let Ok(full) = full else { return };
    let mut child = workshop.command(&["inspect", "data"]).stdout(full).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stderr = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().expect("piped"), &mut stderr).expect("readable");
    assert_eq!(child.wait().expect("ends").code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write to standard output"), "{stderr}");
}
