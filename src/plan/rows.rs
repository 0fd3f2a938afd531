//! How many rows the sequences of a step take. Where several short ones share a row, a step computes fewer rows than it has
//! room for; how many is a property of the text.

use std::sync::Arc;

use crate::data::{Dataset, MANIFEST, Split};
use crate::run::Run;
use crate::run::preflight;
use crate::runtime::prefetch::rows_expected;
use crate::schedule::Phase;

/// How many rows a packed sequence takes, and who says so.
#[derive(Clone, Debug, PartialEq)]
pub enum RowsPerSequence {
    /// The prepared data, of each phase of the run.
    Surveyed(Vec<f64>),
    /// The user, of every phase.
    Stated(f64),
    /// Nobody, so that each sequence counts as a row of its own: no step computes more.
    Unknown,
}

impl RowsPerSequence {
    /// Lays the first sequences of each phase of `run` into rows, if its prepared data are on this machine.
    ///
    /// # Errors
    /// If the data are damaged, or the run cannot be trained on them.
    pub fn survey(run: &Run) -> anyhow::Result<RowsPerSequence> {
        // Data in a bucket are on this machine once its copy has the manifest.
        if !run.data.path.local().join(MANIFEST).exists() {
            return Ok(RowsPerSequence::Unknown);
        }
        let prepared = preflight::open_data(run)?;
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

    /// Rows that a sequence of phase `phase`, from 0, takes where rows are packed.
    pub fn of(&self, phase: usize) -> f64 {
        match self {
            RowsPerSequence::Surveyed(phases) => phases[phase],
            RowsPerSequence::Stated(rows) => *rows,
            RowsPerSequence::Unknown => 1.0,
        }
    }
}

/// Sequences that a row holds at most, in whatever slices a device takes its rows.
pub fn most_sequences_per_row(shape: &Phase) -> usize {
    shape.sequences_per_row(usize::MAX)
}

/// Of the `rows` that a device has room for in a step of `shape`: those that it computes in micro-batches of `micro_batch`,
/// if they are packed and a sequence takes `rows_per_sequence`.
pub fn rows_computed(shape: &Phase, rows_per_sequence: f64, rows: usize, micro_batch: usize) -> usize {
    match shape.sequences_per_row(rows.div_ceil(micro_batch)) {
        1 => rows,
        _ => rows_expected(rows, rows_per_sequence, micro_batch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_saved_where_they_are_packed() {
        let shape = |length: usize| -> Phase {
            let text = format!(
                "sequence_length = {length}\nmax_predictions_per_seq = 8\nglobal_batch = 512\nmicro_batch_size = 1\nsteps = 1\n\
                 learning_rate = 1.0"
            );
            toml::from_str(&text).unwrap()
        };
        let (short, long) = (shape(128), shape(512));
        assert_eq!([&short, &long].map(most_sequences_per_row), [1, 8]);
        // 64 · 0.52 = 33.28: 34 rows, in five micro-batches of eight.
        assert_eq!([&short, &long].map(|shape| rows_computed(shape, 0.52, 64, 8)), [64, 40]);
        assert_eq!(rows_computed(&long, 0.52, 64, 32), 64, "two micro-batches are too few to pack");
        assert_eq!(rows_computed(&long, RowsPerSequence::Unknown.of(0), 64, 8), 64);
        assert_eq!([RowsPerSequence::Stated(0.6).of(1), RowsPerSequence::Surveyed(vec![1.0, 0.5]).of(1)], [0.6, 0.5]);
    }
}
