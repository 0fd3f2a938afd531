//! A ramp of the global batch: its steps are those of runs with constant batches, however the batch is split, and resume exactly.

use std::path::Path;

use lambert::checkpoint::{Contents, load};

use crate::common::{Workshop, metrics, refused, text};

/// 8 sequences in each of the first 3 steps, 12 in the next 2, then 16.
const RAMP: &str = "batch_ramp = { start = 8, increment = 4, sequences = 48 }\n";

/// Writes a run file of one phase with eight steps, all of them saved.
fn run_file(workshop: &Workshop, name: &str, global_batch: usize, more: &str) {
    workshop.run_file(&format!("{name}.toml"), name, |text| {
        let settings = text.split("[[phase]]").next().expect("settings").replace("every = 0", "every = 1");
        format!(
            "{settings}[[phase]]\nsequence_length = 24\nmax_predictions_per_seq = 4\nglobal_batch = {global_batch}\n\
             micro_batch_size = 4\nsteps = 8\nlearning_rate = 0.02\nwarmup = {{ steps = 2 }}\n{more}"
        )
    });
}

/// Returns the weights and the state after a step.
fn state(run: &Path, step: u64) -> Vec<(String, Vec<f64>)> {
    let checkpoint = load(&run.join(format!("step-{step:08}")), Contents::All).unwrap();
    let tensors = checkpoint.model.iter().chain(&checkpoint.optimizer);
    tensors.map(|(name, tensor)| (name.clone(), tensor.to_f64())).collect()
}

#[track_caller]
fn assert_close(found: &[(String, Vec<f64>)], expected: &[(String, Vec<f64>)], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= tolerance, "{name}: {found} and {expected}");
        }
    }
}

#[test]
fn a_ramp_is_steps_of_growing_batches() {
    let workshop = Workshop::new();
    run_file(&workshop, "ramp", 16, RAMP);
    run_file(&workshop, "constant", 8, "");
    let train = |name: &str, more: &[&str]| {
        let file = format!("{name}.toml");
        text(&workshop.succeed(&[&["pretrain", &file, "--platform", "cpu"], more].concat()))
    };
    let printed = train("ramp", &[]);
    let expected = "batch 8 at first, growing by 4 to 16 within 48 sequences (5 steps)";
    assert!(printed.contains(expected), "{printed}");
    assert!(printed.contains("96 sequences"), "3 × 8 + 2 × 12 + 3 × 16: {printed}");
    train("constant", &[]);
    let [ramp, constant] = ["ramp", "constant"].map(|run| workshop.path(run));
    // The first three steps are those of a run with this batch, up to the order of sums; the fourth sees more examples.
    assert_close(&state(&ramp, 3), &state(&constant, 3), 1e-6);
    let weights = |run: &Path| state(run, 4).into_iter().find(|(name, _)| name.ends_with("word_embeddings.weight"));
    assert_ne!(weights(&ramp), weights(&constant));

    // On two devices, whose shares are padded, and in other micro-batches; with dropout.
    run_file(&workshop, "split", 16, RAMP);
    train("split", &["--devices", "2", "--set", "phase.1.micro_batch_size=2"]);
    let split = workshop.path("split");
    assert_close(&state(&split, 8), &state(&ramp, 8), 1e-3);

    // A copy of the fourth checkpoint is resumed within the ramp.
    run_file(&workshop, "resumed", 16, RAMP);
    let [from, to] = [ramp.join("step-00000004"), workshop.path("resumed").join("step-00000004")];
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    train("resumed", &["--resume"]);
    assert_eq!(state(&workshop.path("resumed"), 8), state(&ramp, 8));
    let [resumed, whole] = ["resumed", "ramp"].map(|run| metrics(&workshop.path(run)));
    let key = ("evaluation".to_owned(), 8);
    assert_eq!(resumed[&key], whole[&key]);
}

#[test]
fn packed_rows_have_ramps_too() {
    let workshop = Workshop::new();
    run_file(&workshop, "plain", 16, RAMP);
    run_file(&workshop, "packed", 16, &format!("{RAMP}sequences_per_row = 3\n"));
    for name in ["plain", "packed"] {
        let file = format!("{name}.toml");
        let dropout = ["--set", "model.hidden_dropout_prob=0", "--set", "model.attention_probs_dropout_prob=0"];
        workshop.succeed(&[&["pretrain", &file, "--platform", "cpu"], &dropout[..]].concat());
    }
    assert_close(&state(&workshop.path("packed"), 8), &state(&workshop.path("plain"), 8), 1e-3);
}

#[test]
fn impossible_ramps_are_refused() {
    let workshop = Workshop::new();
    run_file(&workshop, "run", 16, RAMP);
    for (set, more, expected) in [
        ("start=6", "", "batch_ramp.start requires a multiple of micro_batch_size (4) below global_batch (16), got 6"),
        (
            "start=16",
            "",
            "batch_ramp.start requires a multiple of micro_batch_size (4) below global_batch (16), got 16",
        ),
        (
            "increment=3",
            "",
            "batch_ramp.increment requires a multiple of micro_batch_size (4) that divides global_batch",
        ),
        ("sequences=0", "", "batch_ramp.sequences requires at least 1, got 0"),
        ("start=12", "2", "batch_ramp.start requires a multiple of micro_batch_size × replicas (4 × 2), got 12"),
    ] {
        let set = format!("phase.1.batch_ramp.{set}");
        let devices = if more.is_empty() { Vec::new() } else { vec!["--devices", more] };
        let train = [&["pretrain", "run.toml", "--platform", "cpu", "--set", &set], &devices[..]].concat();
        refused(&workshop.lambert(&train), &[expected]);
    }
}
