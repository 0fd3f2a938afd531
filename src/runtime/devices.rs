//! The devices of a run, with one replica of the step on each. Replicas are numbered host after host, so that the replicas
//! of one host are consecutive. A host transfers inputs to its own devices only; it refers to all others by number.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};

use super::compilation_cache::{CompilationCache, Origin};
use super::limits;
use crate::batch::ReplicaRange;
use crate::hlo::HloModule;
use crate::pjrt::{
    Client, CompileOptions, Device, Environment, LoadedExecutable, Platform, PlatformChoice, client_options,
    multi_process_options,
};
use crate::rendezvous::session::Session;
use crate::step::Program;

/// The largest number of devices of one host. A plugin creates as many virtual devices as it is asked for, or crashes.
pub const MOST_OF_A_HOST: usize = 1024;
const CANNOT_COMPILE: &str = "cannot compile the step";

/// A client and the devices in use.
#[derive(Clone, Debug)]
pub struct Devices {
    /// The PJRT client.
    pub client: Client,
    /// The devices of this host, in the order of the replicas.
    pub devices: Vec<Device>,
    /// The device id of every replica of the run.
    replicas: Vec<i64>,
    /// The first replica of each host.
    first_replicas: Vec<usize>,
    /// The number of this host.
    host: usize,
    /// For each better platform that was not used, a sentence with the reason.
    pub passed_over: Vec<String>,
    /// The cache of compiled programs; without one, every program is compiled anew.
    cache: Option<Arc<CompilationCache>>,
}

impl Devices {
    /// Opens the platform `choice` with `count` of its devices. Without a count all devices are used, and one on the CPU. The
    /// CPU has as many devices as requested; they share its cores.
    ///
    /// # Errors
    /// If no plugin can be used, it has fewer devices, or a limit of the operating system is too low.
    pub fn open(choice: &PlatformChoice, count: Option<usize>) -> anyhow::Result<Devices> {
        Devices::open_among(choice, count, None)
    }

    /// Opens devices as [`Devices::open`] does, together with those of every host of `session`; `count` is for this host.
    ///
    /// # Errors
    /// Also if the runtime spans other hosts than the session.
    pub fn open_among(
        choice: &PlatformChoice,
        count: Option<usize>,
        session: Option<&Session>,
    ) -> anyhow::Result<Devices> {
        if let Some(count) = count.filter(|count| !(1..=MOST_OF_A_HOST).contains(count)) {
            bail!("the number of devices requires 1 to {MOST_OF_A_HOST}, got {count}");
        }
        limits::check()?;
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
            bail!("{count} devices were requested, but {} has {shown}", client.platform_name());
        }
        let passed_over = found.rejected.iter().map(ToString::to_string).collect();
        let mut devices = Devices::of_client(client, devices, passed_over)?;
        if let Some(session) = session {
            devices.check_hosts(session)?;
        }
        if let Some(count) = count.filter(|count| *count < shown) {
            ensure!(
                devices.first_replicas.len() == 1,
                "{count} devices were requested, but a run on {} hosts uses all {shown} devices of this one",
                devices.first_replicas.len()
            );
            devices.devices.truncate(count);
            devices.replicas.truncate(count);
        }
        Ok(devices)
    }

    /// Numbers the replicas of `client`: in the order of the plugin on a single host, by host and id on several.
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
        let host = host.with_context(|| format!("the plugin has no device of this process, process {own}"))?;
        let replicas = all.iter().map(|device| i64::from(device.id())).collect();
        Ok(Devices { client, devices: local, replicas, first_replicas, host, passed_over, cache: None })
    }

    /// Checks that the runtime spans the hosts of the session and numbers them alike.
    fn check_hosts(&self, session: &Session) -> anyhow::Result<()> {
        let (platform, known) = (self.client.platform_name(), self.first_replicas.len());
        ensure!(
            known == session.hosts(),
            "a run on {} hosts requires a runtime that spans them, and the plugin for {platform} ({}) spans {known}; use the \
             platform cuda or a TPU slice for several hosts, or start the run on one host",
            session.hosts(),
            self.client.plugin().path().display()
        );
        ensure!(
            self.host == session.host(),
            "this process was started as host {}, and the runtime numbers it {}; start it as that host, or give no host \
             numbers on a TPU slice",
            session.host(),
            self.host
        );
        Ok(())
    }

    /// Returns the first `count` devices.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn first(&self, count: usize) -> Devices {
        let (devices, replicas) = (self.devices[..count].to_vec(), self.replicas[..count].to_vec());
        Devices { devices, replicas, ..self.clone() }
    }

    /// Returns the number of replicas of the run: one on each device of every host.
    pub fn len(&self) -> usize {
        self.replicas.len()
    }

    /// Returns the number of this host, from 0.
    pub fn host(&self) -> usize {
        self.host
    }

    /// Returns the first replica of each host.
    pub fn first_replicas(&self) -> &[usize] {
        &self.first_replicas
    }

    /// Returns the replicas of this host among all of the run.
    pub fn replica_range(&self) -> ReplicaRange {
        ReplicaRange { first: self.first_replicas[self.host], count: self.devices.len(), of: self.len() }
    }

    /// Returns whether a step may be launched while the one before runs. Not on the CPU: each launch allocates the temporaries of its
    /// program at once, so those of two steps would be in memory.
    pub fn may_launch_ahead(&self) -> bool {
        self.client.platform_name() != Platform::Cpu.name()
    }

    /// Returns false: there is at least one device.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Describes the devices: `2 × NVIDIA H200 (cuda)`.
    pub fn describe(&self) -> String {
        let kind = self.devices.first().map_or("", |device| device.kind());
        let hosts = match self.first_replicas.len() {
            1 => String::new(),
            several => format!(" on {several} hosts"),
        };
        format!("{} × {kind} ({}){hosts}", self.len(), self.client.platform_name())
    }

    /// Returns the same devices with a compilation cache in `directory`, if one is given. A run on several hosts has none: their
    /// compilers work together (on CUDA they divide the kernels to time), so a host that loads a program would leave the others
    /// waiting.
    pub fn with_cache(self, directory: Option<&Path>) -> Devices {
        let directory = directory.filter(|_| self.first_replicas.len() == 1);
        let cache = directory.map(|directory| Arc::new(CompilationCache::new(directory, &self.client)));
        Devices { cache, ..self }
    }

    /// Lowers a program for these devices; see [`lower_for`].
    ///
    /// # Errors
    /// As [`lower_for`].
    pub fn lower(&self, program: &Program) -> anyhow::Result<HloModule> {
        lower_for(program, self.client.platform_name())
    }

    /// Compiles a serialized HloModuleProto for one replica on each device, with the compiler flags that are fastest there.
    ///
    /// # Errors
    /// If the compiler refuses it.
    pub fn compile(&self, hlo: &[u8]) -> anyhow::Result<LoadedExecutable> {
        self.client.compile(hlo, &self.compile_options()).context(CANNOT_COMPILE)
    }

    /// Loads the program from the compilation cache, or compiles it as [`Devices::compile`] does.
    ///
    /// # Errors
    /// If the compiler refuses it.
    pub fn load_or_compile(&self, hlo: &[u8]) -> anyhow::Result<(LoadedExecutable, Origin)> {
        match &self.cache {
            Some(cache) => cache.load_or_compile(hlo, &self.compile_options()).context(CANNOT_COMPILE),
            None => Ok((self.compile(hlo)?, Origin::Compiler)),
        }
    }

    fn compile_options(&self) -> CompileOptions {
        let options = CompileOptions {
            device_assignment: Some(vec![self.replicas.clone()]),
            ..CompileOptions::replicas(self.len())
        };
        options.for_platform(self.client.platform_name())
    }
}

/// Checks that a platform, by the name that its plugin reports, runs Triton kernels.
///
/// # Errors
/// Otherwise; the message names the setting.
pub fn check_runs_kernels(platform: &str) -> anyhow::Result<()> {
    ensure!(
        platform == Platform::Cuda.name(),
        "a Triton kernel requires the platform cuda, got {platform}; use an NVIDIA GPU, or the composed form"
    );
    Ok(())
}

/// Lowers a program for a platform, by the name that its plugin reports. GPUs add the updates of a scatter with atomic
/// operations, in the order in which threads arrive; there, and on unknown platforms, the program computes sums that do not depend
/// on this order, so that a resumed run is bit-identical.
///
/// # Errors
/// If the program has kernels that the platform does not run.
pub fn lower_for(program: &Program, platform: &str) -> anyhow::Result<HloModule> {
    if program.computation.has_kernels() {
        check_runs_kernels(platform)?;
    }
    let adds_in_fixed_order = [Platform::Cpu, Platform::Tpu].iter().any(|known| known.name() == platform);
    Ok(match adds_in_fixed_order {
        true => program.lower(),
        false => program.with_reproducible_scatters().lower(),
    })
}
