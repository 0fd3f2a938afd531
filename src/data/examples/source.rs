//! The batches of a training phase or of an evaluation: a dataset, in plain or packed rows.

use std::sync::Arc;

use super::dataset::Dataset;
use crate::batch::{BatchSource, HostBatch, ReplicaRange};

/// The batches of a dataset, in plain or packed rows.
#[derive(Clone, Debug)]
pub struct Batches {
    /// The dataset.
    pub dataset: Arc<Dataset>,
    /// Maximum number of sequences per row: 1 for plain rows.
    pub sequences_per_row: usize,
}

impl BatchSource for Batches {
    fn batch(&self, first_example: u64, global_batch: usize, replicas: ReplicaRange) -> anyhow::Result<HostBatch> {
        if self.sequences_per_row == 1 {
            let rows = replicas.rows(global_batch);
            let batch = self.dataset.batch(first_example + rows.start as u64, rows.len())?;
            return Ok(batch.into_host(replicas.count));
        }
        let range = replicas.first..replicas.first + replicas.count;
        let batch =
            self.dataset.packed_batch(first_example, global_batch, self.sequences_per_row, range, replicas.of)?;
        Ok(batch.into_host(replicas.count))
    }

    fn rows(&self, first_example: u64, rows: usize) -> anyhow::Result<HostBatch> {
        Ok(self.dataset.batch(first_example, rows)?.into_host(1))
    }

    fn epoch_len(&self) -> u64 {
        self.dataset.epoch_len(0)
    }

    fn epochs_covered(&self, examples: u64) -> f64 {
        self.dataset.epochs_covered(examples)
    }

    fn rows_per_example(&self, global_batch: usize) -> f64 {
        self.dataset.rows_per_sequence(global_batch, self.sequences_per_row)
    }
}
