//! The trait [`BatchSource`], which supplies the batches of a run, and the rows of one host in the global batch.

use std::fmt::Debug;
use std::ops::Range;

use super::HostBatch;

/// The replicas of one host among all replicas of a run. They take consecutive rows of the global batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRange {
    /// The number of the host's first replica.
    pub first: usize,
    /// Replicas of this host.
    pub count: usize,
    /// Replicas of the run.
    pub of: usize,
}

impl ReplicaRange {
    /// A single replica, which takes the whole batch.
    pub const SINGLE: ReplicaRange = ReplicaRange { first: 0, count: 1, of: 1 };

    /// Returns the rows of this host in a batch of `global_batch` rows, of which every replica takes an equal number.
    pub fn rows(self, global_batch: usize) -> Range<usize> {
        let rows = global_batch / self.of;
        self.first * rows..(self.first + self.count) * rows
    }
}

/// An ordered, endless sequence of examples, read in batches. A batch is a pure function of its arguments, so that every
/// host builds its own rows and a resumed run reads what it would have read.
pub trait BatchSource: Debug + Send + Sync {
    /// Builds the rows of `replicas` in the batch of the `global_batch` examples from number `first_example` on.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn batch(&self, first_example: u64, global_batch: usize, replicas: ReplicaRange) -> anyhow::Result<HostBatch> {
        let rows = replicas.rows(global_batch);
        self.rows(first_example + rows.start as u64, rows.len())
    }

    /// Builds `rows` rows, each with one example, from number `first_example` on.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn rows(&self, first_example: u64, rows: usize) -> anyhow::Result<HostBatch>;

    /// Returns how many examples the first epoch has.
    fn epoch_len(&self) -> u64;

    /// Returns how many epochs the first `examples` examples are, such as 3.25.
    fn epochs_covered(&self, examples: u64) -> f64;

    /// Returns the rows that one example takes, by the first `global_batch` of them: 1 unless examples share rows.
    fn rows_per_example(&self, _global_batch: usize) -> f64 {
        1.0
    }
}
