//! The divergence alarm on training runs: a run with an absurd learning rate stops with its own exit code and keeps its good
//! checkpoint, and a healthy run raises no alarm.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::hosts::each_host;
use crate::common::perceptron::Examples;
use crate::common::{Workshop, cpu, text};
use crate::task::{job, train, train_as, values};
use lambert::batch::{BatchSource, HostBatch};
use lambert::checkpoint::{Checkpoint, Contents, Keep, RunDirectory, load, load_latest};
use lambert::divergence::SkippedRange;
use lambert::run::initial_state::InitialState;
use lambert::run::{DivergenceAction, DivergenceSettings};
use lambert::runtime::hosts::Hosts;
use lambert::schedule::Schedule;
use lambert::shape::HostTensor;
use lambert::train::job::Job;
use lambert::train::trainer::Outcome;

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
        "resume from the last good checkpoint:\n  lambert pretrain bad.toml --resume --platform cpu",
        " --accept-changes\n",
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
    assert!(
        refused.contains("divergence.action requires one of `stop`, `warn`, `roll_back`, got `panic`"),
        "{refused}"
    );
}

#[test]
fn a_run_that_ends_without_having_learned_anything_says_so() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text.replace("steps = 6\n", "steps = 40\n"));
    let small = ["--set", "phase.1.learning_rate=1e-9", "--set", "phase.2.learning_rate=1e-9"];
    let words = text(&workshop.succeed(&[&["pretrain", "run.toml", "--platform", "cpu"], &small[..]].concat()));
    let sentence = "the model has learned nothing beyond the label frequencies: the held-out MLM loss is ";
    assert_eq!(words.matches(sentence).count(), 1, "{words}");
    assert!(words.contains("; lower learning_rate, lengthen warmup, or train for more steps"), "{words}");
}

#[test]
fn a_run_that_diverges_again_goes_back_as_often_as_allowed_and_stops() {
    let workshop = Workshop::new();
    run_file(&workshop, "bad", "10.0");
    let action = ["--set", "divergence.action=\"roll_back\"", "--set", "divergence.max_roll_backs=2"];
    let output = workshop.lambert(&[&["pretrain", "bad.toml", "--platform", "cpu"], &action[..]].concat());
    let words = text(&output);
    assert_eq!(output.status.code(), Some(4), "{words}");
    assert_eq!(words.matches("the run goes back to step 6 and leaves out").count(), 2, "{words}");
    assert_eq!(words.matches("the run stops without saving").count(), 1, "{words}");
    let names = checkpoints(&workshop, "bad");
    assert_eq!(names.iter().filter(|name| !name.contains("diverged")).collect::<Vec<_>>(), ["step-00000006"]);

    // A checkpoint with another position in the data than its skipped examples give is refused.
    run_file(&workshop, "good", "0.01");
    workshop.succeed(&["pretrain", "good.toml", "--platform", "cpu", "--set", "checkpoint.keep=0"]);
    let saved = load(&workshop.path("good/step-00000008"), Contents::All).unwrap();
    let resume = |directory: &str, next_example: u64| {
        let mut state = saved.state.clone();
        state.roll_backs.skipped.add(SkippedRange { phase: 1, from: 4, to: 12 });
        state.next_example = next_example;
        RunDirectory::new(&workshop.path(directory), Keep::ALL).save(&Checkpoint { state, ..saved.clone() }).unwrap();
        let set = format!("checkpoint.directory={directory}");
        text(&workshop.lambert(&["pretrain", "good.toml", "--platform", "cpu", "--resume", "--set", &set]))
    };
    assert_eq!(saved.state.next_example, 8);
    let refused = resume("refused", 8);
    assert!(refused.contains("requires the position of the run's schedule"), "{refused}");
    let resumed = resume("resumed", 16);
    assert!(!resumed.contains("error:"), "{resumed}");
    let last = load(&workshop.path("resumed/step-00000020"), Contents::ModelOnly).unwrap();
    assert_eq!(last.state.next_example, 14 * 4 + 8);
}

/// The examples of the perceptron without those in `skip`; the numbers of those in `bad` are absurd.
#[derive(Debug)]
struct SomeBad {
    bad: Range<u64>,
    skip: Range<u64>,
}

impl BatchSource for SomeBad {
    fn rows(&self, first_example: u64, rows: usize) -> anyhow::Result<HostBatch> {
        let skipped = if first_example >= self.skip.start { self.skip.end - self.skip.start } else { 0 };
        let mut batch = Examples { count: 64 }.rows(first_example + skipped, rows)?;
        for (_, tensor) in batch.tensors.iter_mut().filter(|(name, _)| *name == "value") {
            let is_bad = self.bad.contains(&first_example);
            let factor = if is_bad { 1e6 } else { 1.0 };
            let values: Vec<f32> = tensor.to_f64().iter().map(|value| (value * factor) as f32).collect();
            *tensor = Arc::new(HostTensor::new([rows], &values));
        }
        Ok(batch)
    }

    fn epoch_len(&self) -> u64 {
        64
    }

    fn epochs_covered(&self, examples: u64) -> f64 {
        examples as f64 / 64.0
    }
}

/// The examples of steps 61 to 66.
fn bad() -> SomeBad {
    SomeBad { bad: 960..1056, skip: u64::MAX..u64::MAX }
}

/// A run of 100 steps of 16 examples in `directory`, with a checkpoint every 20 steps, that goes back once.
fn long_job(directory: &Path, replicas: usize, source: SomeBad) -> Job {
    std::fs::create_dir_all(directory).unwrap();
    let mut job = job(directory, replicas);
    let mut phase = job.schedule.phases()[0].clone();
    phase.steps = 100;
    job.schedule = Schedule::new(vec![phase]).unwrap();
    job.batches = vec![Arc::new(source)];
    job.alarm.settings = DivergenceSettings { action: DivergenceAction::RollBack, max_roll_backs: 1 };
    job
}

/// Returns the newest checkpoint of a run.
fn last(run: &Path) -> Checkpoint {
    load_latest(run, Contents::All).unwrap().unwrap().checkpoint
}

#[test]
fn a_run_goes_back_and_leaves_out_bad_examples_exactly() {
    for replicas in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let directory = |name: &str| folder.path().join(name);
        let long_job = |name: &str, source: SomeBad| long_job(&directory(name), replicas, source);
        let last = |name: &str| last(&directory(name));
        let resumed_from = |name: &str, step: &str| -> Checkpoint {
            copy(&directory("run").join(step), &directory(name).join(step));
            let found = load_latest(&directory(name), Contents::All).unwrap().unwrap();
            let initial = InitialState::Resumed { checkpoint: Box::new(found.checkpoint), path: found.path };
            train(long_job(name, bad()), replicas, initial);
            last(name)
        };

        train(long_job("run", bad()), replicas, InitialState::Random);
        let run = last("run");
        assert_eq!((run.state.step, run.state.roll_backs.count, run.state.next_example), (100, 1, 1600 + 416));
        assert!(directory("run").join("step-00000060.diverged-1").exists());
        let log = std::fs::read_to_string(directory("run").join("metrics.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let back: Vec<_> = lines.filter(|line| line["kind"] == "roll_back").collect();
        let numbers = |key: &str| back[0][key].as_f64().unwrap();
        // The median of nine norms is bad at the fifth bad step, 65; the next step was under way.
        assert_eq!(
            ["step", "to_step", "phase", "first_example", "end_example"].map(numbers),
            [66.0, 40.0, 1.0, 640.0, 1056.0]
        );

        // The weights are those of a run that never had these examples.
        train(long_job("without", SomeBad { bad: 0..0, skip: 640..1056 }), replicas, InitialState::Random);
        let without = last("without");
        assert!(without.state.roll_backs.count == 0 && without.model == run.model, "{replicas} devices");
        assert!(without.optimizer == run.optimizer);
        // A run that was killed after it went back goes back again; one that was killed later knows what to leave out.
        for (name, step) in [("killed_soon", "step-00000040"), ("killed_later", "step-00000080")] {
            let resumed = resumed_from(name, step);
            assert!(resumed.model == run.model && resumed.optimizer == run.optimizer, "{replicas} devices: {name}");
            assert_eq!(resumed.state.roll_backs, run.state.roll_backs, "{name}");
        }
    }
}

#[test]
fn several_hosts_go_back_and_stop_together() {
    let folder = tempfile::tempdir().unwrap();
    let directory = |name: &str| folder.path().join(name);
    let with = |name: &str, action: DivergenceAction| {
        let mut job = long_job(&directory(name), 1, bad());
        job.alarm.settings.action = action;
        job
    };
    let on_hosts = |name: &str, action: DivergenceAction| {
        let train = |hosts| train_as(hosts, with(name, action), cpu(1), InitialState::Random).unwrap();
        each_host(3, train)
    };
    train(with("alone", DivergenceAction::RollBack), 1, InitialState::Random);
    assert_eq!(on_hosts("together", DivergenceAction::RollBack), [Outcome::Finished; 3]);
    let (alone, together) = (last(&directory("alone")), last(&directory("together")));
    assert_eq!((together.state.step, together.state.roll_backs.count), (100, 1));
    assert!(together.model == alone.model && together.optimizer == alone.optimizer);
    assert_eq!(
        (together.state.roll_backs, together.state.divergence),
        (alone.state.roll_backs, alone.state.divergence)
    );
    // The sums of an evaluation are those of all hosts, so a host with other weights would change it.
    for name in ["class_loss", "value_loss"] {
        let evaluated = |run: &str| values(&directory(run), "evaluation", name);
        let (alone, together) = (evaluated("alone"), evaluated("together"));
        // Steps 0, 30, 60, again 60, 90 and 100.
        assert_eq!((alone.len(), together.len()), (6, 6));
        let close = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12 * a.abs();
        assert!(alone.iter().zip(&together).all(close), "{name}: {alone:?} {together:?}");
    }

    assert_eq!(on_hosts("stopped", DivergenceAction::Stop), [Outcome::Diverged; 3]);
    assert_eq!(last(&directory("stopped")).state.step, 40);
    assert!(directory("stopped").join("step-00000060.diverged-1").exists());
}

#[test]
fn every_host_ends_if_the_good_checkpoint_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // The checkpoints are removed before the first bad example.
    let ends = |hosts: Hosts| {
        let mut job = long_job(&run, 1, bad());
        if hosts.is_leader() {
            job.batches = vec![Arc::new(Removing { examples: bad(), at: 960, directory: run.clone() })];
        }
        format!("{:#}", train_as(hosts, job, cpu(1), InitialState::Random).unwrap_err())
    };
    let errors = each_host(2, ends);
    assert!(errors.iter().all(|error| error.contains("cannot go back to the checkpoint of step 40")), "{errors:?}");
}

/// Examples that remove the checkpoints of a run when example `at` is read, once that of step 40 is complete.
#[derive(Debug)]
struct Removing {
    examples: SomeBad,
    at: u64,
    directory: PathBuf,
}

impl BatchSource for Removing {
    fn rows(&self, first_example: u64, rows: usize) -> anyhow::Result<HostBatch> {
        if first_example == self.at {
            let [first, good] = [20, 40].map(|step| self.directory.join(format!("step-{step:08}")));
            let begin = Instant::now();
            while !good.exists() {
                anyhow::ensure!(begin.elapsed() < Duration::from_secs(60), "step 40 was not saved");
                std::thread::sleep(Duration::from_millis(1));
            }
            [first, good].iter().try_for_each(std::fs::remove_dir_all)?;
        }
        self.examples.rows(first_example, rows)
    }

    fn epoch_len(&self) -> u64 {
        self.examples.epoch_len()
    }

    fn epochs_covered(&self, examples: u64) -> f64 {
        self.examples.epochs_covered(examples)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
