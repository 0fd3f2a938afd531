//! Several hosts once devices are open: processes that agree on a run, input from several hosts, and collectives between
//! hosts. The hosts are processes, or threads that act as hosts.

use std::process::{Child, Output, Stdio};
use std::sync::Arc;

use crate::common::cpu;
use crate::common::etcd::Etcd;
use crate::common::hosts::*;
use crate::common::steps::{spec_of, task};
use crate::common::{Workshop, text};
use lambert::batch::ReplicaRange;
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertConfig, BertPretraining, Preset};
use lambert::data::PreparedData;
use lambert::runtime::collective::AllGather;
use lambert::runtime::compile::{Compiled, transfer};
use lambert::runtime::devices::Devices;
use lambert::runtime::hosts::Hosts;
use lambert::runtime::prefetch::RunInputs;
use lambert::runtime::state::{StateLayout, TrainState};
use lambert::step::{Scalars, StepInputs, StepSpec, TrainStep};
use lambert::task::Precision;
use lambert::task::metric_names;

/// Starts `lambert pretrain` as host `host` with the arguments `more`.
fn start(workshop: &Workshop, host: usize, more: &[&str]) -> Child {
    let number = host.to_string();
    let arguments = [&["pretrain", "run.toml", "--platform", "cpu", "--host", &number], more].concat();
    let mut command = workshop.command(&arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lambert starts")
}

fn end(child: Child) -> String {
    let output: Output = child.wait_with_output().expect("it ends");
    let words = text(&output);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(!words.contains("panicked"), "{words}");
    assert_eq!(words.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{words}");
    words
}

#[test]
fn processes_rendezvous_and_report_errors() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    let etcd = Etcd::start();
    let mut coordinators = vec![Vec::new()];
    coordinators.extend(etcd.iter().map(|etcd| vec!["--coordinator".to_owned(), etcd.coordinator("run")]));
    for coordinator in coordinators {
        let run = |hosts: &str, processes: &[(usize, &[&str])]| -> Vec<String> {
            let common: Vec<&str> =
                ["--hosts", hosts].into_iter().chain(coordinator.iter().map(String::as_str)).collect();
            let begin = |(host, more): &(usize, &[&str])| start(&workshop, *host, &[&common, *more].concat());
            let children: Vec<Child> = processes.iter().map(begin).collect();
            children.into_iter().map(end).collect()
        };
        // The rendezvous succeeds; this plugin's devices do not span processes.
        for message in run("3", &[(0, &[]), (1, &[]), (2, &[])]) {
            assert!(message.contains("all 3 hosts joined"), "{message}");
            assert!(
                message.contains("a run on 3 hosts requires a runtime that spans them") && message.contains("spans 1"),
                "{message}"
            );
        }
        // A timeout beyond the clock's range means no timeout.
        let for_ever = ["--coordinator-timeout", "18446744073709551615"];
        for message in run("2", &[(0, &for_ever), (1, &["--set", "seed=12"])]) {
            assert!(message.contains("error: the hosts were started with different runs: host 1 ("), "{message}");
            assert!(message.contains("differs in the run file (seed)"), "{message}");
        }
        for message in run("2", &[(0, &["--coordinator-timeout", "2"])]) {
            assert!(
                message.contains("host 1 did not join at ") && message.contains(" within 2 s; start every host"),
                "{message}"
            );
        }
        for message in run("2", &[(1, &[]), (1, &[])]) {
            assert!(message.contains("error: two processes were started as host 1: "), "{message}");
        }
    }
    assert!(!workshop.path("run/metrics.jsonl").exists(), "no run was started");
    assert!(workshop.path("run/hosts").is_dir(), "the default coordinator is in the run directory");
}

/// The metrics, bit for bit, of three steps on four devices, whose inputs `hosts` hosts build, each its own.
fn metrics_of(hosts: usize, spec: &StepSpec, inputs: &RunInputs, devices: &Devices, step: &Compiled) -> Vec<Vec<u64>> {
    let mut state = TrainState::initial(StateLayout::of(spec), SEED, devices).unwrap();
    let each = devices.len() / hosts;
    let hyperparameters = spec.optimizer.hyperparameters();
    let mut metrics = |number: u64| {
        let plan = inputs.schedule.at(number).unwrap();
        let mut buffers = Vec::new();
        for (host, own) in devices.devices.chunks(each).enumerate() {
            let replicas = ReplicaRange { first: host * each, count: each, of: devices.len() };
            let batch = inputs.batch(number, replicas).unwrap();
            let first_row = replicas.rows(plan.global_batch).start;
            let scalars = Scalars::new(&plan, number, SEED, first_row, &hyperparameters);
            let step_inputs = StepInputs { batch: &batch, scalars, replicas: each };
            buffers.extend(transfer(&devices.client, own, &step.step_inputs(), &step_inputs).unwrap());
        }
        let mut launched = step.launch(state.buffers(), &buffers).unwrap();
        state.replace(std::mem::take(&mut launched.state));
        let metrics = launched.read("metrics").unwrap().wait().unwrap().to_f64();
        assert_eq!(metrics.len(), metric_names(&*spec.task).len());
        metrics.into_iter().map(f64::to_bits).collect()
    };
    (0..3).map(&mut metrics).collect()
}

#[test]
fn steps_are_bit_identical_for_any_number_of_hosts() {
    let workshop = Workshop::new();
    let source = source(&workshop, 8);
    let devices = cpu(4);
    let vocabulary = PreparedData::open(&workshop.path("data")).unwrap().vocabulary().len();
    let (sequence_length, max_predictions) = SHAPES[0];
    let model = BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 48,
        ..Preset::Tiny.config(vocabulary)
    };
    let rows = RowForm { sequence_length, max_predictions, sequences_per_row: 1 };
    let pretraining = BertPretraining { rows, ..task(&model) };
    let spec = StepSpec { precision: Precision::F32, ..spec_of(pretraining, 8, 2, devices.len()) };
    let step = Compiled::new(&devices, || Ok(TrainStep::build(&spec)?.program)).unwrap();
    let alone = metrics_of(1, &spec, &source, &devices, &step);
    assert!(alone[0] != alone[1], "the steps change something");
    for hosts in [2, 4] {
        assert_eq!(metrics_of(hosts, &spec, &source, &devices, &step), alone, "{hosts} hosts");
    }
}

#[test]
fn a_failed_shutdown_is_a_warning() {
    for mut coordinator in coordinators() {
        let devices = cpu(1);
        let session = Arc::new(coordinator.join(0, 1, 5.0).unwrap());
        let hosts = Hosts::new(&devices, Some(session)).unwrap();
        match coordinator.etcd.take() {
            Some(etcd) => drop(etcd),
            None => {
                std::fs::remove_dir_all(&coordinator.address).unwrap();
                std::fs::write(&coordinator.address, "not a directory").unwrap();
            }
        }
        let message = hosts.shutdown().expect("the coordinator is gone");
        assert!(
            message.starts_with("warning: this host is finished, but the shutdown of all hosts failed: "),
            "{message}"
        );
        assert!(message.contains("cannot be reached") || message.contains(&coordinator.address), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let alone = Hosts::new(&cpu(1), None).unwrap();
    assert_eq!(alone.shutdown(), None);
}

#[test]
fn all_gather_returns_the_words_of_every_replica() {
    let devices = cpu(4);
    let all_gather = AllGather::new(&devices, 3).unwrap();
    let words =
        |round: u32| -> Vec<Vec<u32>> { (0..4).map(|replica| vec![replica, round, u32::MAX - replica]).collect() };
    // Two pending at once, as votes are while steps run.
    let pending: Vec<_> = (0..2).map(|round| all_gather.start(&words(round)).unwrap()).collect();
    for (round, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.wait().unwrap(), words(round as u32));
    }
    let error = all_gather.start(&words(0)[..3]).err().expect("a device is left out").to_string();
    assert!(error.contains("3 words for each of 4 devices"), "{error}");
    assert_eq!(devices.replica_range(), ReplicaRange { first: 0, count: 4, of: 4 });
    assert_eq!(Arc::new(devices).first_replicas(), [0]);
}
