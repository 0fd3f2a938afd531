//! A task that is not BERT on a real plugin: the numbers of the f64 evaluator, sharding, and a training run with evaluation,
//! checkpoints and an exact resume.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::common::cpu;
use crate::common::perceptron::{Examples, Perceptron};
use crate::common::task_steps::{assert_results_close, perceptron_spec, run_once, unsharded};
use lambert::checkpoint::{Contents, RunLock, load_latest};
use lambert::report::baselines::Baselines;
use lambert::run::CheckpointSettings;
use lambert::run::initial_state::InitialState;
use lambert::runtime::backend::Evaluator;
use lambert::runtime::devices::Devices;
use lambert::runtime::hosts::Hosts;
use lambert::schedule::{PhaseWork, Schedule};
use lambert::step::{EvalSpec, Parallel, StepSpec, TrainStep};
use lambert::task::Precision;
use lambert::train::divergence::AlarmSpec;
use lambert::train::evaluator::EvaluationSpec;
use lambert::train::interrupt::Interrupt;
use lambert::train::job::Job;
use lambert::train::programs::Programs;
use lambert::train::trainer::{Outcome, Trainer};

#[test]
fn a_step_on_devices_equals_the_evaluator() {
    let step = |precision, accumulation_steps, replicas, shard_optimizer| {
        let parallel = Parallel { shard_optimizer, ..Parallel::default() };
        let spec = StepSpec { parallel, ..perceptron_spec(precision, 24, accumulation_steps, replicas) };
        (TrainStep::build(&spec).unwrap().program, spec)
    };
    let (program, spec) = step(Precision::F64, 1, 1, false);
    let expected = unsharded(&spec, &run_once(&Evaluator { replicas: 1 }, &program, Precision::F64, 24));
    for (accumulation_steps, replicas, sharded) in [(1, 1, false), (3, 2, false), (2, 4, true)] {
        let (program, spec) = step(Precision::F32, accumulation_steps, replicas, sharded);
        let found = unsharded(&spec, &run_once(&cpu(replicas), &program, Precision::F32, 24));
        let what = format!("{accumulation_steps} accumulation steps, {replicas} devices, sharded: {sharded}");
        assert_results_close(&found, &expected, 1e-5, &what);
    }
}

/// A run of 60 steps in `directory`, saved every 20 steps.
pub fn job(directory: &Path, replicas: usize) -> Job {
    let phase = "sequence_length = 1\nmax_predictions_per_seq = 1\nglobal_batch = 16\nmicro_batch_size = 4\n\
                 steps = 60\nlearning_rate = 0.05\nwarmup = { steps = 5 }";
    let step = StepSpec {
        parallel: Parallel { shard_optimizer: replicas > 1, ..Parallel::default() },
        ..perceptron_spec(Precision::F32, 16, 4 / replicas, replicas)
    };
    let source = Arc::new(Examples { count: 64 });
    Job {
        name: "perceptron".to_owned(),
        seed: 3,
        schedule: Schedule::new(vec![toml::from_str(phase).unwrap()]).unwrap(),
        skip_non_finite: 0,
        steps: vec![step],
        batches: vec![source.clone()],
        evaluations: vec![EvaluationSpec {
            step: EvalSpec {
                task: Arc::new(Perceptron),
                precision: Precision::F32,
                rows: 10,
                replicas: 1,
                outputs: false,
            },
            source,
            examples: 64,
            baselines: Baselines::default(),
            scorer: None,
        }],
        alarm: AlarmSpec::default(),
        probe: None,
        evaluate_every: 30,
        selection: None,
        checkpoint: toml::from_str::<CheckpointSettings>(&format!(
            "directory = {:?}\nevery = 20\nkeep = 0",
            directory.display().to_string()
        ))
        .unwrap(),
        work: vec![PhaseWork { steps: 60, flops_per_step: 1.0 }],
        fingerprint: "a perceptron".to_owned(),
        vocabulary_sha256: String::new(),
        files: vec![("run.toml".to_owned(), b"name = \"perceptron\"".to_vec())],
    }
}

/// Trains `job` on `replicas` devices to its end.
pub fn train(job: Job, replicas: usize, initial: InitialState) {
    let devices = cpu(replicas);
    let hosts = Hosts::new(&devices, None).unwrap();
    assert!(matches!(train_as(hosts, job, devices, initial).unwrap(), Outcome::Finished));
}

/// Trains `job` on `devices` as one of several hosts, of which the leader locks the run directory.
pub fn train_as(hosts: Hosts, job: Job, devices: Devices, initial: InitialState) -> anyhow::Result<Outcome> {
    let programs = Programs::new(&job, &devices, None)?;
    let lock = hosts.is_leader().then(|| RunLock::take(job.checkpoint.directory.local())).transpose()?.map(Arc::new);
    let mut trainer = Trainer::new(job, programs, devices, hosts, initial, lock, Instant::now())?;
    trainer.train(Interrupt::install(None)?)
}

/// Returns the values of a scalar in the metrics of a run, by the kind of their lines.
pub fn values(directory: &Path, kind: &str, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(directory.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["kind"] == kind).map(|line| line[name].as_f64().unwrap()).collect()
}

#[test]
fn the_trainer_trains_saves_and_resumes_another_task() {
    for replicas in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, resumed) = (folder.path().join("whole"), folder.path().join("resumed"));
        std::fs::create_dir_all(&whole).unwrap();
        train(job(&whole, replicas), replicas, InitialState::Random);
        let (class, value) = (values(&whole, "evaluation", "class_loss"), values(&whole, "evaluation", "value_loss"));
        assert!(class.len() == 3 && class[2] < 0.7 * class[0] && value[2] < 0.5 * value[0], "{class:?} {value:?}");
        assert_eq!(values(&whole, "train", "loss").len(), 60);

        // A run that resumes from the checkpoint of step 40 is bit-identical.
        let name = "step-00000040";
        std::fs::create_dir_all(resumed.join(name)).unwrap();
        for file in std::fs::read_dir(whole.join(name)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), resumed.join(name).join(file.file_name())).unwrap();
        }
        let found = load_latest(&resumed, Contents::All).unwrap().unwrap();
        let initial = InitialState::Resumed { checkpoint: Box::new(found.checkpoint), path: found.path };
        train(job(&resumed, replicas), replicas, initial);
        let last = |directory: &Path| load_latest(directory, Contents::All).unwrap().unwrap().checkpoint;
        let (whole, resumed) = (last(&whole), last(&resumed));
        assert_eq!((whole.state.step, resumed.state.step), (60, 60));
        assert!(whole.model == resumed.model && whole.optimizer == resumed.optimizer, "{replicas} devices");
        assert_eq!(whole.file("run.toml"), Some(&b"name = \"perceptron\""[..]));
    }
}
