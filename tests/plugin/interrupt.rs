//! What a run survives: Ctrl-C once and twice, being killed, a second run in its directory, a disk that takes no more.
#![cfg(unix)]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Workshop, metrics, text};

/// A run that would go on for hours, with both streams piped.
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

/// Waits until `holds`, or fails after minutes with what the process said.
fn wait_until(child: &mut Child, what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        let ended = child.try_wait().expect("a child can be asked").is_some();
        if ended || begin.elapsed() > Duration::from_secs(240) {
            child.kill().expect("a child can be killed");
            panic!("{what} did not come: {}", said(child).1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().expect("kill runs");
    assert!(status.success());
}

/// How the process ended, and all it said.
fn said(child: &mut Child) -> (ExitStatus, String) {
    let status = child.wait().expect("a child ends");
    let mut words = String::new();
    child.stdout.as_mut().expect("piped").read_to_string(&mut words).expect("text");
    child.stderr.as_mut().expect("piped").read_to_string(&mut words).expect("text");
    (status, words)
}

/// The steps of the checkpoints under their final names.
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
        let (status, words) = said(&mut child);
        assert_eq!(status.code(), Some(130), "{words}");
        assert!(words.contains("lambert pretrain run.toml --resume --platform cpu"), "{words}");
        let told = metrics(&run).into_keys().map(|(_, step)| step).max();
        assert_eq!(checkpoints(&run).last().copied(), told, "every step that was told is saved");
        assert!(!is_saving(&run));
    }
}

#[test]
fn a_second_signal_stops_at_once_and_keeps_what_was_saved() {
    let workshop = Workshop::new();
    // A hundred megabytes a checkpoint: long enough to be met while it is written.
    workshop.run_file("run.toml", "run", |text| {
        let large = endless(text).replace("hidden_size = 16", "hidden_size = 256");
        let large = large.replace("intermediate_size = 32", "intermediate_size = 16384");
        large.replace("every = 0\nkeep = 0", "every = 2\nkeep = 2")
    });
    let run = workshop.path("run");
    let mut child = start(&workshop);
    wait_until(&mut child, "a checkpoint", || checkpoints(&run) == [2]);
    signal(&child, "INT");
    // The save that the first one asks for, or the next that was due anyway.
    wait_until(&mut child, "a save", || is_saving(&run));
    signal(&child, "INT");
    let (status, words) = said(&mut child);
    assert_eq!(status.code(), Some(130), "{words}");
    assert!(words.contains("stopped at once"), "{words}");
    let kept = *checkpoints(&run).last().expect("the first checkpoint stays");

    // The same steps again, from the last whole checkpoint; what the interrupted save left is gone afterwards.
    let told = metrics(&run);
    let mut child = resume(&workshop);
    wait_until(&mut child, "a new checkpoint", || checkpoints(&run).last().is_some_and(|step| *step > kept));
    signal(&child, "INT");
    let (status, words) = said(&mut child);
    assert_eq!(status.code(), Some(130), "{words}");
    assert!(words.contains(&format!("step-{kept:08}")), "{words}");
    let again = metrics(&run);
    told.iter().for_each(|(key, value)| assert_eq!(again.get(key), Some(value), "{key:?}"));
    assert!(!is_saving(&run));
}

#[test]
fn a_directory_belongs_to_one_run_at_a_time_but_may_be_read() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| endless(text).replace("every = 0\nkeep = 0", "every = 2\nkeep = 3"));
    let run = workshop.path("run");
    let mut child = start(&workshop);
    wait_until(&mut child, "a checkpoint", || !checkpoints(&run).is_empty());
    for more in [["--resume"].as_slice(), &[]] {
        let second = workshop.lambert(&[&["pretrain", "run.toml", "--platform", "cpu"], more].concat());
        assert_eq!(second.status.code(), Some(1), "{}", text(&second));
        let said = text(&second);
        assert!(said.contains("another run is saving into run; wait for it to end"), "{said}");
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
    // Even when nothing could be tidied up, the lock goes with the process.
    child.kill().expect("a child can be killed");
    child.wait().expect("a child ends");
    let kept = *checkpoints(&run).last().expect("a checkpoint");
    let mut child = resume(&workshop);
    wait_until(&mut child, "a new step", || checkpoints(&run).last().is_some_and(|step| *step > kept));
    signal(&child, "INT");
    assert_eq!(said(&mut child).0.code(), Some(130));
}
