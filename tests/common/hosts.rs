//! Coordinators in a directory and in etcd, the inputs of a small run, and threads that act as hosts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::ensure;

use crate::common::Workshop;
use crate::common::etcd::Etcd;
use lambert::batch::BatchSource;
use lambert::data::{Batches, Dataset, ExampleConfig, PreparedData, Split};
use lambert::key_value;
use lambert::optim::Hyperparameters;
use lambert::rendezvous::session::Session;
use lambert::rendezvous::{RendezvousConfig, rendezvous};
use lambert::runtime::hosts::{HostGather, Hosts, PendingWords};
use lambert::runtime::prefetch::RunInputs;
use lambert::schedule::{Phase, Schedule};

/// A coordinator, with its server if it needs one.
pub struct Coordinator {
    pub address: String,
    _folder: Option<tempfile::TempDir>,
    pub etcd: Option<Etcd>,
}

/// Returns a coordinator in a directory and one in etcd.
pub fn coordinators() -> Vec<Coordinator> {
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("hosts").to_str().unwrap().to_owned();
    let directory = Coordinator { address, _folder: Some(folder), etcd: None };
    let etcd = Etcd::start().map(|etcd| Coordinator {
        address: etcd.coordinator("rendezvous"),
        _folder: None,
        etcd: Some(etcd),
    });
    [Some(directory), etcd].into_iter().flatten().collect()
}

impl Coordinator {
    pub fn join(&self, host: usize, hosts: usize, seconds: f64) -> anyhow::Result<Session> {
        let timeout = Duration::from_secs_f64(seconds);
        rendezvous(RendezvousConfig { host, hosts, store: key_value::open(&self.address)?, timeout })
    }

    /// Runs `act` for each of the hosts `numbers` in parallel.
    pub fn each<T: Send>(&self, numbers: &[usize], act: impl Fn(usize) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = numbers.iter().map(|&host| scope.spawn(move || act(host))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }
}

pub const SEED: u64 = 11;

/// Sequence length and predictions of the two phases.
pub const SHAPES: [(usize, usize); 2] = [(24, 4), (48, 8)];

/// The inputs of a run on the workshop's data, with batches of `global_batch` in both phases.
pub fn source(workshop: &Workshop, global_batch: usize) -> RunInputs {
    let phase = |(sequence_length, predictions): (usize, usize)| -> Phase {
        let text = format!(
            "sequence_length = {sequence_length}\nmax_predictions_per_seq = {predictions}\nglobal_batch = {global_batch}\n\
             micro_batch_size = 1\nsteps = 6\nlearning_rate = 0.02"
        );
        toml::from_str(&text).unwrap()
    };
    let prepared = Arc::new(PreparedData::open(&workshop.path("data")).unwrap());
    let batches = |(phase, (length, predictions))| -> Arc<dyn BatchSource> {
        let config = ExampleConfig { seed: SEED, phase, ..ExampleConfig::bert(length, predictions) };
        let dataset = Arc::new(Dataset::new(prepared.clone(), Split::Train, config).unwrap());
        Arc::new(Batches { dataset, sequences_per_row: 1 })
    };
    RunInputs {
        schedule: Schedule::new(SHAPES.map(phase).to_vec()).unwrap(),
        seed: SEED,
        hyperparameters: Hyperparameters::NONE,
        sources: (0..).zip(SHAPES).map(batches).collect(),
        values: vec![Vec::new(); SHAPES.len()],
    }
}

/// A host that is a thread of this process. Each has all devices of the run to itself, so that its steps have the numbers of the run;
/// only what the hosts tell each other goes through here.
#[derive(Debug)]
struct ThreadHost {
    shared: Arc<Rounds>,
    host: usize,
    /// The gathers that this host has started.
    started: AtomicUsize,
}

/// The words of each host in each gather.
#[derive(Debug)]
struct Rounds {
    hosts: usize,
    words: Mutex<Vec<Vec<Option<Vec<u32>>>>>,
    changed: Condvar,
}

/// Calls `act` for each of `hosts` hosts in a thread of its own.
pub fn each_host<T: Send>(hosts: usize, act: impl Fn(Hosts) -> T + Sync) -> Vec<T> {
    let shared = Arc::new(Rounds { hosts, words: Mutex::default(), changed: Condvar::new() });
    std::thread::scope(|scope| {
        let start = |host| {
            let (shared, act) = (shared.clone(), &act);
            let gather = ThreadHost { shared, host, started: AtomicUsize::new(0) };
            scope.spawn(move || act(Hosts::with_gather(host, hosts, Box::new(gather))))
        };
        let threads: Vec<_> = (0..hosts).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

impl HostGather for ThreadHost {
    fn start(&self, words: &[u32]) -> anyhow::Result<PendingWords> {
        let (shared, round) = (self.shared.clone(), self.started.fetch_add(1, Ordering::Relaxed));
        shared.put(round, self.host, words);
        Ok(Box::new(move || shared.wait(round)))
    }
}

impl Rounds {
    fn put(&self, round: usize, host: usize, words: &[u32]) {
        let mut rounds = self.words.lock().unwrap();
        if rounds.len() <= round {
            rounds.resize(round + 1, vec![None; self.hosts]);
        }
        rounds[round][host] = Some(words.to_vec());
        self.changed.notify_all();
    }

    /// Fails if a host never comes, or is at another point of the run.
    fn wait(&self, round: usize) -> anyhow::Result<Vec<Vec<u32>>> {
        let incomplete = |rounds: &mut Vec<Vec<Option<Vec<u32>>>>| rounds[round].iter().any(Option::is_none);
        let patience = Duration::from_secs(60);
        let (rounds, waited) =
            self.changed.wait_timeout_while(self.words.lock().unwrap(), patience, incomplete).unwrap();
        ensure!(!waited.timed_out(), "a host is missing in gather {round}");
        let words: Vec<Vec<u32>> = rounds[round].iter().flatten().cloned().collect();
        ensure!(
            words.iter().all(|other| other.len() == words[0].len()),
            "the hosts are at different points in gather {round}"
        );
        Ok(words)
    }
}
