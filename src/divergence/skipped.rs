//! The training examples that a run leaves out, because training diverged on them and the run went back.

use serde::{Deserialize, Serialize};

/// The returns of a run from a divergence to an earlier checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RollBacks {
    /// Their number.
    pub count: u64,
    /// The examples that they left out.
    pub skipped: SkippedExamples,
}

/// Ranges of examples, in ascending order and without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SkippedExamples(Vec<SkippedRange>);

/// Consecutive examples of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedRange {
    /// The phase, from 0.
    pub phase: usize,
    /// The first example.
    pub from: u64,
    /// The first example after the range.
    pub to: u64,
}

impl SkippedExamples {
    /// Adds a range, which may overlap others.
    pub fn add(&mut self, range: SkippedRange) {
        self.0.push(range);
        self.0.sort_by_key(|range| (range.phase, range.from));
        let mut merged: Vec<SkippedRange> = Vec::new();
        for range in self.0.drain(..) {
            match merged.last_mut() {
                Some(last) if last.phase == range.phase && range.from <= last.to => last.to = last.to.max(range.to),
                _ => merged.push(range),
            }
        }
        self.0 = merged;
    }

    /// Returns the number, among all examples of `phase`, of the one with the number `example` among those that remain.
    pub fn position(&self, phase: usize, example: u64) -> u64 {
        let of_phase = self.0.iter().filter(|range| range.phase == phase);
        of_phase.fold(example, |at, range| if at >= range.from { at + (range.to - range.from) } else { at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_examples_are_numbered_around_the_skipped_ones() {
        let mut skipped = SkippedExamples::default();
        let remaining = |skipped: &SkippedExamples, phase: usize| -> Vec<u64> {
            (0..8).map(|example| skipped.position(phase, example)).collect()
        };
        skipped.add(SkippedRange { phase: 0, from: 8, to: 10 });
        skipped.add(SkippedRange { phase: 0, from: 2, to: 4 });
        assert_eq!(remaining(&skipped, 0), [0, 1, 4, 5, 6, 7, 10, 11]);
        // The run goes back to an example before the ranges, from one after them.
        skipped.add(SkippedRange { phase: 0, from: 1, to: 11 });
        assert_eq!(remaining(&skipped, 0), [0, 11, 12, 13, 14, 15, 16, 17]);
        assert_eq!(skipped.0, [SkippedRange { phase: 0, from: 1, to: 11 }]);
        assert_eq!(remaining(&skipped, 1), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
