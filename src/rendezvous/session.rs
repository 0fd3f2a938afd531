//! The hosts of one attempt of a run after the rendezvous: barriers, checks for equal values, and a folder of the store that
//! holds nothing of earlier attempts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::agreement::{SharedValues, check_equal};
use crate::deadline::Deadline;
use crate::digest::sha256_hex;
use crate::key_value::{Folder, KeyValueStore, token};

/// The barrier that host 0 waits for before it removes the session's values.
const SHUTDOWN_PASSED: &str = "shutdown-passed";

/// The identity of a host as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The number of the host, from 0.
    pub host: usize,
    /// The number of hosts that this one was started with.
    pub hosts: usize,
    /// The name of the machine.
    pub hostname: String,
    /// The process ID.
    pub process: u32,
    /// Drawn by this process alone.
    pub(super) token: String,
}

/// The hosts of one attempt of a run, after all of them joined.
#[derive(Debug)]
pub struct Session {
    host: usize,
    members: Vec<Member>,
    folder: Folder,
    timeout: Duration,
}

impl Member {
    /// Returns this process's identity as host `host` of `hosts`.
    pub(super) fn this(host: usize, hosts: usize) -> Member {
        Member { host, hosts, hostname: hostname(), process: std::process::id(), token: token() }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {} ({}, process {})", self.host, self.hostname, self.process)
    }
}

impl Session {
    /// Returns the session of `members` (in host order) for host `host`; a barrier waits for at most `timeout`.
    pub(super) fn new(members: Vec<Member>, host: usize, store: Arc<dyn KeyValueStore>, timeout: Duration) -> Session {
        Session { host, folder: session_folder(&members, store), members, timeout }
    }

    /// Returns this host's number, from 0.
    pub fn host(&self) -> usize {
        self.host
    }

    /// Returns the number of hosts.
    pub fn hosts(&self) -> usize {
        self.members.len()
    }

    /// Returns the hosts in order of their numbers.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the store through which the devices of this session connect to each other.
    pub fn device_store(&self) -> Arc<dyn KeyValueStore> {
        Arc::new(Folder::new(Arc::new(self.folder.clone()), "devices"))
    }

    /// Waits until every host has reached the barrier `name`. Each name can be used once.
    ///
    /// # Errors
    /// If a host does not arrive within the timeout, or aborts.
    pub fn barrier(&self, name: &str) -> anyhow::Result<()> {
        self.all_gather(name, &()).map(drop)
    }

    /// Checks that all hosts have equal `values`. It is also the barrier `name`.
    ///
    /// # Errors
    /// If hosts differ, with the hosts and the values; as [`Session::barrier`].
    pub fn check_equal(&self, name: &str, values: &SharedValues) -> anyhow::Result<()> {
        let all: Vec<SharedValues> = self.all_gather(name, values)?;
        let names: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        check_equal(&names, &all)
    }

    /// Writes the reason why this host leaves early, so that the others stop waiting for it.
    pub fn abort(&self, reason: &str) {
        // The caller reports `reason`; a second error from the store would not help.
        let _ = self.put(&abort_key(self.host()), &reason);
    }

    /// Returns the message that `member` aborted, if it did.
    pub(super) fn abort_message(&self, member: &Member) -> anyhow::Result<Option<String>> {
        let reason: Option<String> = self.read(&abort_key(member.host))?;
        Ok(reason.map(|reason| format!("{member} failed, so the run was aborted: {reason}")))
    }

    /// Writes a value of this session.
    pub(super) fn put<T: Serialize>(&self, key: &str, value: &T) -> anyhow::Result<()> {
        put(&self.folder, key, value)
    }

    /// Reads a value of this session, if it exists.
    pub(super) fn read<T: for<'a> Deserialize<'a>>(&self, key: &str) -> anyhow::Result<Option<T>> {
        read(&self.folder, key)
    }

    /// Waits until all hosts shut down, then removes this session's values from the store.
    ///
    /// # Errors
    /// As [`Session::barrier`].
    pub fn shutdown(&self) -> anyhow::Result<()> {
        self.barrier("shutdown")?;
        // Host 0 removes the values after every host has passed the barrier.
        if self.host() == 0 {
            self.barrier(SHUTDOWN_PASSED)?;
            self.folder.remove()?;
        } else {
            self.put(&barrier_key(SHUTDOWN_PASSED, self.host()), &())?;
        }
        Ok(())
    }

    /// Returns the values that all hosts put under `name`, in host order.
    fn all_gather<T: Serialize + for<'a> Deserialize<'a>>(&self, name: &str, own: &T) -> anyhow::Result<Vec<T>> {
        self.put(&barrier_key(name, self.host()), own)?;
        let mut deadline = Deadline::after(self.timeout);
        let mut found: Vec<Option<T>> = (0..self.hosts()).map(|_| None).collect();
        loop {
            for (member, value) in self.members.iter().zip(&mut found).filter(|(_, value)| value.is_none()) {
                *value = self.read(&barrier_key(name, member.host))?;
                if value.is_none()
                    && let Some(aborted) = self.abort_message(member)?
                {
                    bail!(aborted);
                }
            }
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
            if !deadline.sleep() {
                let absent = self.members.iter().zip(&found).filter(|(_, value)| value.is_none());
                let absent: Vec<String> = absent.map(|(member, _)| member.to_string()).collect();
                bail!(
                    "{} joined the run but did not reach the barrier {name:?} within {} s; see the log of that host, or \
                     raise the coordinator timeout",
                    absent.join(", "),
                    self.timeout.as_secs(),
                );
            }
        }
    }
}

/// Returns the key under which host `host` writes why it aborts.
fn abort_key(host: usize) -> String {
    format!("abort/{host}")
}

/// Returns the key that host `host` writes at the barrier `name`.
fn barrier_key(name: &str, host: usize) -> String {
    format!("barrier/{name}/{host}")
}

/// Returns an id of these processes: the sha256 of their tokens.
pub(super) fn id_of(members: &[Member]) -> String {
    let tokens: Vec<&str> = members.iter().map(|member| member.token.as_str()).collect();
    sha256_hex(tokens.join(" ").as_bytes())
}

/// Returns the folder of `store` that holds the session of `members`.
pub(super) fn session_folder(members: &[Member], store: Arc<dyn KeyValueStore>) -> Folder {
    Folder::new(store, format!("session-{}", &id_of(members)[..16]))
}

pub(super) fn put<T: Serialize>(store: &dyn KeyValueStore, key: &str, value: &T) -> anyhow::Result<()> {
    Ok(store.put(key, &serde_json::to_vec(value)?)?)
}

pub(super) fn read<T: for<'a> Deserialize<'a>>(store: &dyn KeyValueStore, key: &str) -> anyhow::Result<Option<T>> {
    let Some(value) = store.try_get(key)? else { return Ok(None) };
    let value = serde_json::from_slice(&value);
    value.map(Some).with_context(|| {
        format!("coordinator {store}: {key:?} was not written by this program; use a separate coordinator for each run")
    })
}

/// Returns the name of this machine.
fn hostname() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}
