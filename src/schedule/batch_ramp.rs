//! The growth of the global batch at the start of a phase.

use serde::{Deserialize, Serialize};

/// A ramp of the global batch, as `--rampup-batch-size` of Megatron-LM: it begins with `start`, and grows by `increment` after equal
/// numbers of sequences, until `sequences` have been seen and it is the `global_batch` of the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRamp {
    /// The first global batch.
    pub start: usize,
    /// Sequences by which it grows at a time.
    pub increment: usize,
    /// Sequences of the whole ramp.
    pub sequences: u64,
}

/// The batch of a step, and the sequences before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RampedStep {
    /// Sequences of the step.
    pub batch: usize,
    /// Sequences of all earlier steps of the phase.
    pub first_sequence: u64,
}

/// The steps of one batch in a ramp.
#[derive(Clone, Copy, Debug)]
struct Level {
    batch: usize,
    first_step: u64,
    first_sequence: u64,
}

impl BatchRamp {
    /// Returns the first key whose value is impossible before the batch `full` in micro-batches of `micro_batch` rows, with what it
    /// requires and what was found.
    pub(super) fn check(self, full: usize, micro_batch: usize) -> Result<(), (&'static str, String, String)> {
        let BatchRamp { start, increment, sequences } = self;
        let refuse = |key, requires: String, got: String| Err((key, requires, got));
        if start == 0 || start >= full || !start.is_multiple_of(micro_batch) {
            let requires = format!("a multiple of micro_batch_size ({micro_batch}) below global_batch ({full})");
            return refuse("batch_ramp.start", requires, start.to_string());
        }
        if increment == 0 || !(full - start).is_multiple_of(increment) || !increment.is_multiple_of(micro_batch) {
            let requires = format!(
                "a multiple of micro_batch_size ({micro_batch}) that divides global_batch − start ({})",
                full - start
            );
            return refuse("batch_ramp.increment", requires, increment.to_string());
        }
        if sequences == 0 {
            return refuse("batch_ramp.sequences", "at least 1".to_owned(), "0".to_owned());
        }
        Ok(())
    }

    /// Returns step `t` of a phase, from 0, whose batch grows to `full`.
    pub(super) fn at(self, full: usize, t: u64) -> RampedStep {
        let begun = self.levels(full).take_while(|level| level.first_step <= t).last();
        let Level { batch, first_step, first_sequence } = begun.expect("the first level begins with step 0");
        RampedStep { batch, first_sequence: first_sequence + (t - first_step) * batch as u64 }
    }

    /// Returns the number of steps before the batch is `full`.
    pub(super) fn steps(self, full: usize) -> u64 {
        self.levels(full).last().map_or(0, |level| level.first_step)
    }

    /// Returns the batches from `start` to `full`, in order. One whose share of the sequences has been seen before has no steps.
    fn levels(self, full: usize) -> impl Iterator<Item = Level> {
        let BatchRamp { start, increment, sequences } = self;
        let number = ((full - start) / increment) as u128;
        let mut next = Level { batch: start, first_step: 0, first_sequence: 0 };
        (1..=number + 1).map(move |count| {
            let level = next;
            // The level ends with the step that reaches its share of the sequences.
            let end = (u128::from(sequences) * count).div_ceil(number) as u64;
            let steps = end.saturating_sub(level.first_sequence).div_ceil(level.batch as u64);
            next = Level {
                batch: level.batch + increment,
                first_step: level.first_step + steps,
                first_sequence: level.first_sequence + steps * level.batch as u64,
            };
            level
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule of Megatron-LM, step by step: `start + increment · ⌊seen / (sequences / levels)⌋`.
    fn step_by_step(ramp: BatchRamp, full: usize, steps: u64) -> Vec<RampedStep> {
        let levels = (full - ramp.start) / ramp.increment;
        let mut seen = 0;
        let step = |_| {
            let passed = (seen as f64 / (ramp.sequences as f64 / levels as f64)).floor() as usize;
            let batch = (ramp.start + ramp.increment * passed).min(full);
            seen += batch as u64;
            RampedStep { batch, first_sequence: seen - batch as u64 }
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn the_batch_grows_as_in_megatron() {
        for (start, increment, sequences, full) in [(8, 8, 256, 40), (32, 32, 200, 64), (16, 16, 40, 256), (1, 1, 1, 5)]
        {
            let ramp = BatchRamp { start, increment, sequences };
            let expected = step_by_step(ramp, full, 80);
            let found: Vec<RampedStep> = (0..80).map(|t| ramp.at(full, t)).collect();
            assert_eq!(found, expected, "{ramp:?}");
            let first_full = expected.iter().position(|step| step.batch == full).unwrap();
            assert_eq!(ramp.steps(full), first_full as u64, "{ramp:?}");
        }
    }
}
