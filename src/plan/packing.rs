//! Predicts the number of rows that packed sequences take. Packing several short sequences into one row reduces the rows that
//! a step computes; by how much depends on the text.

use std::sync::Arc;

use crate::data::{Dataset, MANIFEST, Split};
use crate::run::Run;
use crate::run::preflight;
use crate::runtime::prefetch::rows_expected;
use crate::schedule::Phase;

/// The mean number of rows per packed sequence, with its source.
#[derive(Clone, Debug, PartialEq)]
pub enum RowsPerSequence {
    /// Measured in the prepared data, for each phase of the run.
    Surveyed(Vec<f64>),
    /// Given by the user, for all phases.
    Stated(f64),
    /// Unknown. Every sequence counts as one row, which is an upper bound.
    Unknown,
}

impl RowsPerSequence {
    /// Packs the first sequences of each phase of `run`, if its prepared data is on this machine.
    ///
    /// # Errors
    /// If the data is damaged, or does not suit the run.
    pub fn survey(run: &Run) -> anyhow::Result<RowsPerSequence> {
        // A local copy of data in a bucket is complete once it has the manifest.
        if !run.data.path.local().join(MANIFEST).exists() {
            return Ok(RowsPerSequence::Unknown);
        }
        let (prepared, _) = preflight::open_data(run)?;
        let of_phase = |(phase, shape): (usize, &Phase)| -> anyhow::Result<f64> {
            let most = most_sequences_per_row(shape);
            if most == 1 {
                return Ok(1.0);
            }
            let examples = Dataset::new(Arc::clone(&prepared), Split::Train, run.training_examples(phase))?;
            Ok(examples.rows_per_sequence(shape.global_batch, most))
        };
        run.schedule.phases().iter().enumerate().map(of_phase).collect::<anyhow::Result<_>>().map(Self::Surveyed)
    }

    /// Returns the rows per packed sequence in the phase with index `phase`, from 0.
    pub fn of(&self, phase: usize) -> f64 {
        match self {
            RowsPerSequence::Surveyed(phases) => phases[phase],
            RowsPerSequence::Stated(rows) => *rows,
            RowsPerSequence::Unknown => 1.0,
        }
    }
}

/// Returns the maximum number of sequences in a row, for any micro-batch size.
pub fn most_sequences_per_row(shape: &Phase) -> usize {
    shape.sequences_per_row(usize::MAX)
}

/// Returns the number of a device's `rows` that a step of `shape` computes in micro-batches of `micro_batch_size`, if a packed
/// sequence takes `rows_per_sequence`.
pub fn rows_computed(shape: &Phase, rows_per_sequence: f64, rows: usize, micro_batch_size: usize) -> usize {
    match shape.sequences_per_row(rows.div_ceil(micro_batch_size)) {
        1 => rows,
        _ => rows_expected(rows, rows_per_sequence, micro_batch_size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_reduces_the_computed_rows() {
        let shape = |length: usize| -> Phase {
            let text = format!(
                "sequence_length = {length}\nmax_predictions_per_seq = 8\nglobal_batch = 512\nmicro_batch_size = 1\nsteps = 1\n\
                 learning_rate = 1.0"
            );
            toml::from_str(&text).unwrap()
        };
        let (short, long) = (shape(128), shape(512));
        assert_eq!([&short, &long].map(most_sequences_per_row), [1, 8]);
        // 64 · 0.52 = 33.28, rounded up to 34 rows, in five micro-batches of eight.
        assert_eq!([&short, &long].map(|shape| rows_computed(shape, 0.52, 64, 8)), [64, 40]);
        assert_eq!(rows_computed(&long, 0.52, 64, 32), 64, "packing is off with only two micro-batches");
        assert_eq!(rows_computed(&long, RowsPerSequence::Unknown.of(0), 64, 8), 64);
        assert_eq!([RowsPerSequence::Stated(0.6).of(1), RowsPerSequence::Surveyed(vec![1.0, 0.5]).of(1)], [0.6, 0.5]);
    }
}
