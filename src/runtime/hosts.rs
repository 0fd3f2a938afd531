//! The hosts of a run, seen from one of them: what they do together and what only one does. A run on one host is the case
//! in which every question is answered at once.
//!
//! Which host this is and how many there are, the client says: its process index, and those of its devices. On CUDA the
//! processes must have met before there is a client, in a [`Session`]; a TPU slice knows itself. Once there are devices,
//! they carry the hosts' words too ([`Exchange`]).

use std::sync::Arc;

use anyhow::{Context, bail};

use super::collective::{Exchange, Exchanging};
use super::devices::Devices;
use crate::rendezvous::agreement::{Facts, check_agreement, digests, facts_of_digests};
use crate::rendezvous::session::Session;

/// Words of one statement: eight facts by their sha256, or 32 sums.
const STATEMENT: usize = 64;

/// The run's hosts.
#[derive(Debug)]
pub struct Hosts {
    host: usize,
    /// The first replica of each host.
    first_replicas: Vec<usize>,
    /// Devices of this host.
    local: usize,
    session: Option<Arc<Session>>,
    /// None on a single host.
    exchanges: Option<Exchanges>,
}

#[derive(Debug)]
struct Exchanges {
    statements: Exchange,
    votes: Exchange,
}

/// A question that all hosts were asked, on its way.
pub struct Vote(Exchanging);

impl Hosts {
    /// The hosts that `devices` belong to; `session` is where they have met, if they had to.
    ///
    /// # Errors
    /// If the exchange between them cannot be compiled.
    pub fn new(devices: &Devices, session: Option<Arc<Session>>) -> anyhow::Result<Hosts> {
        let first_replicas = devices.first_replicas().to_vec();
        let exchanges = match first_replicas.len() {
            1 => None,
            _ => Some(Exchanges { statements: Exchange::new(devices, STATEMENT)?, votes: Exchange::new(devices, 1)? }),
        };
        Ok(Hosts { host: devices.host(), first_replicas, local: devices.devices.len(), session, exchanges })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.first_replicas.len()
    }

    /// Never: this one is there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether this host does what only one may: write checkpoints, metrics and the summary.
    pub fn leads(&self) -> bool {
        self.host == 0
    }

    /// `host 2 of 8`
    pub fn describe(&self) -> String {
        format!("host {} of {}", self.host, self.len())
    }

    /// Checks that all hosts state the same.
    ///
    /// # Errors
    /// Which hosts differ, and in what.
    pub fn agree(&self, name: &str, facts: &Facts) -> anyhow::Result<()> {
        if let Some(session) = &self.session {
            return session.agree(name, facts);
        }
        let Some(exchanges) = &self.exchanges else { return Ok(()) };
        let stated = self.gather(&exchanges.statements, &digests(facts))?;
        let names: Vec<String> = (0..self.len()).map(|host| format!("host {host}")).collect();
        let stated: Vec<Facts> = stated.iter().map(|words| facts_of_digests(facts, words)).collect();
        check_agreement(&names, &stated)
    }

    /// Adds up what every host has, in the order of the hosts: the same sums on all.
    ///
    /// # Errors
    /// If the devices cannot exchange any more.
    pub fn sum<const N: usize>(&self, values: [f64; N]) -> anyhow::Result<[f64; N]> {
        let Some(exchanges) = &self.exchanges else { return Ok(values) };
        let words: Vec<u32> = values.iter().flat_map(|value| halves(value.to_bits())).collect();
        Ok(sum_of(&self.gather(&exchanges.statements, &words)?))
    }

    /// Asks every host, among the steps; none on a single host, where nobody else could know better.
    ///
    /// # Errors
    /// As [`Hosts::sum`].
    pub fn ask(&self, yes: bool) -> anyhow::Result<Option<Vote>> {
        let Some(exchanges) = &self.exchanges else { return Ok(None) };
        Ok(Some(Vote(exchanges.votes.start(&vec![vec![u32::from(yes)]; self.local])?)))
    }

    /// What one host did for all, on that host; on every other, whether all went well there.
    ///
    /// # Errors
    /// The error of this host, or that another one failed.
    pub fn together<T>(&self, done: anyhow::Result<T>) -> anyhow::Result<T> {
        let Some(exchanges) = &self.exchanges else { return done };
        let failed =
            self.gather(&exchanges.votes, &[u32::from(done.is_err())]).context("while hosts wait for each other");
        match (done, failed) {
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(value), Ok(failed)) => match failed.iter().position(|words| words[0] != 0) {
                None => Ok(value),
                Some(host) => bail!("host {host} failed, and with it the run; its own output says why"),
            },
        }
    }

    /// Waits for the others at the end, when what was trained is saved: if that fails, it is worth a sentence, and takes
    /// nothing from what was done.
    pub fn part(&self) -> Option<String> {
        let ended = match &self.session {
            Some(session) => session.end(),
            None => self.together(Ok(())),
        };
        ended.err().map(|error| format!("this host is done, but not all parted in order: {error:#}"))
    }

    /// The words of every host: those of its first replica, padded with zeros.
    fn gather(&self, exchange: &Exchange, words: &[u32]) -> anyhow::Result<Vec<Vec<u32>>> {
        let mut padded = words.to_vec();
        padded.resize(exchange.width(), 0);
        let replicas = exchange.start(&vec![padded; self.local])?.wait()?;
        Ok(self.first_replicas.iter().map(|&first| replicas[first][..words.len()].to_vec()).collect())
    }
}

impl Vote {
    /// Whether any host said yes.
    ///
    /// # Errors
    /// As [`Hosts::sum`].
    pub fn any(self) -> anyhow::Result<bool> {
        Ok(self.0.wait()?.iter().any(|words| words[0] != 0))
    }
}

/// The lower and the upper word.
fn halves(bits: u64) -> [u32; 2] {
    [bits as u32, (bits >> 32) as u32]
}

/// Σ over the rows of the f64 that their words are.
fn sum_of<const N: usize>(rows: &[Vec<u32>]) -> [f64; N] {
    let mut sums = [0.0; N];
    for row in rows {
        for (sum, word) in sums.iter_mut().zip(row.chunks_exact(2)) {
            *sum += f64::from_bits(u64::from(word[0]) | u64::from(word[1]) << 32);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_pass_through_words_unchanged() {
        let rows: Vec<Vec<u32>> = [[0.1f64, -3.5e300], [0.2, f64::MIN_POSITIVE]]
            .map(|values| values.iter().flat_map(|value| halves(value.to_bits())).collect())
            .to_vec();
        assert_eq!(sum_of::<2>(&rows[..1]), [0.1, -3.5e300]);
        assert_eq!(sum_of::<2>(&rows), [0.1 + 0.2, -3.5e300]);
    }
}
