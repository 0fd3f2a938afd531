//! The hosts of one attempt of a run, once they have met: points that nobody passes before all are there, and what they tell
//! each other in a folder of the store in which nothing is old.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::agreement::{Facts, check_agreement};
use crate::digest::sha256_hex;
use crate::key_value::{Folder, KeyValueStore, Patience, token};

/// A host as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub host: usize,
    /// How many hosts it believes there are.
    pub hosts: usize,
    pub hostname: String,
    pub process: u32,
    /// Drawn by this process alone.
    pub(super) token: String,
}

/// The hosts of one attempt of a run, all here.
#[derive(Debug)]
pub struct Session {
    host: usize,
    members: Vec<Member>,
    folder: Folder,
    timeout: Duration,
}

impl Member {
    /// This process, as host `host` of `hosts`.
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
    /// That of `members`, by number, seen from host `host`; it waits for the others as long as `timeout`.
    pub(super) fn of(members: Vec<Member>, host: usize, store: Arc<dyn KeyValueStore>, timeout: Duration) -> Session {
        Session { host, folder: folder_of(&members, store), members, timeout }
    }

    /// This host's number, from 0.
    pub fn host(&self) -> usize {
        self.host
    }

    pub fn hosts(&self) -> usize {
        self.members.len()
    }

    /// The hosts, by number.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Where this session's devices find each other.
    pub fn store(&self) -> Arc<dyn KeyValueStore> {
        Arc::new(Folder::new(Arc::new(self.folder.clone()), "devices"))
    }

    /// Waits until every host is at the point `name`, which must be another one each time.
    ///
    /// # Errors
    /// Which hosts did not come, or that one has given up and why.
    pub fn barrier(&self, name: &str) -> anyhow::Result<()> {
        self.gather(name, &()).map(drop)
    }

    /// Checks that all hosts state the same; a point that nobody passes before all are there, too.
    ///
    /// # Errors
    /// Which hosts differ in what; as [`Session::barrier`].
    pub fn agree(&self, name: &str, facts: &Facts) -> anyhow::Result<()> {
        let stated: Vec<Facts> = self.gather(name, facts)?;
        let names: Vec<String> = self.members.iter().map(ToString::to_string).collect();
        check_agreement(&names, &stated)
    }

    /// Tells the others that this host leaves before the end, so that they need not wait for it.
    pub fn give_up(&self, why: &str) {
        // The reason is on its way to the user already; that the others cannot be told is no better one.
        let _ = self.put(&left(self.host()), &why);
    }

    /// The sentence about a host that left before the end, if `member` did.
    pub(super) fn left(&self, member: &Member) -> anyhow::Result<Option<String>> {
        let why: Option<String> = self.read(&left(member.host))?;
        Ok(why.map(|why| format!("{member} has given up, and with it the run: {why}")))
    }

    /// Sets a value of this session.
    pub(super) fn put<T: Serialize>(&self, key: &str, value: &T) -> anyhow::Result<()> {
        put(&self.folder, key, value)
    }

    /// A value of this session, if there is one.
    pub(super) fn read<T: for<'a> Deserialize<'a>>(&self, key: &str) -> anyhow::Result<Option<T>> {
        read(&self.folder, key)
    }

    /// Waits for the others at the end, and clears the store of this session.
    ///
    /// # Errors
    /// As [`Session::barrier`].
    pub fn end(&self) -> anyhow::Result<()> {
        self.barrier("end")?;
        // Everyone must have seen everyone before the marks go.
        if self.host() == 0 {
            self.barrier("seen")?;
            self.folder.remove()?;
        } else {
            self.put(&format!("seen/{}", self.host()), &())?;
        }
        Ok(())
    }

    /// What every host puts under `name`, by host.
    fn gather<T: Serialize + for<'a> Deserialize<'a>>(&self, name: &str, mine: &T) -> anyhow::Result<Vec<T>> {
        self.put(&format!("{name}/{}", self.host()), mine)?;
        let mut patience = Patience::new(self.timeout);
        let mut found: Vec<Option<T>> = (0..self.hosts()).map(|_| None).collect();
        loop {
            for (member, value) in self.members.iter().zip(&mut found).filter(|(_, value)| value.is_none()) {
                *value = self.read(&format!("{name}/{}", member.host))?;
                if value.is_none()
                    && let Some(gave_up) = self.left(member)?
                {
                    bail!(gave_up);
                }
            }
            if found.iter().all(Option::is_some) {
                return Ok(found.into_iter().flatten().collect());
            }
            if !patience.pause() {
                let absent = self.members.iter().zip(&found).filter(|(_, value)| value.is_none());
                let absent: Vec<String> = absent.map(|(member, _)| member.to_string()).collect();
                bail!(
                    "{} did not come to the point {name:?} within {} s, although {}; look at its output, or allow more \
                     time with --coordinator-timeout",
                    absent.join(", "),
                    self.timeout.as_secs(),
                    if absent.len() == 1 { "it was there at the start" } else { "they were there at the start" },
                );
            }
        }
    }
}

/// Where host `host` says why it leaves.
fn left(host: usize) -> String {
    format!("left/{host}")
}

/// Names hosts by their tokens.
pub(super) fn name_of(members: &[Member]) -> String {
    let tokens: Vec<&str> = members.iter().map(|member| member.token.as_str()).collect();
    sha256_hex(tokens.join(" ").as_bytes())
}

/// What `members` tell each other in `store`.
pub(super) fn folder_of(members: &[Member], store: Arc<dyn KeyValueStore>) -> Folder {
    Folder::new(store, format!("session-{}", &name_of(members)[..16]))
}

pub(super) fn put<T: Serialize>(store: &dyn KeyValueStore, key: &str, value: &T) -> anyhow::Result<()> {
    Ok(store.put(key, &serde_json::to_vec(value)?)?)
}

pub(super) fn read<T: for<'a> Deserialize<'a>>(store: &dyn KeyValueStore, key: &str) -> anyhow::Result<Option<T>> {
    let Some(value) = store.try_get(key)? else { return Ok(None) };
    let value = serde_json::from_slice(&value);
    value.map(Some).with_context(|| {
        format!("{store} holds something else under {key:?}; name a place of this run's own with --coordinator")
    })
}

/// This machine's name as its administrator gave it.
fn hostname() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    match name.trim() {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}
