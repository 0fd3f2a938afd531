//! The rendezvous: the hosts of a run find each other through a key-value store, before their devices are connected.
//!
//! A store keeps values of earlier attempts, which must not be taken for hosts that run now. The protocol therefore has
//! three stages, and each value names the value that it answers:
//!
//! ```text
//! every host i   join/i  = its identity, with a token that no other process has
//! host 0         members = all hosts that have joined, written again whenever one of them changes
//! every host i   ack/i   = the id of the member list, once this host's own token is in it
//! host 0         session = the member list, once every host has acknowledged it
//! ```
//!
//! A value of an earlier attempt names an earlier member list, whose tokens belong to no running process. The hosts then
//! share a [`Session`].
//!
//! A value that stays the same does not show whether its writer still runs; a value that changes does. A host outside the
//! member list thereby detects a host 0 that waits for other hosts, and, by the session's `heartbeat/0` (`heartbeat.rs`),
//! hosts that have started without it:
//!
//! ```text
//! host 0         leader     = its token, and a counter that grows while it waits
//! any host       abort      = the token of a host 0, and the reason why its attempt fails
//! any host i     conflict/i = two processes that both joined as host i
//! ```

pub mod agreement;
pub mod heartbeat;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};

use crate::deadline::Deadline;
use crate::key_value::KeyValueStore;
use heartbeat::leader_heartbeat;
use session::{Member, Session, id_of, put, read, session_folder};

/// The settings of a rendezvous: this process's number, the number of hosts, and the store that they share.
#[derive(Clone, Debug)]
pub struct RendezvousConfig {
    /// The number of this process, from 0.
    pub host: usize,
    /// The number of hosts of the run.
    pub hosts: usize,
    /// The store that all hosts share.
    pub store: Arc<dyn KeyValueStore>,
    /// The time limit of the rendezvous, and of each barrier of the session.
    pub timeout: Duration,
}

/// Waits until all hosts of the run have joined.
///
/// # Errors
/// If a host is missing after the timeout, two processes have one number, the hosts disagree about their count, a run of
/// other hosts is in progress, or the store fails.
pub fn rendezvous(config: RendezvousConfig) -> anyhow::Result<Session> {
    ensure!(
        config.host < config.hosts,
        "host {} of a run on {} hosts: requires a host number from 0 to {}",
        config.host,
        config.hosts,
        config.hosts.saturating_sub(1)
    );
    let mut deadline = Deadline::after(config.timeout);
    let mut attempt = Attempt::begin(config)?;
    loop {
        if let Some(session) = attempt.poll()? {
            return Ok(session);
        }
        if !deadline.sleep() {
            return Err(attempt.time_out());
        }
    }
}

/// The state of one host during a rendezvous.
struct Attempt {
    config: RendezvousConfig,
    this: Member,
    /// The newest member list of host 0.
    members: Vec<Member>,
    /// The id of the member list that this host has acknowledged.
    acknowledged: String,
    /// Counts the polls of host 0.
    polls: u64,
    leader: ChangingValue,
    session_heartbeat: ChangingValue,
    /// The hosts of an earlier session that still run.
    running: Vec<Member>,
}

/// A value that its writer changes as long as it runs.
#[derive(Default)]
struct ChangingValue(Option<String>);

impl ChangingValue {
    /// Stores `now`; returns whether it differs from the value stored before.
    fn has_changed(&mut self, now: Option<String>) -> bool {
        let changed = now.is_some() && self.0.is_some() && now != self.0;
        self.0 = now;
        changed
    }
}

impl Attempt {
    fn begin(config: RendezvousConfig) -> anyhow::Result<Attempt> {
        let this = Member::this(config.host, config.hosts);
        put(&*config.store, &format!("join/{}", this.host), &this)?;
        Ok(Attempt {
            config,
            this,
            members: Vec::new(),
            acknowledged: String::new(),
            polls: 0,
            leader: ChangingValue::default(),
            session_heartbeat: ChangingValue::default(),
            running: Vec::new(),
        })
    }

    fn store(&self) -> &dyn KeyValueStore {
        &*self.config.store
    }

    /// Reads the others' values once and answers them; returns the session once all hosts have joined.
    fn poll(&mut self) -> anyhow::Result<Option<Session>> {
        if self.this.host == 0 {
            self.lead()?;
        } else {
            self.members = read(self.store(), "members")?.unwrap_or_default();
        }
        self.check_number()?;
        // A member list with this process in it was written by the current host 0.
        if self.members.contains(&self.this) {
            self.acknowledge()?;
        } else {
            self.check_leader()?;
        }
        match read::<Vec<Member>>(self.store(), "session")? {
            Some(session) if session.contains(&self.this) => {
                let RendezvousConfig { store, timeout, .. } = self.config.clone();
                Ok(Some(Session::new(session, self.this.host, store, timeout)))
            }
            earlier => self.check_earlier(&earlier.unwrap_or_default()).map(|()| None),
        }
    }

    /// Does host 0's part of a poll: it writes that it waits, lists the hosts that joined, and starts the session once all
    /// have acknowledged the list.
    fn lead(&mut self) -> anyhow::Result<()> {
        put(self.store(), "leader", &(&self.this.token, self.polls))?;
        self.polls += 1;
        let joined = self.joined()?;
        if joined != self.members {
            put(self.store(), "members", &joined)?;
            self.members = joined;
        }
        if self.acknowledged_by()?.len() == self.config.hosts {
            put(self.store(), "session", &self.members)?;
        }
        Ok(())
    }

    /// Acknowledges the member list, which holds this host, unless host 0's attempt has failed.
    fn acknowledge(&mut self) -> anyhow::Result<()> {
        let leader = &self.members[0];
        if let Some((token, reason)) = read::<(String, String)>(self.store(), "abort")?
            && token == leader.token
        {
            bail!(reason);
        }
        self.check_count(leader)?;
        let id = id_of(&self.members);
        if id != self.acknowledged {
            put(self.store(), &format!("ack/{}", self.this.host), &id)?;
            self.acknowledged = id;
        }
        Ok(())
    }

    /// Returns the hosts that have joined, in order; values of an earlier attempt may be among them.
    fn joined(&self) -> anyhow::Result<Vec<Member>> {
        let members = (0..self.config.hosts).map(|host| read(self.store(), &format!("join/{host}")));
        members.filter_map(Result::transpose).collect()
    }

    /// Returns the numbers of the hosts that have acknowledged the member list, and so run now.
    fn acknowledged_by(&self) -> anyhow::Result<Vec<usize>> {
        let id = id_of(&self.members);
        let mut hosts = Vec::new();
        for Member { host, .. } in &self.members {
            if read::<String>(self.store(), &format!("ack/{host}"))?.as_ref() == Some(&id) {
                hosts.push(*host);
            }
        }
        Ok(hosts)
    }

    /// Checks that no other process has this host number. Of two such processes the later one has overwritten the value of
    /// the earlier one; the earlier one detects that and writes the conflict.
    fn check_number(&self) -> anyhow::Result<()> {
        let (join, conflict) = (format!("join/{}", self.this.host), format!("conflict/{}", self.this.host));
        if let Some(now) = read::<Member>(self.store(), &join)?
            && now != self.this
        {
            put(self.store(), &conflict, &(&self.this, &now))?;
            return Err(self.abort(same_number(&self.this, &now)));
        }
        if let Some((earlier, later)) = read::<(Member, Member)>(self.store(), &conflict)?
            && later == self.this
        {
            return Err(self.abort(same_number(&earlier, &later)));
        }
        Ok(())
    }

    /// Checks that this host was started with the same number of hosts as `leader`, host 0.
    fn check_count(&self, leader: &Member) -> anyhow::Result<()> {
        if leader.hosts == self.this.hosts {
            return Ok(());
        }
        Err(self.abort(format!(
            "the hosts disagree about the number of hosts: {} was started as one of {}, {leader} as one of {}; start all \
             of them with the same number",
            self.this, self.this.hosts, leader.hosts
        )))
    }

    /// Checks that host 0, if it runs, waits for as many hosts: a host 0 that waits for fewer may never list this one.
    fn check_leader(&mut self) -> anyhow::Result<()> {
        let waiting: Option<(String, u64)> = read(self.store(), "leader")?;
        let leader: Option<Member> = read(self.store(), "join/0")?;
        let runs = self.leader.has_changed(waiting.as_ref().map(|(token, polls)| format!("{token} {polls}")));
        match leader {
            Some(leader) if runs && waiting.is_some_and(|(token, _)| token == leader.token) => {
                self.check_count(&leader)
            }
            _ => Ok(()),
        }
    }

    /// Checks for a running session of other hosts. If it has as many hosts, this process may replace a lost one once the
    /// others have detected the loss, so it waits; otherwise it fails at once.
    fn check_earlier(&mut self, session: &[Member]) -> anyhow::Result<()> {
        let heartbeat = leader_heartbeat(&session_folder(session, self.config.store.clone()))?;
        if heartbeat.is_none() {
            self.running.clear();
        }
        let heartbeat = heartbeat.map(|heartbeat| format!("{} {heartbeat}", id_of(session)));
        if self.session_heartbeat.has_changed(heartbeat) {
            self.running = session.to_vec();
        }
        let never_needed = ![0, self.this.hosts].contains(&self.running.len());
        if never_needed { Err(self.abort(self.in_progress())) } else { Ok(()) }
    }

    /// Returns the message about hosts that run without this one.
    fn in_progress(&self) -> String {
        let Attempt { config, this, running, .. } = self;
        let leader = running.first().map(Member::to_string).unwrap_or_default();
        format!(
            "a run of {} hosts is in progress at {}, led by {leader}, and this process is host {} of {}; wait until it ends, \
             or choose another coordinator for this run",
            running.len(),
            config.store,
            this.host,
            this.hosts
        )
    }

    /// Writes the reason for all hosts that wait for host 0 or with it, and returns it as an error.
    fn abort(&self, reason: String) -> anyhow::Error {
        // The caller reports `reason`; a second error from the store would not help.
        if let Ok(Some(leader)) = read::<Member>(self.store(), "join/0") {
            let _ = put(self.store(), "abort", &(leader.token, &reason));
        }
        anyhow!(reason)
    }

    /// Ends the attempt after the timeout; returns the error that names the missing hosts.
    fn time_out(self) -> anyhow::Error {
        let Attempt { config, this, .. } = &self;
        let listed = self.members.contains(this);
        if !listed && !self.running.is_empty() {
            return anyhow!(self.in_progress());
        }
        let present = self.acknowledged_by().unwrap_or_default();
        // A host that host 0 has not listed can report only that host 0 is missing.
        let mut missing: Vec<usize> = (0..config.hosts).filter(|host| !present.contains(host)).collect();
        if !listed || missing.is_empty() {
            missing = vec![0];
        }
        let reason = format!(
            "host {} of {} ({}): host {} did not join at {} within {} s; start every host with its own number and the same \
             coordinator, or raise the coordinator timeout",
            this.host,
            config.hosts,
            this.hostname,
            list_hosts(&missing),
            config.store,
            config.timeout.as_secs(),
        );
        // The other hosts wait for host 0 alone, so only its timeout ends theirs.
        if this.host == 0 { self.abort(reason) } else { anyhow!(reason) }
    }
}

/// Lists host numbers, the first 16 of many.
fn list_hosts(hosts: &[usize]) -> String {
    let shown = &hosts[..hosts.len().min(16)];
    let listed = shown.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match hosts.len() - shown.len() {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

fn same_number(a: &Member, b: &Member) -> String {
    format!(
        "two processes were started as host {}: {} process {} and {} process {}; give every process its own host number, \
         from 0 to {}",
        a.host,
        a.hostname,
        a.process,
        b.hostname,
        b.process,
        a.hosts.max(b.hosts) - 1
    )
}
