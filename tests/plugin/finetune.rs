//! `lambert finetune` on the CPU plugin: what is learned, resumed runs, the best checkpoint, several seeds, and models that go
//! through an export.

use std::path::Path;

use serde_json::Value;

use crate::common::labelled::{KINDS, LabelledFiles, file_name, succeeded};
use crate::common::{metrics, text};
use lambert::run::fine_tuning::FineTuning;

/// Returns the names of the checkpoints of a run.
fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run).expect("a run directory").map(|entry| entry.expect("an entry").file_name());
    let names = entries.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("step-"));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("JSON")
}

/// Returns the best evaluation that a checkpoint records: metric, step and value.
fn best(checkpoint: &Path) -> (String, u64, f64) {
    let state = json_of(&checkpoint.join("state.json"));
    let best = ["/state/best", "/best"].iter().find_map(|key| state.pointer(key)).expect("a best evaluation");
    let name = best["metric"].as_str().expect("a name").to_owned();
    (name, best["step"].as_u64().expect("a step"), best["value"].as_f64().expect("a value"))
}

fn evaluation(run: &Path, step: u64) -> Value {
    let mut evaluation = metrics(run).remove(&("evaluation".to_owned(), step)).expect("an evaluation");
    evaluation.as_object_mut().expect("an object").remove("step");
    evaluation
}

#[track_caller]
fn fails(output: &std::process::Output, said: &[&str]) {
    let words = text(output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(said.iter().all(|part| words.contains(part)), "requires {said:?}, got\n{words}");
    let errors = words.lines().filter(|line| line.starts_with("error: ")).count();
    assert!(errors == 1 && !words.contains("panicked"), "{words}");
}

/// Trains a task, checks that it learns, and that the run is bit-identical if it is resumed from the checkpoint of step 12.
fn learns_and_resumes(kind: &str, expected: &[&str]) {
    let files = LabelledFiles::new();
    succeeded(&files.fine_tune(kind, "run", &[]));
    let run = files.path("run");
    let last = evaluation(&run, 24);
    for name in expected {
        let (value, baseline) = (last[*name].as_f64().unwrap(), last[format!("{name}_baseline")].as_f64().unwrap());
        let gain =
            if name.ends_with("_loss") || name.ends_with("_error") { baseline - value } else { value - baseline };
        assert!(gain > 0.2, "{kind}: {name} is {value}, its baseline {baseline}");
    }
    assert_eq!(last["examples"], 27.0);

    let (straight, logged) = (files.path("straight"), metrics(&run));
    std::fs::rename(&run, &straight).unwrap();
    std::fs::create_dir(&run).unwrap();
    std::fs::copy(straight.join("metrics.jsonl"), run.join("metrics.jsonl")).unwrap();
    for step in ["step-00000004", "step-00000008", "step-00000012"] {
        std::fs::create_dir(run.join(step)).unwrap();
        for entry in std::fs::read_dir(straight.join(step)).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, run.join(step).join(path.file_name().unwrap())).unwrap();
        }
    }
    succeeded(&files.fine_tune(kind, "run", &["--resume"]));
    for step in ["step-00000016", "step-00000024"] {
        for name in ["model.safetensors", "optimizer.safetensors", "config.json"] {
            let [resumed, expected] = [&run, &straight].map(|run| std::fs::read(run.join(step).join(name)).unwrap());
            assert!(resumed == expected, "{kind}: {step}/{name} of the resumed run differs");
        }
        assert_eq!(best(&run.join(step)), best(&straight.join(step)), "{kind}: {step}");
    }
    assert!(metrics(&run) == logged, "{kind}: metrics differ:\n{:#?}\n{logged:#?}", metrics(&run));
}

#[test]
fn sequence_classification_learns_and_resumes_bit_identically() {
    learns_and_resumes(KINDS[0], &["classification_loss", "accuracy", "macro_f1", "matthews"]);
}

#[test]
fn regression_learns_and_resumes_bit_identically() {
    learns_and_resumes(KINDS[1], &["mean_squared_error", "pearson", "spearman"]);
}

#[test]
fn token_classification_learns_and_resumes_bit_identically() {
    learns_and_resumes(KINDS[2], &["token_loss", "token_accuracy", "f1", "precision", "recall"]);
}

#[test]
fn question_answering_learns_and_resumes_bit_identically() {
    learns_and_resumes(KINDS[3], &["span_loss", "f1", "exact_match"]);
}

#[test]
fn result_is_independent_of_micro_batch_size_and_devices() {
    let files = LabelledFiles::new();
    let losses = |directory: &str, more: &[&str]| -> Vec<f64> {
        let short = ["--set", "train.epochs=2", "--set", "checkpoint.every=0"];
        succeeded(&files.fine_tune(KINDS[0], directory, &[&short[..], more].concat()));
        let metrics = metrics(&files.path(directory));
        let names = ["loss", "classification_loss", "accuracy", "macro_f1"];
        metrics.values().flat_map(|line| names.map(|name| line[name].as_f64())).flatten().collect()
    };
    let expected = losses("one", &[]);
    let cases: [(&str, &[&str]); 2] = [
        ("rows", &["--set", "train.micro_batch_size=16", "--set", "evaluate.micro_batch_size=5"]),
        ("devices", &["--devices", "2", "--set", "train.micro_batch_size=4"]),
    ];
    for (directory, more) in cases {
        let found = losses(directory, more);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-4, "{directory}: {found} and {expected}");
        }
    }
}

#[test]
fn best_checkpoint_is_kept_exported_and_fine_tuned_again() {
    let files = LabelledFiles::new();
    let (kind, run) = (KINDS[0], files.path("run"));
    let early = ["--set", "checkpoint.keep=1", "--set", "checkpoint.every=0", "--set", "evaluate.patience=2"];
    let more = [&early[..], &["--set", "evaluate.every=2", "--set", "train.epochs=20"]].concat();
    let said = succeeded(&files.fine_tune(kind, "run", &more));
    assert!(said.contains("stopped early"), "{said}");
    let kept = checkpoints(&run);
    let (metric, step, value) = best(&run.join(kept.last().unwrap()));
    let names = [format!("step-{step:08}"), format!("step-{:08}", step + 4)];
    assert_eq!((metric.as_str(), kept.as_slice()), ("accuracy", names.as_slice()));
    assert_eq!(evaluation(&run, step)["accuracy"], value);
    let complete = succeeded(&files.fine_tune(kind, "run", &[&more[..], &["--resume"]].concat()));
    assert!(complete.contains("small (seed 5) is complete"), "{complete}");
    assert_eq!(checkpoints(&run), kept, "nothing is trained or removed");

    // The best checkpoint is exported, with its labels.
    succeeded(&files.lambert(&["export", "run", "--out", "exported"]));
    let config = json_of(&files.path("exported/config.json"));
    assert_eq!((&config["id2label"]["0"], &config["id2label"]["1"]), (&"no".into(), &"yes".into()));
    let expected = evaluation(&run, step);
    let from_exported = format!("import={}", files.path("exported").display());
    let again = ["--set", &from_exported, "--set", "train.epochs=0.25", "--set", "train.warmup={steps=0}"];
    succeeded(&files.fine_tune(kind, "again", &again));
    assert_eq!(evaluation(&files.path("again"), 0), expected, "the head is kept");

    // Another order of the labels is another head.
    let other = [&again[..], &["--set", "task.labels=[\"yes\", \"no\"]"]].concat();
    let open = |more: &[&str]| {
        let sets: Vec<&str> =
            other.iter().copied().chain(more.iter().copied()).filter(|word| *word != "--set").collect();
        FineTuning::open(files.open(kind, &sets).unwrap())
    };
    let refused = format!("{:#}", open(&[]).unwrap_err());
    assert!(refused.contains("with the labels no, yes, found") && refused.contains("replace_head = true"), "{refused}");
    assert!(open(&["task.replace_head=true"]).is_ok());
    fails(&files.fine_tune(kind, "other", &other), &["replace_head = true"]);

    fails(
        &files.lambert(&["evaluate", "run", "--data", "nowhere", "--platform", "cpu"]),
        &["--data requires a model with the heads of pretraining", "is a BertForSequenceClassification"],
    );
}

#[test]
fn run_that_resumes_with_another_metric_selects_the_best_checkpoint_anew() {
    let files = LabelledFiles::new();
    let tune = |more: &[&str]| succeeded(&files.fine_tune(KINDS[0], "run", more));
    tune(&["--set", "train.epochs=1"]);
    assert_eq!(best(&files.path("run/step-00000004")).0, "accuracy");
    tune(&["--resume", "--accept-changes", "--set", "train.epochs=2", "--set", "evaluate.metric=matthews"]);
    let (metric, step, value) = best(&files.path("run/step-00000008"));
    assert_eq!((metric.as_str(), step), ("matthews", 8));
    assert_eq!(evaluation(&files.path("run"), 8)["matthews"], value);
}

#[test]
fn seeds_share_programs_and_a_complete_run_prints_the_same_table() {
    let files = LabelledFiles::new();
    let seeds = |more: &[&str]| files.fine_tune(KINDS[1], "run", &[&["--seeds", "1,2"], more].concat());
    let table = |said: &str| -> Vec<String> {
        let lines = said.lines().skip_while(|line| !line.contains("std. dev."));
        lines.take_while(|line| line.starts_with([' ', '═', '─'])).map(str::to_owned).collect()
    };
    // The second directory is checked before the first seed is trained.
    std::fs::create_dir_all(files.path("run/seed-2")).unwrap();
    files.write("run/seed-2/metrics.jsonl", "");
    fails(&seeds(&[]), &["run/seed-2 already holds a run"]);
    assert!(checkpoints(&files.path("run/seed-1")).is_empty());
    fails(&files.fine_tune(KINDS[1], "run", &["--seeds", "1,1"]), &["seeds: requires each seed once, got 1 twice"]);
    std::fs::remove_dir_all(files.path("run")).unwrap();

    let first = succeeded(&seeds(&[]));
    let rows = table(&first);
    assert!(rows.iter().any(|row| row.contains("pearson")), "{first}");
    let [one, two] = ["run/seed-1", "run/seed-2"].map(|name| evaluation(&files.path(name), 24));
    assert!(one != two && checkpoints(&files.path("run/seed-1")) == checkpoints(&files.path("run/seed-2")));
    let again = succeeded(&seeds(&["--resume"]));
    assert!(again.contains("(seed 1) is complete") && again.contains("(seed 2) is complete"), "{again}");
    assert_eq!(table(&again), rows);

    let output = seeds(&["--resume", "--json"]);
    let object: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!((&object["seeds"][0]["seed"], &object["seeds"][1]["seed"]), (&1.into(), &2.into()));
    let value = |seed: usize| object["seeds"][seed]["metrics"]["pearson"].as_f64().unwrap();
    let mean = object["metrics"]["pearson"]["mean"].as_f64().unwrap();
    assert!((mean - f64::midpoint(value(0), value(1))).abs() < 1e-12);

    // A checkpoint has the selected metric even if the log is lost.
    std::fs::remove_file(files.path("run/seed-2/metrics.jsonl")).unwrap();
    let output = seeds(&["--resume", "--json"]);
    let lost: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!(lost["metrics"]["pearson"], object["metrics"]["pearson"]);
}

#[test]
fn settings_model_and_data_of_a_resumed_run_are_compared_by_name() {
    let files = LabelledFiles::new();
    let kind = KINDS[0];
    let resume = |more: &[&str]| files.fine_tune(kind, "run", &[&["--seeds", "3", "--resume"], more].concat());
    succeeded(&files.fine_tune(kind, "run", &["--seeds", "3", "--set", "train.epochs=0.5"]));
    let short = ["--set", "train.epochs=0.5", "--set"];
    let differs = |set: &str, setting: &str| {
        fails(&resume(&[&short[..], &[set]].concat()), &[&format!("other settings ({setting})")]);
    };
    differs("train.learning_rate=0.01", "train.learning_rate");
    differs("model.hidden_dropout_prob=0.2", "config.hidden_dropout_prob, model.hidden_dropout_prob");
    let dev = file_name(kind, "dev");
    let longer = std::fs::read_to_string(files.path(&dev)).unwrap() + "the good house\tyes\n";
    files.write("longer.tsv", &longer);
    differs(&format!("task.dev={}", files.path("longer.tsv").display()), "the data");
}
