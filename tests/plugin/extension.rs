//! The end of a finished run says how to extend it; the command that it prints does so.

use crate::common::{Workshop, metrics, text};

/// Returns the last command `lambert …` in `printed`, as its arguments.
fn command(printed: &str) -> Vec<&str> {
    let line = printed.lines().rev().find_map(|line| line.strip_prefix("  lambert ")).expect("a command");
    line.split_whitespace().collect()
}

#[test]
fn the_command_at_the_end_of_a_run_extends_it() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let steps = || metrics(&workshop.path("run")).keys().filter(|(kind, _)| kind == "train").count();
    let printed = text(&workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]));
    assert!(printed.contains("raise the steps of phase 2 (now 4) or add a [[phase]]"), "{printed}");
    let said = command(&printed).join(" ");
    assert!(said.starts_with("pretrain run.toml --resume --platform cpu"), "{said}");
    assert!(said.ends_with("--accept-changes --set phase.2.steps=8"), "{said}");
    assert_eq!(steps(), 10);

    // A complete run says so, too, and the command takes four more steps.
    let complete = text(&workshop.succeed(&["pretrain", "run.toml", "--resume", "--platform", "cpu"]));
    assert_eq!(command(&complete), command(&printed));
    let extended = text(&workshop.succeed(&command(&printed)));
    assert_eq!(steps(), 14, "{extended}");

    // The new command continues from there.
    assert_eq!(command(&extended).last(), Some(&"phase.2.steps=16"));
    workshop.succeed(&command(&extended));
    assert_eq!(steps(), 22);
}

#[test]
fn a_new_phase_extends_a_finished_run() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let phase = "\n[[phase]]\nsequence_length = 24\nmax_predictions_per_seq = 4\nglobal_batch = 4\nmicro_batch_size = 4\n\
                 steps = 3\nlearning_rate = 0.001\n";
    workshop.run_file("run.toml", "run", |text| text + phase);
    workshop.succeed(&["pretrain", "run.toml", "--resume", "--accept-changes", "--platform", "cpu"]);
    let metrics = metrics(&workshop.path("run"));
    assert_eq!(metrics.keys().filter(|(kind, _)| kind == "train").count(), 13);
    assert_eq!(metrics[&("train".to_owned(), 13)]["phase"].as_f64(), Some(3.0));
}
