//! How the hosts of a run find each other through a store before any device can help.
//!
//! Stores remember: what an earlier attempt left must not be taken for a host that is here. So hosts meet in three moves,
//! each value naming what it answers:
//!
//! ```text
//! every host i   join/i  = who I am, with a token that no other process has
//! host 0         roll    = all who have joined, again whenever one of them changes
//! every host i   ack/i   = the roll's name, once its own token is in it
//! host 0         met     = the roll, once every ack is to it
//! ```
//!
//! A value of an earlier attempt names an earlier roll, whose tokens nobody has any more. Those who have met have a
//! [`Session`].
//!
//! By a value that stays nobody can tell whether its writer is still here; by one that moves, whoever is in no roll can. So it
//! learns of a host 0 that waits for others than it, and, by the session's `alive/0` (`watch.rs`), of hosts that have begun
//! without it:
//!
//! ```text
//! host 0         pulse   = its token, and a number that grows while it waits
//! any host       refusal = the token of a host 0, and why its attempt comes to nothing
//! ```

pub mod agreement;
pub mod heartbeat;
pub mod session;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};

use crate::key_value::{KeyValueStore, Patience};
use crate::rendezvous::heartbeat as watch;
use crate::rendezvous::session::{Member, Session, folder_of, name_of, put, read};

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

/// Waits until all hosts are here.
///
/// # Errors
/// Who is missing after the time-out; who has the same number, or another number of hosts; that they have begun without
/// this one; what the store says.
pub fn meet(place: Place) -> anyhow::Result<Session> {
    ensure!(
        place.host < place.hosts,
        "--host {} requires a number from 0 to {}, for --hosts is {}",
        place.host,
        place.hosts - 1,
        place.hosts
    );
    let mut patience = Patience::new(place.timeout);
    let mut meeting = Meeting::begin(place)?;
    loop {
        if let Some(session) = meeting.look()? {
            return Ok(session);
        }
        if !patience.pause() {
            return Err(meeting.give_up());
        }
    }
}

/// What one host has seen and said of the others so far.
struct Meeting {
    place: Place,
    this: Member,
    /// The newest of host 0.
    roll: Vec<Member>,
    /// The name of the roll that this host has acknowledged.
    acknowledged: String,
    /// How often host 0 has said that it waits.
    beat: u64,
    pulse: Sign,
    alive: Sign,
    /// Hosts that have met before, and are still on their way.
    under_way: Vec<Member>,
}

/// A value that its writer changes as long as it is here.
#[derive(Default)]
struct Sign(Option<String>);

impl Sign {
    /// Whether `now` is another value than that which was seen before.
    fn moves(&mut self, now: Option<String>) -> bool {
        let moves = now.is_some() && self.0.is_some() && now != self.0;
        self.0 = now;
        moves
    }
}

impl Meeting {
    fn begin(place: Place) -> anyhow::Result<Meeting> {
        let this = Member::this(place.host, place.hosts);
        put(&*place.store, &format!("join/{}", this.host), &this)?;
        Ok(Meeting {
            place,
            this,
            roll: Vec::new(),
            acknowledged: String::new(),
            beat: 0,
            pulse: Sign::default(),
            alive: Sign::default(),
            under_way: Vec::new(),
        })
    }

    fn store(&self) -> &dyn KeyValueStore {
        &*self.place.store
    }

    /// Looks once at what the others say and answers it; the session, once all are here.
    fn look(&mut self) -> anyhow::Result<Option<Session>> {
        if self.this.host == 0 {
            self.call()?;
        } else {
            self.roll = read(self.store(), "roll")?.unwrap_or_default();
        }
        self.check_number()?;
        // A roll with this process in it is of host 0 as it is now.
        if self.roll.contains(&self.this) {
            self.answer()?;
        } else {
            self.check_leader()?;
        }
        match read::<Vec<Member>>(self.store(), "met")? {
            Some(met) if met.contains(&self.this) => {
                let Place { store, timeout, .. } = self.place.clone();
                Ok(Some(Session::of(met, self.this.host, store, timeout)))
            }
            earlier => self.check_earlier(&earlier.unwrap_or_default()).map(|()| None),
        }
    }

    /// What host 0 does at each look: it says that it waits, who has joined, and when all have answered.
    fn call(&mut self) -> anyhow::Result<()> {
        put(self.store(), "pulse", &(&self.this.token, self.beat))?;
        self.beat += 1;
        let here = self.joined()?;
        if here != self.roll {
            put(self.store(), "roll", &here)?;
            self.roll = here;
        }
        if self.answered()?.len() == self.place.hosts {
            put(self.store(), "met", &self.roll)?;
        }
        Ok(())
    }

    /// What a host does that finds itself in the roll.
    fn answer(&mut self) -> anyhow::Result<()> {
        let leader = &self.roll[0];
        if let Some((token, why)) = read::<(String, String)>(self.store(), "refusal")?
            && token == leader.token
        {
            bail!(why);
        }
        self.check_count(leader)?;
        let name = name_of(&self.roll);
        if name != self.acknowledged {
            put(self.store(), &format!("ack/{}", self.this.host), &name)?;
            self.acknowledged = name;
        }
        Ok(())
    }

    /// Those who have joined, by number; an old value may be among them.
    fn joined(&self) -> anyhow::Result<Vec<Member>> {
        let members = (0..self.place.hosts).map(|host| read(self.store(), &format!("join/{host}")));
        members.filter_map(Result::transpose).collect()
    }

    /// The numbers of those who have acknowledged the roll, and so are here now.
    fn answered(&self) -> anyhow::Result<Vec<usize>> {
        let name = name_of(&self.roll);
        let mut here = Vec::new();
        for Member { host, .. } in &self.roll {
            if read::<String>(self.store(), &format!("ack/{host}"))?.as_ref() == Some(&name) {
                here.push(*host);
            }
        }
        Ok(here)
    }

    /// Whether this process still has its number to itself. Of two that took the same one, the later has overwritten the
    /// earlier; the earlier sees that, and tells it.
    fn check_number(&self) -> anyhow::Result<()> {
        let (join, conflict) = (format!("join/{}", self.this.host), format!("conflict/{}", self.this.host));
        if let Some(now) = read::<Member>(self.store(), &join)?
            && now != self.this
        {
            put(self.store(), &conflict, &(&self.this, &now))?;
            return Err(self.refuse(two_of_a_number(&self.this, &now)));
        }
        if let Some((earlier, later)) = read::<(Member, Member)>(self.store(), &conflict)?
            && later == self.this
        {
            return Err(self.refuse(two_of_a_number(&earlier, &later)));
        }
        Ok(())
    }

    /// All must mean the same number of hosts as `leader`, host 0.
    fn check_count(&self, leader: &Member) -> anyhow::Result<()> {
        if leader.hosts == self.this.hosts {
            return Ok(());
        }
        Err(self.refuse(format!(
            "the hosts disagree about their number: {} was given --hosts {}, and {leader} --hosts {}; start all of them with \
             the same number",
            self.this, self.this.hosts, leader.hosts
        )))
    }

    /// Whether host 0, if it is here, waits for as many hosts: of fewer, this one may never be in the roll.
    fn check_leader(&mut self) -> anyhow::Result<()> {
        let pulse: Option<(String, u64)> = read(self.store(), "pulse")?;
        let leader: Option<Member> = read(self.store(), "join/0")?;
        let beats = self.pulse.moves(pulse.as_ref().map(|(token, beat)| format!("{token} {beat}")));
        match leader {
            Some(leader) if beats && pulse.is_some_and(|(token, _)| token == leader.token) => self.check_count(&leader),
            _ => Ok(()),
        }
    }

    /// Whether the hosts `met`, of which this is none, are still on their way. Of as many this one may take the place of one
    /// that is lost, once the others have noticed; of others it waits for nothing.
    fn check_earlier(&mut self, met: &[Member]) -> anyhow::Result<()> {
        let beat = watch::sign_of_life(&folder_of(met, self.place.store.clone()))?;
        if beat.is_none() {
            self.under_way.clear();
        }
        if self.alive.moves(beat.map(|beat| format!("{} {beat}", name_of(met)))) {
            self.under_way = met.to_vec();
        }
        let comes_to_others = ![0, self.this.hosts].contains(&self.under_way.len());
        if comes_to_others { Err(self.refuse(self.late())) } else { Ok(()) }
    }

    /// The sentence about hosts that are on their way without this one.
    fn late(&self) -> String {
        let Meeting { place, this, under_way, .. } = self;
        let leader = under_way.first().map(Member::to_string).unwrap_or_default();
        format!(
            "a run of {} hosts is under way at {} already, led by {leader}, and this process is host {} of {}; wait for its end, \
             or give this run a --coordinator of its own",
            under_way.len(),
            place.store,
            this.host,
            this.hosts
        )
    }

    /// The error `why`, which concerns all; who waits for host 0 or with it hears it, too.
    fn refuse(&self, why: String) -> anyhow::Error {
        // It is on its way to the user already; that the others cannot be told is no better reason.
        if let Ok(Some(leader)) = read::<Member>(self.store(), "join/0") {
            let _ = put(self.store(), "refusal", &(leader.token, &why));
        }
        anyhow!(why)
    }

    /// Stops waiting: the sentence about a run whose hosts did not all come.
    fn give_up(self) -> anyhow::Error {
        let Meeting { place, this, .. } = &self;
        let listed = self.roll.contains(this);
        if !listed && !self.under_way.is_empty() {
            return anyhow!(self.late());
        }
        let here = self.answered().unwrap_or_default();
        // Whoever is not host 0 hears of the others from host 0 alone.
        let mut absent: Vec<usize> = (0..place.hosts).filter(|host| !here.contains(host)).collect();
        if !listed || absent.is_empty() {
            absent = vec![0];
        }
        let why = format!(
            "host {} of {} ({}) waited {} s at {} for host {}, which did not come; start every host with its own --host and \
             the same --coordinator, or allow more time with --coordinator-timeout",
            this.host,
            place.hosts,
            this.hostname,
            place.timeout.as_secs(),
            place.store,
            numbers(&absent),
        );
        // Those who wait with host 0 wait for nobody else.
        if this.host == 0 { self.refuse(why) } else { anyhow!(why) }
    }
}

/// Numbers of hosts, the first ones of many.
fn numbers(hosts: &[usize]) -> String {
    let shown = &hosts[..hosts.len().min(16)];
    let listed = shown.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match hosts.len() - shown.len() {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

fn two_of_a_number(a: &Member, b: &Member) -> String {
    format!(
        "two processes are host {}: {} process {} and {} process {}; give every process a --host of its own, from 0 to {}",
        a.host,
        a.hostname,
        a.process,
        b.hostname,
        b.process,
        a.hosts.max(b.hosts) - 1
    )
}
