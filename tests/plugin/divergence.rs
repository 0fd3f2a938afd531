//! The divergence alarm on training runs: a run with an absurd learning rate stops with its own exit code and keeps its good
//! checkpoint, and a healthy run raises no alarm.

use crate::common::{Workshop, text};

/// Returns the names of the checkpoints of a run, also of those that were set aside.
fn checkpoints(workshop: &Workshop, run: &str) -> Vec<String> {
    let entries = std::fs::read_dir(workshop.path(run)).expect("a run directory").map(|entry| entry.expect("an entry"));
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("step-")).collect();
    names.sort();
    names
}

/// Writes a run file that keeps one checkpoint and whose second phase, from step 7 on, has the learning rate `rate`.
fn run_file(workshop: &Workshop, name: &str, rate: &str) {
    workshop.run_file(&format!("{name}.toml"), name, |text| {
        let text = text.replace("every = 0\nkeep = 0", "every = 2\nkeep = 1").replace("steps = 4\n", "steps = 14\n");
        text.replace("learning_rate = 0.01", &format!("learning_rate = {rate}"))
    });
}

#[test]
fn a_diverging_run_stops_and_resumes_from_its_good_checkpoint() {
    let workshop = Workshop::new();
    run_file(&workshop, "bad", "10.0");
    let output = workshop.lambert(&["pretrain", "bad.toml", "--platform", "cpu"]);
    let words = text(&output);
    assert_eq!(output.status.code(), Some(4), "{words}");
    for part in [
        "training has diverged: the MLM loss is",
        "above 2 times the",
        "lower learning_rate, lengthen warmup, or set gradient_clip",
        "the run stops without saving; the last good checkpoint is bad/step-00000006",
        "lambert pretrain bad.toml --resume --platform cpu --accept-changes",
    ] {
        assert!(words.contains(part), "requires {part:?}, got\n{words}");
    }
    // One checkpoint is kept, and the good one beside it.
    let names = checkpoints(&workshop, "bad");
    assert_eq!(names[0], "step-00000006", "{names:?}");
    assert!(names.len() == 2 && names[1].ends_with(".diverged-1"), "{names:?}");
    let log = std::fs::read_to_string(workshop.path("bad/metrics.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sign: Vec<_> = lines.iter().filter(|line| line["kind"] == "divergence").collect();
    assert!(sign.len() == 1 && sign[0]["loss"].as_f64() > Some(2.0 * sign[0]["uniform_loss"].as_f64().unwrap()));

    // It continues as if the rate had been right from the start.
    run_file(&workshop, "good", "0.01");
    let healthy = text(&workshop.succeed(&["pretrain", "good.toml", "--platform", "cpu"]));
    assert!(!healthy.contains("diverged"), "{healthy}");
    assert_eq!(checkpoints(&workshop, "good"), ["step-00000020"], "the last evaluation proves the last checkpoint");
    let lower = ["--resume", "--accept-changes", "--set", "phase.2.learning_rate=0.01"];
    workshop.succeed(&[&["pretrain", "bad.toml", "--platform", "cpu"], &lower[..]].concat());
    let model = |run: &str| std::fs::read(workshop.path(run).join("step-00000020/model.safetensors")).unwrap();
    assert!(model("bad") == model("good"), "the weights differ");
}

#[test]
fn a_run_that_only_warns_trains_on_and_keeps_the_good_checkpoint_beside_the_last() {
    let workshop = Workshop::new();
    run_file(&workshop, "bad", "3.0");
    let warn = ["pretrain", "bad.toml", "--platform", "cpu", "--set", "divergence.action=\"warn\""];
    let words = text(&workshop.succeed(&warn));
    // Once when it happens, and once in the summary.
    assert_eq!(words.matches("training has diverged: the MLM loss is").count(), 2, "{words}");
    assert_eq!(checkpoints(&workshop, "bad"), ["step-00000006", "step-00000020"]);
    let refused = text(&workshop.lambert(&["pretrain", "bad.toml", "--set", "divergence.action=\"panic\""]));
    assert!(refused.contains("divergence.action requires `stop` or `warn`, got `panic`"), "{refused}");
}
