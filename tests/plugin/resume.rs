//! A run that stops and goes on takes the same steps, bit for bit, as one that never stopped: at a checkpoint, across a
//! phase, after an interrupt, and after a death between two checkpoints.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Workshop, metrics, text};

/// The files of the last checkpoint of a run that hold tensors.
fn tensors(run: &Path) -> [Vec<u8>; 2] {
    let read = |name: &str| std::fs::read(run.join("step-00000010").join(name)).expect("the last checkpoint is there");
    ["model.safetensors", "optimizer.safetensors"].map(read)
}

/// Waits until `condition` holds of the child's run.
fn wait_for(child: &mut std::process::Child, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(child.try_wait().expect("the child is ours").is_none(), "the run ended before it could be stopped");
        assert!(begin.elapsed() < Duration::from_secs(500), "the run did not get that far");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn stopping_changes_nothing() {
    let workshop = Workshop::new();
    workshop.run_file("straight.toml", "straight", |text| text);
    workshop.succeed(&["pretrain", "straight.toml", "--platform", "cpu"]);
    let (straight, expected) = (workshop.path("straight"), metrics(&workshop.path("straight")));
    assert_eq!(expected.keys().filter(|(kind, _)| kind == "train").count(), 10);

    // A shorter schedule has other rates: the first half is the same run, stopped by a signal.
    workshop.run_file("stopped.toml", "stopped", |text| text.replace("every = 0", "every = 1"));
    let mut child =
        workshop.command(&["pretrain", "stopped.toml", "--platform", "cpu"]).stdout(Stdio::null()).spawn().unwrap();
    let stopped = workshop.path("stopped");
    wait_for(&mut child, || stopped.join("step-00000003").exists());
    // SIGKILL: whatever was under way is lost.
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
    assert!(!stopped.join("step-00000010").exists(), "it was killed on the way");

    // It is not started over by mistake.
    let refused = workshop.lambert(&["pretrain", "stopped.toml", "--platform", "cpu"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("stopped already holds a run") && text(&refused).contains("--resume resumes it"),
        "{}",
        text(&refused)
    );

    // Nor with other settings.
    let changed = ["pretrain", "stopped.toml", "--platform", "cpu", "--resume", "--set", "phase.2.learning_rate=0.5"];
    let refused = workshop.lambert(&changed);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("other settings (phase.2.learning_rate)"), "{}", text(&refused));

    // The checkpoints from step 6 on are taken away: the run dies between checkpoints, before the phase changes.
    for step in 4..10 {
        let _ = std::fs::remove_dir_all(stopped.join(format!("step-{step:08}")));
    }
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(metrics(&stopped) == expected, "metrics differ:\n{:#?}\n{expected:#?}", metrics(&stopped));
    assert!(tensors(&stopped) == tensors(&straight), "weights or moments differ");

    // Resuming at the last step of phase 1 begins phase 2.
    for step in 7..=10 {
        let _ = std::fs::remove_dir_all(stopped.join(format!("step-{step:08}")));
    }
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(tensors(&stopped) == tensors(&straight), "weights or moments differ across the phases");

    // A run that is done says so.
    let done = workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(text(&done).contains("small is complete: 10 steps are done"), "{}", text(&done));
}

#[cfg(unix)]
#[test]
fn an_interrupt_saves_and_says_how_to_go_on() {
    let workshop = Workshop::new();
    workshop.run_file("long.toml", "long", |text| text.replace("steps = 6", "steps = 100000"));
    let mut command = workshop.command(&["pretrain", "long.toml", "--platform", "cpu"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let log = workshop.path("long/metrics.jsonl");
    wait_for(&mut child, || std::fs::read_to_string(&log).is_ok_and(|lines| lines.contains("\"train\"")));
    let killed = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("lambert pretrain long.toml --resume --platform cpu"), "{}", text(&output));
    let told = metrics(&workshop.path("long")).keys().filter(|(kind, _)| kind == "train").count();
    assert!(workshop.path(&format!("long/step-{told:08}")).exists(), "the last step told is the one saved");
}
