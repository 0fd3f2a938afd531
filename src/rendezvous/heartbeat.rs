//! Heartbeats detect a lost host while devices work together. A collective that waits for a dead host waits for ever and
//! reports nothing, so every host of a [`Session`] writes a heartbeat. Host 0 monitors all hosts; the others monitor host 0
//! and read the failure that it reports, so one poll of the store costs O(n) for n hosts instead of O(n²).
//!
//! ```text
//! every host i   heartbeat/i = a counter that grows, and "finished" at the end
//! host 0         failure     = the message about a host that missed its heartbeats or aborted (abort/i)
//! ```
//! A TPU slice has no session; its runtime detects lost hosts itself.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::session::{Member, Session, read};
use crate::key_value::Folder;

/// The interval between two heartbeats of a host, and the time without one after which the host counts as lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// The time between two heartbeats of a host.
    pub interval: Duration,
    /// The time without a heartbeat after which a host counts as lost.
    pub timeout: Duration,
}

impl Default for HeartbeatConfig {
    /// The timeout is long because a shared file system may show a new value a minute late.
    fn default() -> Self {
        HeartbeatConfig { interval: Duration::from_secs(10), timeout: Duration::from_secs(120) }
    }
}

/// The thread that writes this host's heartbeat and monitors the other hosts; it stops when this value is dropped.
#[derive(Debug)]
pub struct PeerMonitor {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// The last heartbeat of a host that has no more work for its devices.
const FINISHED: &str = "finished";

impl PeerMonitor {
    /// Starts to monitor. `on_failure` is called at most once, on the monitor's thread, with a message about the lost host.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub fn start(
        session: Arc<Session>,
        config: HeartbeatConfig,
        on_failure: impl FnOnce(String) + Send + 'static,
    ) -> anyhow::Result<PeerMonitor> {
        let (stop, stopped) = channel();
        let monitor = move || {
            let mut peers: Vec<Peer> = session.members().iter().map(Peer::new).collect();
            for count in 0_u64.. {
                // A store that cannot be written for a while is no reason to stop: the others report it if it lasts.
                let _ = session.put(&key(session.host()), &count.to_string());
                if let Some(failure) = poll(&session, &mut peers, config) {
                    return on_failure(failure);
                }
                if stopped.recv_timeout(config.interval) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            let _ = session.put(&key(session.host()), &FINISHED);
        };
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(monitor);
        let thread = thread.context("cannot start the thread that monitors the other hosts")?;
        Ok(PeerMonitor { stop, thread: Some(thread) })
    }
}

impl Drop for PeerMonitor {
    /// Writes that this host is finished.
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns the newest heartbeat of host 0 of the session in `folder`, while that host runs. It differs at each interval.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn leader_heartbeat(folder: &Folder) -> anyhow::Result<Option<String>> {
    Ok(read(folder, &key(0))?.filter(|heartbeat| heartbeat != FINISHED))
}

/// The heartbeats of one monitored host.
struct Peer {
    member: Member,
    last: Option<String>,
    /// When `last` changed.
    since: Instant,
    /// The message that it aborted, if it had at the last poll.
    aborted: Option<String>,
}

fn key(host: usize) -> String {
    format!("heartbeat/{host}")
}

/// Returns the message about a lost host, if this host has detected one.
fn poll(session: &Session, peers: &mut [Peer], config: HeartbeatConfig) -> Option<String> {
    if session.host() != 0 {
        let reported = session.read::<String>("failure").ok().flatten();
        return reported.or_else(|| peers[0].poll(session, config));
    }
    let failure = peers[1..].iter_mut().find_map(|peer| peer.poll(session, config))?;
    let _ = session.put("failure", &failure);
    Some(failure)
}

impl Peer {
    fn new(member: &Member) -> Peer {
        Peer { member: member.clone(), last: None, since: Instant::now(), aborted: None }
    }

    /// Returns the message about this host, if it is lost.
    fn poll(&mut self, session: &Session, config: HeartbeatConfig) -> Option<String> {
        let heartbeat = session.read::<String>(&key(self.member.host));
        let (Ok(heartbeat), Ok(aborted)) = (heartbeat, session.abort_message(&self.member)) else {
            // A store that cannot be read gives no evidence about hosts.
            self.since = Instant::now();
            return None;
        };
        // The devices may report an abort too, and this host then ends by itself: it has one interval to do so.
        if let Some(aborted) = self.aborted.take() {
            return Some(aborted);
        }
        self.aborted = aborted;
        if heartbeat != self.last || heartbeat.as_deref() == Some(FINISHED) {
            (self.last, self.since) = (heartbeat, Instant::now());
        }
        let silent = self.since.elapsed();
        (silent > config.timeout).then(|| {
            format!(
                "{} is lost: no heartbeat for {} s, so the devices cannot finish their step; see the log of that host",
                self.member,
                silent.as_secs()
            )
        })
    }
}
