//! A resumed run is bit-identical to an uninterrupted one: at a checkpoint, across a phase change, after an
//! interrupt, and after a kill between two checkpoints.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{Workshop, metrics, text};
use lambert::checkpoint::{Checkpoint, Contents, Keep, RunDirectory, Software, State, load};
use lambert::report::goodput::Goodput;

/// Returns the tensor files of the last checkpoint of a run.
fn tensors(run: &Path) -> [Vec<u8>; 2] {
    let read = |name: &str| std::fs::read(run.join("step-00000010").join(name)).expect("the last checkpoint is there");
    ["model.safetensors", "optimizer.safetensors"].map(read)
}

/// Waits until `condition` holds for the child's run.
fn wait_for(child: &mut std::process::Child, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(child.try_wait().expect("the child is ours").is_none(), "the run ended before it could be stopped");
        assert!(begin.elapsed() < Duration::from_secs(500), "the run did not reach the condition in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn resumed_run_is_bit_identical() {
    let workshop = Workshop::new();
    workshop.run_file("straight.toml", "straight", |text| text);
    workshop.succeed(&["pretrain", "straight.toml", "--platform", "cpu"]);
    let (straight, expected) = (workshop.path("straight"), metrics(&workshop.path("straight")));
    assert_eq!(expected.keys().filter(|(kind, _)| kind == "train").count(), 10);

    // The same schedule is used, because a shorter one has other learning rates; the run is killed on the way.
    workshop.run_file("stopped.toml", "stopped", |text| text.replace("every = 0", "every = 1"));
    let mut child =
        workshop.command(&["pretrain", "stopped.toml", "--platform", "cpu"]).stdout(Stdio::null()).spawn().unwrap();
    let stopped = workshop.path("stopped");
    wait_for(&mut child, || stopped.join("step-00000003").exists());
    // SIGKILL: work in progress is lost.
    child.kill().expect("the child is ours");
    child.wait().expect("the child is ours");
    assert!(!stopped.join("step-00000010").exists(), "it was killed before its end");

    // A run is not restarted by mistake.
    let refused = workshop.lambert(&["pretrain", "stopped.toml", "--platform", "cpu"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused).contains("stopped already holds a run") && text(&refused).contains("--resume resumes it"),
        "{}",
        text(&refused)
    );

    // A run is not resumed with other settings.
    let changed = ["pretrain", "stopped.toml", "--platform", "cpu", "--resume", "--set", "phase.2.learning_rate=0.5"];
    let refused = workshop.lambert(&changed);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("other settings (phase.2.learning_rate)"), "{}", text(&refused));

    // Without the checkpoints after step 3, the run resumes before the phase change.
    for step in 4..10 {
        let _ = std::fs::remove_dir_all(stopped.join(format!("step-{step:08}")));
    }
    let resumed = text(&workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]));
    assert!(metrics(&stopped) == expected, "metrics differ:\n{:#?}\n{expected:#?}", metrics(&stopped));
    assert!(tensors(&stopped) == tensors(&straight), "weights or moments differ");
    // The use of the time is that of both processes.
    let goodput = Goodput::read(&stopped).unwrap().expect("the log has starts");
    assert_eq!(goodput.starts, 2);
    assert!(goodput.steps > 0.0 && goodput.compiling > 0.0 && goodput.saving > 0.0, "{goodput:?}");
    assert!(goodput.shares().iter().all(|(_, share)| (0.0..1.0).contains(share)), "{goodput:?}");
    assert!(resumed.contains(&format!("goodput            {}", goodput.to_text())), "{resumed}");
    // Its summary compares with the evaluation before the first step of the run, which another process made.
    let first = expected[&("evaluation".to_owned(), 0)]["mlm_loss"].as_f64().unwrap();
    let mut table =
        resumed.lines().skip_while(|line| !line.contains("step 0 ")).filter(|line| line.contains("MLM loss"));
    let row = table.next().unwrap_or_default().split_whitespace().nth(2);
    assert_eq!(row, Some(format!("{first:.4}").as_str()), "{resumed}");

    // Resuming at the last step of phase 1 starts phase 2.
    for step in 7..=10 {
        let _ = std::fs::remove_dir_all(stopped.join(format!("step-{step:08}")));
    }
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(tensors(&stopped) == tensors(&straight), "weights or moments differ across the phases");

    // A completed run is reported as complete.
    let done = workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(text(&done).contains("small is complete after 10 steps"), "{}", text(&done));
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_saved_and_prints_the_resume_command() {
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
    let logged = metrics(&workshop.path("long")).keys().filter(|(kind, _)| kind == "train").count();
    assert!(workshop.path(&format!("long/step-{logged:08}")).exists(), "the last logged step is saved");
}

#[test]
fn best_checkpoint_of_a_pretraining_run_is_kept_and_used() {
    let workshop = Workshop::new();
    let run = workshop.path("run");
    let train = |rate: &str| {
        workshop.run_file("run.toml", "run", |text| {
            let text =
                text.replace("every = 4\n", "every = 2\nmetric = \"mlm_loss\"\n").replace("keep = 0", "keep = 1");
            text.replace("learning_rate = 0.01", &format!("learning_rate = {rate}"))
        });
        workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
        let loss = |step| metrics(&run)[&("evaluation".to_owned(), step)]["mlm_loss"].as_f64().unwrap();
        let exists = |step: u64| run.join(format!("step-{step:08}")).exists();
        ([6, 8, 10].map(loss), [2, 4, 6, 8, 10].map(exists))
    };
    // At this rate, the first evaluation of the second phase is worse than the last of the first one, whose sequences are shorter.
    let (losses, exist) = train("2.0");
    assert!(losses[0] < losses[2] && losses[2] < losses[1], "{losses:?}");
    assert_eq!(exist, [false, false, false, false, true]);
    std::fs::remove_dir_all(&run).unwrap();

    // At this one, the model becomes worse during the second phase.
    let (losses, exist) = train("1.0");
    assert!(losses[1] < losses[2], "{losses:?}");
    assert_eq!(exist, [false, false, false, true, true]);
    let output = workshop.succeed(&[
        "evaluate",
        "run",
        "--data",
        "data",
        "--platform",
        "cpu",
        "--json",
        "--examples",
        "12",
        "--micro-batch-size",
        "8",
    ]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((found["step"].as_u64(), found["mlm_loss"].as_f64()), (Some(8), Some(losses[1])));
    assert!(text(&output).contains("step 8 has the best mlm_loss"), "{}", text(&output));
}

#[test]
fn a_run_that_resumes_with_another_plugin_says_so() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let saved = load(&workshop.path("run/step-00000006"), Contents::All).unwrap();
    let own = saved.state.software.clone().expect("a checkpoint records its software");
    assert!(own.program.starts_with("lambert ") && own.plugin.contains("sha256 "), "{own:?}");
    let resumed = |directory: &str, software: &Software| {
        let state = State { software: Some(software.clone()), ..saved.state.clone() };
        RunDirectory::new(&workshop.path(directory), Keep::ALL).save(&Checkpoint { state, ..saved.clone() }).unwrap();
        let set = format!("checkpoint.directory={directory}");
        text(&workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu", "--resume", "--set", &set]))
    };
    let same = resumed("same", &own);
    assert!(!same.contains("another one than that of the checkpoint"), "{same}");
    let other = resumed("other", &Software { plugin: "PJRT C API 0.1, sha256 00".to_owned(), ..own.clone() });
    assert!(other.contains("the plugin is another one than that of the checkpoint (PJRT C API"), "{other}");
    assert!(other.contains("before PJRT C API 0.1, sha256 00") && !other.contains("the program is"), "{other}");
    let last = load(&workshop.path("other/step-00000010"), Contents::ModelOnly).unwrap();
    assert_eq!(last.state.software, Some(own));
}
