//! Coordinators in a directory and in etcd, and the inputs of a small run.

use std::sync::Arc;
use std::time::Duration;

use crate::common::Workshop;
use crate::common::etcd::Etcd;
use lambert::batch::BatchSource;
use lambert::data::{Batches, Dataset, ExampleConfig, PreparedData, Split};
use lambert::key_value;
use lambert::optim::Hyperparameters;
use lambert::rendezvous::session::Session;
use lambert::rendezvous::{RendezvousConfig, rendezvous};
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
