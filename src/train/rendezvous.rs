//! How the hosts of a run find each other through a store before any device can help: who is here, whether all mean the
//! same, and points that nobody passes before all are there.
//!
//! Stores remember: what an earlier attempt left must not be taken for a host that is here. So hosts meet in three moves,
//! each value naming what it answers:
//!
//! ```text
//! every host i   join/i = who I am, with a token that no other process has
//! host 0         roll   = all who have joined, again whenever one of them changes
//! every host i   ack/i  = the roll's name, once its own token is in it
//! host 0         go     = the roll's name, once every ack is to this roll
//! ```
//!
//! A value of an earlier attempt names an earlier roll, whose tokens nobody has any more. The roll's name is then the name
//! of the [`Session`]: a folder of the store in which nothing is old.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::agreement::{Facts, check_agreement};
use crate::checkpoint::sha256_hex;
use crate::key_value::{Folder, KeyValueStore, Patience, token};

/// Which of the run's hosts this process is, and where it finds the others.
#[derive(Clone, Debug)]
pub struct Place {
    /// From 0.
    pub host: usize,
    pub hosts: usize,
    pub store: Arc<dyn KeyValueStore>,
    /// How long to wait for the others, at each point where all must be.
    pub timeout: Duration,
}

/// A host as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub host: usize,
    /// How many hosts it believes there are.
    pub hosts: usize,
    pub hostname: String,
    pub process: u32,
    /// Drawn by this process alone.
    token: String,
}

/// The hosts of one attempt of a run, all here.
#[derive(Debug)]
pub struct Session {
    place: Place,
    members: Vec<Member>,
    folder: Folder,
}

impl Member {
    fn this(place: &Place) -> Member {
        Member {
            host: place.host,
            hosts: place.hosts,
            hostname: hostname(),
            process: std::process::id(),
            token: token(),
        }
    }
}

impl std::fmt::Display for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "host {} ({}, process {})", self.host, self.hostname, self.process)
    }
}

impl Session {
    /// Waits until all hosts are here.
    ///
    /// # Errors
    /// Who is missing after the time-out; that another process has the same number; what the store says.
    pub fn join(place: Place) -> anyhow::Result<Session> {
        ensure!(
            place.host < place.hosts,
            "--host {} requires a number from 0 to {}, for --hosts is {}",
            place.host,
            place.hosts - 1,
            place.hosts
        );
        let this = Member::this(&place);
        let (store, me) = (&*place.store, this.host);
        put(store, &format!("join/{me}"), &this)?;
        let mut patience = Patience::new(place.timeout);
        let (mut roll, mut acknowledged): (Vec<Member>, String) = Default::default();
        loop {
            check_number(store, &this)?;
            if me == 0 {
                let here = joined(store, place.hosts)?;
                if here != roll {
                    put(store, "roll", &here)?;
                    roll = here;
                }
            } else {
                roll = read(store, "roll")?.unwrap_or_default();
            }
            // A roll with this process in it is of host 0 as it is now.
            if roll.contains(&this) {
                let name = name_of(&roll);
                if name != acknowledged {
                    put(store, &format!("ack/{me}"), &name)?;
                    acknowledged = name.clone();
                }
                check_count(&roll[..1], &this)?;
                if me == 0 {
                    let here = answered(store, &roll, &name)?;
                    check_count(&here, &this)?;
                    if here.len() == place.hosts {
                        put(store, "go", &name)?;
                    }
                }
                if read::<String>(store, "go")?.as_ref() == Some(&name) {
                    let folder = Folder::new(place.store.clone(), format!("session-{}", &name[..16]));
                    return Ok(Session { place, members: roll, folder });
                }
            }
            if !patience.pause() {
                return Err(missing(&place, &this, &roll));
            }
        }
    }

    /// This host's number, from 0.
    pub fn host(&self) -> usize {
        self.place.host
    }

    pub fn hosts(&self) -> usize {
        self.place.hosts
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
        let mut patience = Patience::new(self.place.timeout);
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
                    self.place.timeout.as_secs(),
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

/// Those who have joined, by number; an old value may be among them.
fn joined(store: &dyn KeyValueStore, hosts: usize) -> anyhow::Result<Vec<Member>> {
    let members = (0..hosts).map(|host| read(store, &format!("join/{host}")));
    members.filter_map(Result::transpose).collect()
}

/// Those of the roll `name` who have acknowledged it, and so are here now.
fn answered(store: &dyn KeyValueStore, roll: &[Member], name: &String) -> anyhow::Result<Vec<Member>> {
    let acknowledged = |member: &Member| {
        let ack: Option<String> = read(store, &format!("ack/{}", member.host))?;
        Ok((ack.as_ref() == Some(name)).then(|| member.clone()))
    };
    roll.iter().map(acknowledged).filter_map(Result::transpose).collect()
}

/// Whether this process still has its number to itself. Of two that took the same one, the later has overwritten the
/// earlier; the earlier sees that, and tells it.
fn check_number(store: &dyn KeyValueStore, this: &Member) -> anyhow::Result<()> {
    let host = this.host;
    let conflict = format!("conflict/{host}");
    let both = |a: &Member, b: &Member| {
        format!(
            "two processes are host {host}: {} process {} and {} process {}; give every process a --host of its own, from 0 \
             to {}",
            a.hostname,
            a.process,
            b.hostname,
            b.process,
            this.hosts.saturating_sub(1)
        )
    };
    if let Some(now) = read::<Member>(store, &format!("join/{host}"))?
        && now != *this
    {
        put(store, &conflict, &(this, &now))?;
        bail!(both(this, &now));
    }
    if let Some((earlier, later)) = read::<(Member, Member)>(store, &conflict)?
        && later == *this
    {
        bail!(both(&earlier, &later));
    }
    Ok(())
}

/// All who met must mean the same number of hosts.
fn check_count(roll: &[Member], this: &Member) -> anyhow::Result<()> {
    match roll.iter().find(|member| member.hosts != this.hosts) {
        None => Ok(()),
        Some(other) => bail!(
            "the hosts disagree about their number: host {} says --hosts {}, {other} says --hosts {}; start all with the same",
            this.host,
            this.hosts,
            other.hosts
        ),
    }
}

/// The sentence about a run whose hosts did not all come.
fn missing(place: &Place, this: &Member, roll: &[Member]) -> anyhow::Error {
    let store = &*place.store;
    let in_roll = roll.contains(this);
    let here = answered(store, roll, &name_of(roll)).unwrap_or_default();
    let here = |host: &usize| here.iter().any(|member| member.host == *host);
    // Whoever is not host 0 hears of the others from host 0 alone.
    let absent: Vec<usize> = if in_roll { (0..place.hosts).filter(|host| !here(host)).collect() } else { vec![0] };
    let list = |hosts: &[usize]| hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    anyhow::anyhow!(
        "host {} of {} ({}) waited {} s at {} for host {}, which did not come; start every host with its own --host and the same \
         --coordinator, or allow more time with --coordinator-timeout",
        this.host,
        place.hosts,
        this.hostname,
        place.timeout.as_secs(),
        place.store,
        list(&absent),
    )
}

/// Names a roll by the tokens of its members.
fn name_of(roll: &[Member]) -> String {
    let tokens: Vec<&str> = roll.iter().map(|member| member.token.as_str()).collect();
    sha256_hex(tokens.join(" ").as_bytes())
}

fn put<T: Serialize>(store: &dyn KeyValueStore, key: &str, value: &T) -> anyhow::Result<()> {
    Ok(store.put(key, &serde_json::to_vec(value)?)?)
}

fn read<T: for<'a> Deserialize<'a>>(store: &dyn KeyValueStore, key: &str) -> anyhow::Result<Option<T>> {
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
