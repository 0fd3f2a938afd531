//! The devices a run works on: one replica of the step on each. Replicas are numbered through all hosts of the run, host
//! after host, so that a host's are consecutive; it feeds those, and the others it only knows by number.

use anyhow::{Context, bail, ensure};

use crate::batch::ReplicaRange;
use crate::pjrt::{
    Client, CompileOptions, Device, Environment, LoadedExecutable, PlatformChoice, client_options,
    multi_process_options,
};
use crate::rendezvous::session::Session;

/// Devices that one host may be asked for. A plugin makes as many virtual ones as it is told, or dies of the attempt.
pub const MOST_OF_A_HOST: usize = 1024;

/// A client and the devices chosen of it.
#[derive(Clone, Debug)]
pub struct Devices {
    pub client: Client,
    /// Those of this host, in the order of the replicas.
    pub devices: Vec<Device>,
    /// The device of every replica of the run, by its id.
    replicas: Vec<i64>,
    /// The first replica of each host.
    first_replicas: Vec<usize>,
    /// Which of the hosts this one is.
    host: usize,
    /// Why each better platform was not used, a sentence each.
    pub passed_over: Vec<String>,
}

impl Devices {
    /// Opens the platform that `choice` means and takes `count` of its devices: all that it shows if none is given, and on
    /// the CPU one. The CPU shows as many as are asked for; they share its cores.
    ///
    /// # Errors
    /// If no plugin can be used, or it shows fewer devices.
    pub fn open(choice: &PlatformChoice, count: Option<usize>) -> anyhow::Result<Devices> {
        Devices::open_among(choice, count, None)
    }

    /// As [`Devices::open`], with the devices of every host that has met in `session`; `count` is of this host's alone.
    ///
    /// # Errors
    /// Also if the runtime knows other hosts than those.
    pub fn open_among(
        choice: &PlatformChoice,
        count: Option<usize>,
        session: Option<&Session>,
    ) -> anyhow::Result<Devices> {
        if let Some(count) = count.filter(|count| !(1..=MOST_OF_A_HOST).contains(count)) {
            bail!("--devices requires 1 to {MOST_OF_A_HOST}, got {count}");
        }
        let options = |platform| {
            let mut options = client_options(platform, count);
            options.extend(session.iter().flat_map(|s| multi_process_options(platform, s.host(), s.hosts())));
            options
        };
        let found = Environment::of_process().open_with_store(choice, options, session.map(Session::device_store))?;
        let client = found.item;
        let devices = client.addressable_devices();
        let shown = devices.len();
        if let Some(count) = count.filter(|count| *count > shown) {
            bail!("--devices {count} requires {count} devices, {} shows {shown}", client.platform_name());
        }
        let passed_over = found.rejected.iter().map(ToString::to_string).collect();
        let mut devices = Devices::of_client(client, devices, passed_over)?;
        if let Some(session) = session {
            devices.check_hosts(session)?;
        }
        if let Some(count) = count.filter(|count| *count < shown) {
            ensure!(
                devices.first_replicas.len() == 1,
                "--devices {count} cannot leave out devices of a run on {} hosts, where this one has {shown}",
                devices.first_replicas.len()
            );
            devices.devices.truncate(count);
            devices.replicas.truncate(count);
        }
        Ok(devices)
    }

    /// Numbers the replicas of `client`: on a single host in the plugin's order, on several by host and id.
    fn of_client(client: Client, mut local: Vec<Device>, passed_over: Vec<String>) -> anyhow::Result<Devices> {
        let mut all = client.devices();
        let process = |device: &Device| device.description().process_index;
        if all.iter().any(|device| process(device) != process(&all[0])) {
            all.sort_by_key(|device| (process(device), device.id()));
            local.sort_by_key(|device| (process(device), device.id()));
        }
        let starts_host = |&replica: &usize| replica == 0 || process(&all[replica]) != process(&all[replica - 1]);
        let first_replicas: Vec<usize> = (0..all.len()).filter(starts_host).collect();
        let own = client.process_index();
        let host = first_replicas.iter().position(|&first| process(&all[first]) == own);
        let host =
            host.with_context(|| format!("the plugin shows no device of this process, which it numbers {own}"))?;
        let replicas = all.iter().map(|device| i64::from(device.id())).collect();
        Ok(Devices { client, devices: local, replicas, first_replicas, host, passed_over })
    }

    /// The runtime must span the hosts that have met, and number them as they do.
    fn check_hosts(&self, session: &Session) -> anyhow::Result<()> {
        let (platform, known) = (self.client.platform_name(), self.first_replicas.len());
        ensure!(
            known == session.hosts(),
            "--hosts {} requires a runtime that spans them, and the plugin for {platform} ({}) knows {known}: it takes \
             --platform cuda or a TPU slice for several hosts; leave --hosts out for one",
            session.hosts(),
            self.client.plugin().path().display()
        );
        ensure!(
            self.host == session.host(),
            "--host {} requires the number that the runtime gives this process, {}; start it with that, or leave --hosts and \
             --host out on a TPU slice",
            session.host(),
            self.host
        );
        Ok(())
    }

    /// The first `count` of these, which must be that many, on one host.
    pub fn first(&self, count: usize) -> Devices {
        let (devices, replicas) = (self.devices[..count].to_vec(), self.replicas[..count].to_vec());
        Devices { devices, replicas, ..self.clone() }
    }

    /// Number of replicas of the run, one on each device of every host.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Which of the run's hosts this one is, from 0.
    pub fn host(&self) -> usize {
        self.host
    }

    /// The first replica of each host.
    pub fn first_replicas(&self) -> &[usize] {
        &self.first_replicas
    }

    /// Returns the replicas of this host among all of the run.
    pub fn replica_range(&self) -> ReplicaRange {
        ReplicaRange { first: self.first_replicas[self.host], count: self.devices.len(), of: self.len() }
    }

    /// Never: there is at least one device.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// As a person wants to read it: `2 × NVIDIA H200 (cuda)`.
    pub fn describe(&self) -> String {
        let kind = self.devices.first().map_or("", |device| device.kind());
        let hosts = match self.first_replicas.len() {
            1 => String::new(),
            several => format!(" on {several} hosts"),
        };
        format!("{} × {kind} ({}){hosts}", self.len(), self.client.platform_name())
    }

    /// Compiles a serialized HloModuleProto into one replica on each device, with the flags that are fastest there.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn compile(&self, hlo: &[u8]) -> anyhow::Result<LoadedExecutable> {
        let options = CompileOptions {
            device_assignment: Some(vec![self.replicas.clone()]),
            ..CompileOptions::replicas(self.len())
        };
        let options = options.for_platform(self.client.platform_name());
        self.client.compile(hlo, &options).context("cannot compile the step")
    }
}
