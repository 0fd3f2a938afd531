//! `lambert study`: results are those of ordinary runs with the best settings and other seeds, also after a kill.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Workshop, metrics, text};

/// Writes the base run file, with one phase, and the study file.
fn study(workshop: &Workshop, name: &str, edit: impl FnOnce(String) -> String) {
    workshop.run_file("base.toml", "base", |text| {
        let one_phase = text.rsplit_once("[[phase]]").expect("two phases").0.to_owned();
        one_phase.replace("seed = 11", "seed = 11\nskip_non_finite = 0")
    });
    let text = format!(
        r#"
name = "{name}"
base = "base.toml"
directory = "{name}"
sequences = [64]
batches = [8, 32]
tuning_seed = 1
seeds = [2]
target = 5.0
evaluations = 2
learning_rate_scaling = {{ rule = "sqrt", batch = 8 }}

[[optimizer]]
name = "LAMB"
table = {{ preset = "paper" }}
space = {{ "phase.1.learning_rate" = [0.02, 0.0001] }}

[[optimizer]]
name = "AdamW"
table = {{ kind = "adamw" }}
space = {{ "optimizer.beta2" = [0.9, 0.99] }}
"#
    );
    std::fs::write(workshop.path(&format!("{name}.toml")), edit(text)).unwrap();
}

fn command<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["study", name, "--platform", "cpu"][..], more].concat()
}

fn results(workshop: &Workshop, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(workshop.path(name).join("study.json")).unwrap()).unwrap()
}

/// Returns the value of each trial by directory.
fn values(results: &Value) -> BTreeMap<String, String> {
    let rows = results["rows"].as_array().unwrap().iter();
    rows.map(|row| (row["directory"].as_str().unwrap().to_owned(), row["value"].to_string())).collect()
}

/// Checks each cell: its best settings tuned best, and its mean is that of the other seeds with these settings.
fn check_cells(found: &Value, seeds: usize) {
    let rows = found["rows"].as_array().unwrap();
    for cell in found["cells"].as_array().unwrap() {
        let of_cell = |row: &&Value| row["optimizer"] == cell["optimizer"] && row["batch"] == cell["batch"];
        let value = |row: &Value| row["value"].as_f64().unwrap();
        let tuned = rows.iter().filter(of_cell).filter(|row| row["seed"] == 1);
        let best = tuned.min_by(|a, b| value(a).total_cmp(&value(b))).unwrap();
        assert_eq!(best["settings"], cell["best"], "{cell}");
        let reported = rows.iter().filter(of_cell).filter(|row| row["seed"] != 1 && row["settings"] == cell["best"]);
        let reported: Vec<f64> = reported.map(value).collect();
        assert_eq!(reported.len(), seeds);
        let mean = reported.iter().sum::<f64>() / seeds as f64;
        assert!((cell["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{cell}");
        assert!(seeds < 2 || reported[0] != reported[1], "the seeds differ: {cell}");
    }
}

#[test]
fn results_are_those_of_the_best_settings_with_other_seeds() {
    let workshop = Workshop::new();
    study(&workshop, "small", |text| text);
    let plan = text(&workshop.succeed(&command("small.toml", &["--plan"])));
    assert!(plan.contains("12 trials, of which 0 have ended") && plan.contains("LAMB, batch 32"), "{plan}");
    assert!(!workshop.path("small").exists(), "a plan writes nothing");

    let output = text(&workshop.succeed(&command("small.toml", &[])));
    assert!(
        output.contains("12 of 12 trials have ended") && output.contains("keeps its value up to batch"),
        "{output}"
    );
    let found = results(&workshop, "small");
    assert!(output.contains("LAMB, batch 8: the best value is at the edge of those that were tried"), "{output}");
    assert_eq!(values(&found).len(), 12);
    check_cells(&found, 1);

    // A trial is an ordinary run: its run file gives the same value elsewhere.
    let rows = found["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["optimizer"] == "LAMB" && row["batch"] == 32 && row["seed"] == 2).unwrap();
    let run_file = workshop.path(row["directory"].as_str().unwrap()).join("run.toml");
    let scaled = std::fs::read_to_string(&run_file).unwrap();
    let rate = row["settings"]["phase.1.learning_rate"].as_f64().unwrap() * 2.0;
    assert!(scaled.contains(&format!("learning_rate = {rate}")), "twice the rate at four times the batch: {scaled}");
    let elsewhere = ["--platform", "cpu", "--set", "checkpoint.directory=elsewhere"];
    workshop.succeed(&[&["pretrain", run_file.to_str().unwrap()], &elsewhere[..]].concat());
    let last = &metrics(&workshop.path("elsewhere"))[&("evaluation".to_owned(), 2)];
    assert_eq!(last["mlm_loss"], row["value"]);
    // Trials that tuned have no checkpoints left.
    let has_checkpoint = |row: &Value| {
        let directory = workshop.path(row["directory"].as_str().unwrap());
        std::fs::read_dir(directory).unwrap().any(|e| e.unwrap().file_name().to_str().unwrap().starts_with("step-"))
    };
    assert!(rows.iter().all(|row| has_checkpoint(row) == (row["seed"] != 1)));
    let page = std::fs::read_to_string(workshop.path("small/study.html")).unwrap();
    assert!(page.contains("mlm_loss by batch") && !page.contains("http"), "{}", page.len());

    // Started again with another seed, only what is new is trained.
    let more = text(&workshop.succeed(&command("small.toml", &["--set", "seeds=[2,3]"])));
    assert!(!more.contains("trial 12/16") && more.contains("trial 13/16"), "{more}");
    assert!(more.contains("16 of 16 trials have ended"), "{more}");
    check_cells(&results(&workshop, "small"), 2);

    // Another machine takes over what was trained here, and trains what is missing.
    let elsewhere = ["--set", "directory=other", "--set", "seeds=[2,3,4]", "--results", "small/study.json"];
    let taken = text(&workshop.succeed(&command("small.toml", &elsewhere)));
    assert!(taken.contains("took over the results of 16 trials from small/study.json"), "{taken}");
    assert!(!taken.contains("trial 16/20") && taken.contains("trial 17/20"), "{taken}");
    let by_name = |name: &str| -> BTreeMap<String, String> {
        let strip = |directory: String| directory.rsplit_once('/').unwrap().1.to_owned();
        values(&results(&workshop, name)).into_iter().map(|(directory, value)| (strip(directory), value)).collect()
    };
    let (here, there) = (by_name("small"), by_name("other"));
    assert!(here.len() == 16 && there.len() == 20 && here.iter().all(|(name, value)| there.get(name) == Some(value)));
    let wrong = workshop.lambert(&command("small.toml", &["--results", "base.toml"]));
    assert!(!wrong.status.success() && text(&wrong).contains("base.toml: requires the study.json of a study"));

    let reported = workshop.succeed(&["report", "small/trials", "--out", "trials.html"]);
    assert!(text(&reported).contains("trials.html: 16 runs"), "{}", text(&reported));
}

/// Waits until `holds`, or fails with the output of the study.
fn wait_until(child: &mut Child, what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(240), "timed out waiting for {what}");
        assert!(child.try_wait().unwrap().is_none(), "the study ended before {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns the directories of trials that have a metrics file.
fn begun(workshop: &Workshop, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(workshop.path(name).join("trials")).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|trial| trial.join("metrics.jsonl").exists());
    found
}

#[test]
fn a_killed_study_goes_on_and_ends_with_the_same_results() {
    let workshop = Workshop::new();
    let one_optimizer = |text: String| {
        let text = text.rsplit_once("[[optimizer]]").unwrap().0.replace("batches = [8, 32]", "batches = [8]");
        text.replace("sequences = [64]", "sequences = [1200]")
    };
    study(&workshop, "whole", one_optimizer);
    study(&workshop, "killed", one_optimizer);
    workshop.succeed(&command("whole.toml", &[]));

    let start = || {
        let mut command = workshop.command(&command("killed.toml", &[]));
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut child = start();
    wait_until(&mut child, "a step of a trial", || {
        let has_step =
            |trial: &PathBuf| std::fs::read_to_string(trial.join("metrics.jsonl")).unwrap().contains("train");
        begun(&workshop, "killed").iter().any(has_step)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    // The trial's own process ends by itself, so that a new study can continue it.
    workshop.succeed(&command("killed.toml", &["--parallel", "2"]));
    let by_name = |name: &str| -> Vec<String> { values(&results(&workshop, name)).into_values().collect() };
    assert_eq!(by_name("killed"), by_name("whole"));
    assert_eq!(by_name("whole").len(), 3);
}

#[test]
fn a_study_ends_with_its_budget_and_names_divergence() {
    let workshop = Workshop::new();
    study(&workshop, "long", |text| text.replace("sequences = [64]", "sequences = [80_000_000]"));
    let output = workshop.lambert(&command("long.toml", &["--budget", "4s"]));
    let words = text(&output);
    assert_eq!(output.status.code(), Some(75), "{words}");
    assert!(words.contains("the budget is over") && words.contains("to continue: lambert study long.toml"), "{words}");

    study(&workshop, "absurd", |text| {
        let text = text.replace("[0.02, 0.0001]", "[1e30, 1e31]").replace("batches = [8, 32]", "batches = [8]");
        text.rsplit_once("[[optimizer]]").unwrap().0.to_owned()
    });
    let words = text(&workshop.succeed(&command("absurd.toml", &[])));
    assert!(words.contains("diverged after") && words.contains("2 of 2 trials have ended"), "{words}");
    let cell = &results(&workshop, "absurd")["cells"][0];
    assert_eq!((&cell["diverged"], &cell["mean"]), (&2.into(), &Value::Null));
}
