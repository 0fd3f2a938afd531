//! Interruptions of a run: one and two signals, a killed process, and a second run in the same directory.
#![cfg(unix)]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Workshop, metrics, text};

/// Starts a run that would take hours, with both streams piped.
fn start(workshop: &Workshop) -> Child {
    spawn(workshop, &["pretrain", "run.toml", "--platform", "cpu"])
}

fn resume(workshop: &Workshop) -> Child {
    spawn(workshop, &["pretrain", "run.toml", "--platform", "cpu", "--resume"])
}

fn spawn(workshop: &Workshop, arguments: &[&str]) -> Child {
    workshop.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts")
}

fn endless(text: String) -> String {
    text.replace("steps = 4\n", "steps = 1_000_000\n")
}

/// Waits until `holds`, or fails after minutes with the output of the process.
fn wait_until(child: &mut Child, what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        let ended = child.try_wait().expect("a child can be asked").is_some();
        if ended || begin.elapsed() > Duration::from_secs(240) {
            child.kill().expect("a child can be killed");
            panic!("timed out waiting for {what}: {}", output_of(child).1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// Returns the exit status of the process and its output.
fn output_of(child: &mut Child) -> (ExitStatus, String) {
    let status = child.wait().expect("a child ends");
    let mut words = String::new();
    child.stdout.as_mut().expect("piped").read_to_string(&mut words).expect("text");
    child.stderr.as_mut().expect("piped").read_to_string(&mut words).expect("text");
    (status, words)
}

/// Returns the steps of the saved checkpoints.
fn checkpoints(run: &Path) -> Vec<u64> {
    let mut steps: Vec<u64> = std::fs::read_dir(run)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("step-")?.parse().ok())
        .collect();
    steps.sort_unstable();
    steps
}

fn is_saving(run: &Path) -> bool {
    let mut entries = std::fs::read_dir(run).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_str().is_some_and(|name| name.ends_with(".partial")))
}

#[test]
fn one_signal_finishes_the_step_and_saves() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", endless);
    let run = workshop.path("run");
    for name in ["INT", "TERM"] {
        let before = checkpoints(&run).last().copied().unwrap_or(0);
        let mut child = if before == 0 { start(&workshop) } else { resume(&workshop) };
        wait_until(&mut child, "a step", || {
            run.join("metrics.jsonl").exists() && metrics(&run).keys().any(|(_, step)| *step > before + 1)
        });
        signal(&child, name);
        let (status, words) = output_of(&mut child);
        assert_eq!(status.code(), Some(130), "{words}");
        assert!(words.contains("lambert pretrain run.toml --resume --platform cpu"), "{words}");
        let logged = metrics(&run).into_keys().map(|(_, step)| step).max();
        assert_eq!(checkpoints(&run).last().copied(), logged, "every logged step is saved");
        assert!(!is_saving(&run));
    }
}

#[test]
fn a_signal_for_a_checkpoint_saves_and_the_run_continues() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", endless);
    let run = workshop.path("run");
    let last_step = || metrics(&run).into_keys().map(|(_, step)| step).max();
    let mut child = start(&workshop);
    wait_until(&mut child, "a step", || run.join("metrics.jsonl").exists());
    signal(&child, "USR1");
    wait_until(&mut child, "a checkpoint", || !checkpoints(&run).is_empty());
    let saved = checkpoints(&run)[0];
    wait_until(&mut child, "another step", || last_step() > Some(saved));
    assert_eq!(checkpoints(&run), [saved]);
    signal(&child, "TERM");
    let (status, words) = output_of(&mut child);
    assert_eq!(status.code(), Some(130), "{words}");
}

#[test]
fn a_run_saves_and_ends_at_its_time_limit() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", endless);
    let run = workshop.path("run");
    let begin = Instant::now();
    let mut child = spawn(&workshop, &["pretrain", "run.toml", "--platform", "cpu", "--max-time", "5s"]);
    let (status, words) = output_of(&mut child);
    assert_eq!(status.code(), Some(75), "{words}");
    assert!(begin.elapsed() >= Duration::from_secs(5), "{words}");
    assert!(words.contains("the time limit is reached; everything is saved. To resume:"), "{words}");
    assert!(words.contains("lambert pretrain run.toml --resume --max-time 5s --platform cpu"), "{words}");
    assert_eq!(checkpoints(&run).last().copied(), metrics(&run).into_keys().map(|(_, step)| step).max());
}

#[test]
fn a_second_signal_stops_at_once_and_keeps_earlier_checkpoints() {
    let workshop = Workshop::new();
    // A checkpoint of a hundred megabytes takes long enough to be interrupted.
    workshop.run_file("run.toml", "run", |text| {
        let large = endless(text).replace("hidden_size = 16", "hidden_size = 256");
        let large = large.replace("intermediate_size = 32", "intermediate_size = 16384");
        large.replace("every = 0\nkeep = 0", "every = 2\nkeep = 2")
    });
    let run = workshop.path("run");
    let mut child = start(&workshop);
    wait_until(&mut child, "a checkpoint", || checkpoints(&run) == [2]);
    signal(&child, "INT");
    // Either the save after the first signal, or the next scheduled save.
    wait_until(&mut child, "a save", || is_saving(&run));
    signal(&child, "INT");
    let (status, words) = output_of(&mut child);
    assert_eq!(status.code(), Some(130), "{words}");
    assert!(words.contains("stopped at once"), "{words}");
    let kept = *checkpoints(&run).last().expect("the first checkpoint stays");

    // Resuming from the last complete checkpoint gives the same losses, and removes the files of the interrupted save.
    let logged = metrics(&run);
    let mut child = resume(&workshop);
    wait_until(&mut child, "a new checkpoint", || checkpoints(&run).last().is_some_and(|step| *step > kept));
    signal(&child, "INT");
    let (status, words) = output_of(&mut child);
    assert_eq!(status.code(), Some(130), "{words}");
    assert!(words.contains(&format!("step-{kept:08}")), "{words}");
    let again = metrics(&run);
    logged.iter().for_each(|(key, value)| assert_eq!(again.get(key), Some(value), "{key:?}"));
    assert!(!is_saving(&run));
}

#[test]
fn a_run_directory_is_locked_for_writing_but_can_be_read() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| endless(text).replace("every = 0\nkeep = 0", "every = 2\nkeep = 3"));
    let run = workshop.path("run");
    let mut child = start(&workshop);
    wait_until(&mut child, "a checkpoint", || !checkpoints(&run).is_empty());
    for more in [["--resume"].as_slice(), &[]] {
        let second = workshop.lambert(&[&["pretrain", "run.toml", "--platform", "cpu"], more].concat());
        assert_eq!(second.status.code(), Some(1), "{}", text(&second));
        let message = text(&second);
        assert!(message.contains("another run is using run; wait until it ends"), "{message}");
    }
    workshop.succeed(&["export", "run", "--out", "exported"]);
    workshop.succeed(&[
        "evaluate",
        "run",
        "--data",
        "data",
        "--platform",
        "cpu",
        "--examples",
        "8",
        "--micro-batch-size",
        "4",
    ]);
    // The lock ends with a killed process.
    child.kill().expect("a child can be killed");
    child.wait().expect("a child ends");
    let kept = *checkpoints(&run).last().expect("a checkpoint");
    let mut child = resume(&workshop);
    wait_until(&mut child, "a new step", || checkpoints(&run).last().is_some_and(|step| *step > kept));
    signal(&child, "INT");
    assert_eq!(output_of(&mut child).0.code(), Some(130));
}
