//! Early stopping of pretraining: the step at which a run stops, also after a resumption, and its summary.

use std::fs;

use crate::common::{Workshop, metrics, text};

/// Options of a run whose weights do not change, so that no evaluation is better than the first one.
const STOPS: [&str; 10] = [
    "--platform",
    "cpu",
    "--set",
    "phase.1.learning_rate=1e-30",
    "--set",
    "evaluate.every=1",
    "--set",
    "evaluate.metric=mlm_accuracy",
    "--set",
    "evaluate.patience=2",
];

#[test]
fn a_run_stops_after_evaluations_without_a_better_value_also_when_resumed() {
    let workshop = Workshop::new();
    for run in ["run", "again"] {
        workshop.run_file(&format!("{run}.toml"), run, |text| text.replace("every = 0", "every = 1"));
    }
    let pretrain = |run: &str, more: &[&str]| text(&workshop.succeed(&[&["pretrain", run], &STOPS[..], more].concat()));
    let last_step = |run: &str| metrics(&workshop.path(run)).keys().map(|(_, step)| *step).max();
    let sentence = "stopped early: mlm_accuracy has not improved for 2 evaluations; it was best at step 1 (";
    let printed = pretrain("run.toml", &[]);
    assert!(printed.contains(&format!("\n{sentence}")), "{printed}");
    assert_eq!(last_step("run"), Some(3));
    let printed = pretrain("run.toml", &["--resume"]);
    assert!(printed.contains(&format!("small {sentence}")), "{printed}");
    assert_eq!(last_step("run"), Some(3), "nothing is trained");

    // From the checkpoint before, a run stops at the same step.
    let [from, to] = ["run", "again"].map(|run| workshop.path(run).join("step-00000002"));
    fs::create_dir_all(&to).unwrap();
    for file in fs::read_dir(from).unwrap().flatten() {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    assert!(pretrain("again.toml", &["--resume"]).contains(sentence));
    assert_eq!(last_step("again"), Some(3));

    // A larger patience goes on.
    pretrain("run.toml", &["--resume", "--set", "evaluate.patience=3"]);
    assert_eq!(last_step("run"), Some(4));
}
