//! Helpers of the integration tests: a workshop with a small prepared corpus and a run file, and one module per topic.

#![allow(dead_code, reason = "each test binary uses a part of the helpers")]

pub mod etcd;
pub mod fine_tuning;
pub mod hosts;
pub mod labelled;
pub mod machine;
pub mod operations;
pub mod packing;
pub mod parity;
pub mod perceptron;
pub mod preparation;
pub mod sharding;
pub mod steps;
pub mod task_steps;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use lambert::pjrt::{Platform, PlatformChoice};
use lambert::report::descriptions::description;
use lambert::runtime::devices::Devices;
use serde_json::Value;

/// The hint of a test that finds no CPU plugin.
pub const INSTALL: &str = "this test needs the CPU plugin: run `lambert plugin install cpu`, or set LAMBERT_PLUGIN";

/// A temporary directory with `data/`, prepared from a few synthetic documents, in which tests start runs.
pub struct Workshop {
    directory: tempfile::TempDir,
}

impl Workshop {
    /// Prepares the data with the lambert program.
    pub fn new() -> Workshop {
        let workshop = Workshop { directory: tempfile::tempdir().expect("a temporary directory") };
        std::fs::write(workshop.path("text.txt"), corpus()).expect("the corpus is written");
        for line in [
            ["tokenizer", "train", "text.txt", "--vocab-size", "160", "--out", "tokenizer"].as_slice(),
            ["prepare", "text.txt", "--tokenizer", "tokenizer", "--held-out", "0.2", "--out", "data"].as_slice(),
        ] {
            let output = workshop.lambert(line);
            assert!(output.status.success(), "{line:?}: {}", text(&output));
        }
        workshop
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the run file `name` with run directory `directory`, changed by `edit`.
    pub fn run_file(&self, name: &str, directory: &str, edit: impl FnOnce(String) -> String) {
        let text = edit(RUN.replace("RUN_DIRECTORY", directory));
        std::fs::write(self.path(name), text).expect("the run file is written");
    }

    /// Builds the command `lambert` with `arguments` in this directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = lambert();
        command.args(arguments).current_dir(self.directory.path());
        command
    }

    /// Runs `lambert` and returns its output.
    pub fn lambert(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("lambert starts")
    }

    /// Runs `lambert` and fails unless it succeeds.
    pub fn succeed(&self, arguments: &[&str]) -> Output {
        let output = self.lambert(arguments);
        assert!(output.status.success(), "lambert {arguments:?}\n{}", text(&output));
        output
    }
}

/// Runs `lambert` under the limit `ulimit LIMIT`.
pub fn limited(workshop: &Workshop, limit: &str, arguments: &[&str]) -> Output {
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_lambert")]).args(arguments).current_dir(workshop.path("."));
    command.env("LAMBERT_NO_CACHE", "1").output().expect("a shell starts")
}

/// Requires the exit code 1 and all of `expected` in the output, and no panic.
#[track_caller]
pub fn refused(output: &Output, expected: &[&str]) {
    let words = text(output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    expected.iter().for_each(|part| assert!(words.contains(part), "requires {part:?}, got\n{words}"));
    assert!(!words.contains("panicked"), "{words}");
}

/// Builds the command `lambert`, which neither reads nor writes the compiled programs of this user.
pub fn lambert() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lambert"));
    command.env("LAMBERT_NO_CACHE", "1");
    command
}

/// Opens the CPU plugin with `devices` virtual devices.
pub fn cpu(devices: usize) -> Devices {
    match Devices::open(&PlatformChoice::Platform(Platform::Cpu), Some(devices)) {
        Ok(devices) => devices,
        Err(error) => panic!("{error:#}\n{INSTALL}"),
    }
}

/// Returns standard output followed by standard error.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Reads the deterministic values of steps and evaluations from `metrics.jsonl` by kind and step. All have descriptions. The last line of a step counts; an
/// incomplete line, still being written or truncated by a kill, is skipped.
pub fn metrics(run: &Path) -> std::collections::BTreeMap<(String, u64), Value> {
    let content = std::fs::read_to_string(run.join("metrics.jsonl")).expect("a run writes metrics.jsonl");
    let mut metrics = std::collections::BTreeMap::new();
    for line in content.lines() {
        let mut value: Value = match serde_json::from_str(line) {
            Err(error) if error.is_eof() => continue,
            value => value.expect("a line is a JSON object"),
        };
        let object = value.as_object_mut().expect("a line is a JSON object");
        for timing in ["time", "seconds", "sequences_per_second", "tokens_per_second", "waiting_for_data"] {
            object.remove(timing);
        }
        let kind = object["kind"].as_str().expect("a kind").to_owned();
        if !["train", "evaluation"].contains(&kind.as_str()) {
            continue;
        }
        let step = object["step"].as_u64().expect("a step");
        for name in object.keys().filter(|name| !["kind", "step"].contains(&name.as_str())) {
            assert!(description(&kind, name).is_some(), "{kind}/{name} has a description in TensorBoard");
        }
        metrics.insert((kind, step), value);
    }
    metrics
}

/// Two phases with different shapes, carry-over and learning rates, with dropout, and two micro-batches per batch.
const RUN: &str = r#"
name = "small"
seed = 11

[data]
path = "data"

[model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
max_position_embeddings = 48

[optimizer]
preset = "paper"

[evaluate]
every = 4
examples = 12
micro_batch_size = 8

[checkpoint]
directory = "RUN_DIRECTORY"
every = 0
keep = 0

[[phase]]
sequence_length = 24
max_predictions_per_seq = 4
global_batch = 8
micro_batch_size = 4
steps = 6
learning_rate = 0.02
warmup = { steps = 2 }

[[phase]]
sequence_length = 48
max_predictions_per_seq = 8
global_batch = 4
micro_batch_size = 4
steps = 4
learning_rate = 0.01
warmup = { steps = 1 }
"#;

/// Generates documents from a small grammar that a model learns in a few hundred steps.
fn corpus() -> String {
    let subjects = ["The cat", "A dog", "The old man", "My sister", "The queen", "A small bird"];
    let verbs = ["sees", "finds", "likes", "follows", "paints"];
    let objects = ["the river", "a red house", "some bread", "the green hill", "a long road"];
    let mut text = String::new();
    for document in 0..200 {
        for sentence in 0..12 {
            let n = document * 31 + sentence * 17;
            let (subject, verb) = (subjects[n % subjects.len()], verbs[(n / 3) % verbs.len()]);
            text += &format!("{subject} {verb} {}. ", objects[(n / 2 + document) % objects.len()]);
        }
        text += "\n\n";
    }
    text
}
