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
        let BatchRamp { start, increment, sequences } = self;
        let levels = ((full - start) / increment) as u64;
        let (mut batch, mut steps, mut seen) = (start, 0, 0);
        for level in 1..=levels {
            // The level ends with the step that reaches its share of the sequences.
            let end = (sequences as u128 * level as u128).div_ceil(levels as u128) as u64;
            let of_level = end.saturating_sub(seen).div_ceil(batch as u64);
            if t < steps + of_level {
                return RampedStep { batch, first_sequence: seen + (t - steps) * batch as u64 };
            }
            (steps, seen) = (steps + of_level, seen + of_level * batch as u64);
            batch += increment;
        }
        RampedStep { batch: full, first_sequence: seen + (t - steps) * full as u64 }
    }

    /// Returns the number of steps before the batch is `full`.
    pub(super) fn steps(self, full: usize) -> u64 {
        // The first sequence of a step of the full batch gives the steps before it.
        let (mut below, mut above) = (0, self.sequences + 1);
        while below < above {
            let middle = below + (above - below) / 2;
            if self.at(full, middle).batch < full { below = middle + 1 } else { above = middle }
        }
        below
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
