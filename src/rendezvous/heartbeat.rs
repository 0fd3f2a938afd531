//! Whether the hosts of a run are still there while their devices work together. Devices that wait for a host which died wait
//! for ever, and silently: collectives have no end of their own. So every host with a [`Session`] says in a fixed rhythm that it
//! is there. Host 0 listens to all and the others to host 0, which also passes on whom it lost: of n hosts, each look at the
//! store costs O(n) and not O(n²).
//!
//! ```text
//! every host i   alive/i = a number that grows, and in the end "done"
//! host 0         lost    = the sentence about a host that fell silent, or gave up (left/i)
//! ```
//! A TPU slice has no session; its runtime keeps this watch itself.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::session::{Member, Session, read};
use crate::key_value::Folder;

/// How often hosts say that they are there, and how long one may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    pub beat: Duration,
    pub silence: Duration,
}

impl Default for Rhythm {
    /// Shared file systems may show a new value a minute late.
    fn default() -> Self {
        Rhythm { beat: Duration::from_secs(10), silence: Duration::from_secs(120) }
    }
}

/// The watch of one host, as long as this value lives.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// The value of a host that has nothing more to do with its devices.
const DONE: &str = "done";

impl Watch {
    /// Begins to watch. `lost` is called at most once, on a thread of the watch, with a sentence on who is lost.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(
        session: Arc<Session>,
        rhythm: Rhythm,
        lost: impl FnOnce(String) + Send + 'static,
    ) -> anyhow::Result<Watch> {
        let (stop, stopped) = channel();
        let watch = move || {
            let mut ears: Vec<Ear> = session.members().iter().map(Ear::new).collect();
            for beat in 0_u64.. {
                // A store that cannot be written for a while is no reason to end: the others say so if it takes too long.
                let _ = session.put(&alive(session.host()), &beat.to_string());
                if let Some(why) = listen(&session, &mut ears, rhythm) {
                    return lost(why);
                }
                if stopped.recv_timeout(rhythm.beat) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            let _ = session.put(&alive(session.host()), &DONE);
        };
        let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(watch);
        let thread = thread.context("the system gives no thread to watch the other hosts from")?;
        Ok(Watch { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    /// Says that this host is done.
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the host that leads the session of `folder` says while it is there: something new at each beat.
///
/// # Errors
/// What the store says.
pub(super) fn sign_of_life(folder: &Folder) -> anyhow::Result<Option<String>> {
    Ok(read(folder, &alive(0))?.filter(|said| said != DONE))
}

/// What was heard of one host.
struct Ear {
    member: Member,
    last: Option<String>,
    /// When `last` was new.
    since: Instant,
    /// That it has given up, if it had at the last look.
    left: Option<String>,
}

fn alive(host: usize) -> String {
    format!("alive/{host}")
}

/// The sentence about a lost host, if this host knows of one.
fn listen(session: &Session, ears: &mut [Ear], rhythm: Rhythm) -> Option<String> {
    if session.host() != 0 {
        let told = session.read::<String>("lost").ok().flatten();
        return told.or_else(|| ears[0].listen(session, rhythm));
    }
    let lost = ears[1..].iter_mut().find_map(|ear| ear.listen(session, rhythm))?;
    let _ = session.put("lost", &lost);
    Some(lost)
}

impl Ear {
    fn new(member: &Member) -> Ear {
        Ear { member: member.clone(), last: None, since: Instant::now(), left: None }
    }

    /// The sentence about this host, if it is lost.
    fn listen(&mut self, session: &Session, rhythm: Rhythm) -> Option<String> {
        let (Ok(now), Ok(left)) = (session.read::<String>(&alive(self.member.host)), session.left(&self.member)) else {
            // A store that cannot be read says nothing about hosts.
            self.since = Instant::now();
            return None;
        };
        // A host that gives up may have told this one through the devices too, which then ends by itself: it gets a beat for that.
        if let Some(gave_up) = self.left.take() {
            return Some(gave_up);
        }
        self.left = left;
        if now != self.last || now.as_deref() == Some(DONE) {
            (self.last, self.since) = (now, Instant::now());
        }
        let silent = self.since.elapsed();
        (silent > rhythm.silence).then(|| {
            format!(
                "{} has not been heard of for {} s, and the devices wait for it in vain; look at its output",
                self.member,
                silent.as_secs()
            )
        })
    }
}
