//! The options of a run on several hosts: who this one is, and where it finds the others.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::key_value;
use crate::rendezvous::RendezvousConfig;
use crate::storage::Location;

/// Each host looks for each other one, several times a second.
const MOST_HOSTS: usize = 65_536;

#[derive(Debug, Args)]
pub struct HostArgs {
    /// Processes of this run, one on each machine with GPUs [default: SLURM_NTASKS under srun, or 1]. A TPU slice needs none
    /// of these options: start the same command on all of its hosts
    #[arg(long, value_name = "N", help_heading = "Several hosts")]
    pub hosts: Option<usize>,
    /// Which of them this one is, from 0 [default: SLURM_PROCID]
    #[arg(long, value_name = "I", help_heading = "Several hosts")]
    pub host: Option<usize>,
    /// Where they find each other: a directory that all can write, or etcd://host:port/prefix, the prefix being the run's
    /// own [default: `hosts` in the run directory]
    #[arg(long, value_name = "DIR|etcd://…", help_heading = "Several hosts")]
    pub coordinator: Option<String>,
    /// How long a host waits for the others, at the start and at the end
    #[arg(long, value_name = "SECONDS", default_value_t = 600, help_heading = "Several hosts")]
    pub coordinator_timeout: u64,
}

impl HostArgs {
    /// Where this process stands among the run's; none if it is the only one, as far as these options know.
    ///
    /// # Errors
    /// If an option is missing beside another, or the coordinator cannot be used.
    pub fn rendezvous_config(&self, run_directory: &Location) -> anyhow::Result<Option<RendezvousConfig>> {
        let slurm = |name: &str| -> anyhow::Result<Option<usize>> {
            let Some(value) = std::env::var_os(name) else { return Ok(None) };
            let value = value.to_string_lossy().into_owned();
            let number = value.parse().with_context(|| format!("{name} requires a number, got {value:?}"))?;
            Ok(Some(number))
        };
        // In a batch script outside srun there is a number of tasks, but no step that would start them all.
        let process = slurm("SLURM_PROCID")?;
        let tasks = if process.is_some() { slurm("SLURM_NTASKS")? } else { None };
        let hosts = self.hosts.or(tasks).unwrap_or(1);
        ensure!((1..=MOST_HOSTS).contains(&hosts), "--hosts requires 1 to {MOST_HOSTS}, got {hosts}");
        let Some(host) = self.host.or(process).or((hosts == 1).then_some(0)) else {
            bail!("--hosts {hosts} requires --host, this process's number from 0 to {}", hosts - 1)
        };
        if host >= hosts {
            bail!("--host {host} requires --hosts to be more than that, got {hosts}");
        }
        if hosts == 1 {
            if let Some(coordinator) = &self.coordinator {
                bail!("--coordinator {coordinator} requires --hosts and --host, which say who is to meet there");
            }
            return Ok(None);
        }
        let coordinator = match (&self.coordinator, run_directory.address()) {
            (Some(place), _) => place.clone(),
            (None, None) => run_directory.local().join("hosts").display().to_string(),
            (None, Some(bucket)) => bail!(
                "several hosts of a run in {bucket} require --coordinator: a directory that all of them can write, or \
                 etcd://host:port/prefix"
            ),
        };
        let store = key_value::open(&coordinator)?;
        Ok(Some(RendezvousConfig { host, hosts, store, timeout: Duration::from_secs(self.coordinator_timeout) }))
    }
}
