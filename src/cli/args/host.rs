//! The options of a run on several hosts: the number of this host, and the store in which the hosts find each other.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::key_value;
use crate::rendezvous::RendezvousConfig;
use crate::storage::Location;

/// A limit for the polling of the rendezvous: each host polls every other one several times per second.
const MOST_HOSTS: usize = 65_536;

#[derive(Debug, Args)]
pub struct HostArgs {
    /// Number of processes of this run, one per machine [default: SLURM_NTASKS under srun, else 1]
    ///
    /// Machines with GPUs need these options. A TPU slice needs none: start the same command on all of its hosts.
    #[arg(long, value_name = "N", help_heading = "Several hosts")]
    pub hosts: Option<usize>,
    /// Number of this process, from 0 [default: SLURM_PROCID under srun]
    #[arg(long, value_name = "I", help_heading = "Several hosts")]
    pub host: Option<usize>,
    /// Directory or etcd prefix in which the processes find each other [default: `hosts` in the run directory]
    ///
    /// A directory must be writable for all processes. An etcd prefix, as etcd://host:port/prefix, must belong to this run
    /// alone.
    #[arg(long, value_name = "DIR|etcd://…", help_heading = "Several hosts")]
    pub coordinator: Option<String>,
    /// Seconds that a process waits for the others, at the start and at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = "Several hosts")]
    pub coordinator_timeout: u64,
}

impl HostArgs {
    /// Returns the settings of the rendezvous; none for a single process.
    ///
    /// # Errors
    /// If an option that another one requires is missing, or the coordinator cannot be used.
    pub fn rendezvous_config(&self, run_directory: &Location) -> anyhow::Result<Option<RendezvousConfig>> {
        let slurm = |name: &str| -> anyhow::Result<Option<usize>> {
            let Some(value) = std::env::var_os(name) else { return Ok(None) };
            let value = value.to_string_lossy().into_owned();
            let number = value.parse().with_context(|| format!("{name} requires a number, got {value:?}"))?;
            Ok(Some(number))
        };
        // A batch script outside of srun has SLURM_NTASKS too, but starts one process only.
        let process = slurm("SLURM_PROCID")?;
        let tasks = if process.is_some() { slurm("SLURM_NTASKS")? } else { None };
        let hosts = self.hosts.or(tasks).unwrap_or(1);
        ensure!((1..=MOST_HOSTS).contains(&hosts), "--hosts requires 1 to {MOST_HOSTS}, got {hosts}");
        let Some(host) = self.host.or(process).or((hosts == 1).then_some(0)) else {
            bail!("--hosts {hosts} requires --host, the number of this process from 0 to {}", hosts - 1)
        };
        if host >= hosts {
            bail!("--host {host} requires --hosts of at least {}, got {hosts}", host.saturating_add(1));
        }
        if hosts == 1 {
            if let Some(coordinator) = &self.coordinator {
                bail!("--coordinator {coordinator} requires --hosts and --host");
            }
            return Ok(None);
        }
        let coordinator = match (&self.coordinator, run_directory.address()) {
            (Some(place), _) => place.clone(),
            (None, None) => run_directory.local().join("hosts").display().to_string(),
            (None, Some(bucket)) => bail!(
                "several hosts of a run in {bucket} require --coordinator: a directory that all of them can write to, or \
                 etcd://host:port/prefix"
            ),
        };
        let store = key_value::open(&coordinator)?;
        Ok(Some(RendezvousConfig { host, hosts, store, timeout: Duration::from_secs(self.coordinator_timeout) }))
    }
}
