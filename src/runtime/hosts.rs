//! Communication between the hosts of a run: sums, votes and equality checks over all hosts, and the role of host 0. On a
//! single host, each of these returns immediately.
//!
//! The process index of the client is this host's number; those of its devices give the number of hosts. On CUDA the
//! processes first create a [`Session`], because the client needs one; a TPU slice needs none. Afterwards the hosts
//! communicate through their devices, by an [`AllGather`]. Tests let threads act as hosts, with another [`HostGather`].

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::collective::AllGather;
use super::devices::Devices;
use crate::rendezvous::agreement::{SharedValues, check_equal, digest_words, values_of_digests};
use crate::rendezvous::session::Session;

/// Words of a message: the sha256 of eight values, or 32 sums.
const MESSAGE_WORDS: usize = 64;

/// A means by which each host gets the words of all hosts.
pub trait HostGather: fmt::Debug + Send + Sync {
    /// Starts to gather the words of all hosts. Every host calls this the same number of times with as many words, at the same points
    /// between the steps.
    ///
    /// # Errors
    /// If it cannot be started.
    fn start(&self, words: &[u32]) -> anyhow::Result<PendingWords>;
}

/// Waits for the words of each host, in host order.
pub type PendingWords = Box<dyn FnOnce() -> anyhow::Result<Vec<Vec<u32>>>>;

/// The hosts of the run.
#[derive(Debug)]
pub struct Hosts {
    host: usize,
    hosts: usize,
    session: Option<Arc<Session>>,
    /// None on a single host.
    gather: Option<Box<dyn HostGather>>,
}

/// The gather through the devices of the run: the words of a host are those of its first replica.
#[derive(Debug)]
struct DeviceGather {
    messages: AllGather,
    votes: AllGather,
    /// The first replica of each host.
    first_replicas: Vec<usize>,
    /// The number of devices of this host.
    local: usize,
}

/// A vote of all hosts whose result has not been read.
pub struct Vote(PendingWords);

impl Hosts {
    /// Returns the hosts that `devices` belong to; `session` is their session, if they needed one.
    ///
    /// # Errors
    /// If the all-gather between them cannot be compiled.
    pub fn new(devices: &Devices, session: Option<Arc<Session>>) -> anyhow::Result<Hosts> {
        let hosts = devices.first_replicas().len();
        let gather: Option<Box<dyn HostGather>> = match hosts {
            1 => None,
            _ => Some(Box::new(DeviceGather::new(devices)?)),
        };
        Ok(Hosts { host: devices.host(), hosts, session, gather })
    }

    /// Returns host `host` of `hosts` hosts that communicate by `gather` instead of their devices.
    pub fn with_gather(host: usize, hosts: usize, gather: Box<dyn HostGather>) -> Hosts {
        Hosts { host, hosts, session: None, gather: Some(gather) }
    }

    /// Returns the number of hosts.
    pub fn len(&self) -> usize {
        self.hosts
    }

    /// Returns false: there is at least this host.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Returns whether this is host 0, which alone writes checkpoints, metrics and the summary.
    pub fn is_leader(&self) -> bool {
        self.host == 0
    }

    /// Describes this host: `host 2 of 8`.
    pub fn describe(&self) -> String {
        format!("host {} of {}", self.host, self.len())
    }

    /// Checks that all hosts have equal `values`; `name` is used once.
    ///
    /// # Errors
    /// If hosts differ, with the hosts and the names of the values.
    pub fn check_equal(&self, name: &str, values: &SharedValues) -> anyhow::Result<()> {
        if let Some(session) = &self.session {
            return session.check_equal(name, values);
        }
        let Some(gather) = &self.gather else { return Ok(()) };
        let all = gather.start(&digest_words(values))?()?;
        let names: Vec<String> = (0..self.len()).map(|host| format!("host {host}")).collect();
        let all: Vec<SharedValues> = all.iter().map(|words| values_of_digests(values, words)).collect();
        check_equal(&names, &all)
    }

    /// Returns the sums of `values` over all hosts, added in host order, so that every host gets the same bits.
    ///
    /// # Errors
    /// If the all-gather fails.
    pub fn all_reduce_sum(&self, values: Vec<f64>) -> anyhow::Result<Vec<f64>> {
        let Some(gather) = &self.gather else { return Ok(values) };
        let words: Vec<u32> = values.iter().flat_map(|value| halves(value.to_bits())).collect();
        Ok(sum_of(&gather.start(&words)?()?))
    }

    /// Starts a vote of all hosts for numbers that runs beside the steps; returns none on a single host.
    ///
    /// # Errors
    /// As [`Hosts::all_reduce_sum`].
    pub fn vote(&self, number: u32) -> anyhow::Result<Option<Vote>> {
        self.gather.as_ref().map(|gather| gather.start(&[number]).map(Vote)).transpose()
    }

    /// Waits for all hosts and returns this host's `result` if the results of all hosts are ok.
    ///
    /// # Errors
    /// The error of this host, or that another host failed.
    pub fn all_ok<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let Some(gather) = &self.gather else { return result };
        let failed = gather.start(&[u32::from(result.is_err())]).and_then(|pending| pending());
        let failed = failed.context("cannot wait for the other hosts");
        match (result, failed) {
            (Err(error), _) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Ok(value), Ok(failed)) => match failed.iter().position(|words| words[0] != 0) {
                None => Ok(value),
                Some(host) => bail!("host {host} failed, so the run was aborted; see the log of host {host}"),
            },
        }
    }

    /// Waits for the other hosts at the end of the run. The results are saved by then, so a failure is a warning, which is
    /// returned.
    pub fn shutdown(&self) -> Option<String> {
        let ended = match &self.session {
            Some(session) => session.shutdown(),
            None => self.all_ok(Ok(())),
        };
        ended
            .err()
            .map(|error| format!("warning: this host is finished, but the shutdown of all hosts failed: {error:#}"))
    }
}

impl DeviceGather {
    fn new(devices: &Devices) -> anyhow::Result<DeviceGather> {
        Ok(DeviceGather {
            messages: AllGather::new(devices, MESSAGE_WORDS)?,
            votes: AllGather::new(devices, 1)?,
            first_replicas: devices.first_replicas().to_vec(),
            local: devices.devices.len(),
        })
    }
}

impl HostGather for DeviceGather {
    fn start(&self, words: &[u32]) -> anyhow::Result<PendingWords> {
        let all_gather = if words.len() <= self.votes.width() { &self.votes } else { &self.messages };
        let mut padded = words.to_vec();
        padded.resize(all_gather.width(), 0);
        let pending = all_gather.start(&vec![padded; self.local])?;
        let (first_replicas, count) = (self.first_replicas.clone(), words.len());
        Ok(Box::new(move || {
            let replicas = pending.wait()?;
            Ok(first_replicas.into_iter().map(|first| replicas[first][..count].to_vec()).collect())
        }))
    }
}

impl Vote {
    /// Waits for the vote; returns the greatest number of any host.
    ///
    /// # Errors
    /// As [`Hosts::all_reduce_sum`].
    pub fn max(self) -> anyhow::Result<u32> {
        Ok((self.0)()?.iter().map(|words| words[0]).max().unwrap_or(0))
    }
}

/// Returns the lower and the upper word.
fn halves(bits: u64) -> [u32; 2] {
    [bits as u32, (bits >> 32) as u32]
}

/// Returns the sums over the rows of the f64 values that are encoded in their words.
fn sum_of(rows: &[Vec<u32>]) -> Vec<f64> {
    let mut sums = vec![0.0; rows.first().map_or(0, |row| row.len() / 2)];
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
    fn words_encode_f64_values_exactly() {
        let rows: Vec<Vec<u32>> = [[0.1f64, -3.5e300], [0.2, f64::MIN_POSITIVE]]
            .map(|values| values.iter().flat_map(|value| halves(value.to_bits())).collect())
            .to_vec();
        assert_eq!(sum_of(&rows[..1]), [0.1, -3.5e300]);
        assert_eq!(sum_of(&rows), [0.1 + 0.2, -3.5e300]);
    }
}
