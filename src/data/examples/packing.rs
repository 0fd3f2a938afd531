//! Packing: several examples share a row, so that little of a batch is padding.
//!
//! The examples of a step are packed into rows by best-fit decreasing: the longest first, each into the fullest row
//! that has room for it and holds fewer than K examples. Only lengths matter, and these are known without reading
//! tokens; so every host packs the whole batch and builds the rows of its own replicas. All examples of a step have
//! equal weight in its one update, so packing changes neither their order nor the training recipe.
//!
//! This is a variant of longest-pack-first histogram packing from "Efficient Sequence Packing without
//! Cross-contamination" (arXiv 2107.02027), applied to single examples instead of lengths.

use super::config::ExampleConfig;

/// The rows into which examples are packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Positions per row.
    pub sequence_length: usize,
    /// The examples of all rows, row after row.
    placed: Vec<PackedExample>,
    /// End of each row in `placed`.
    ends: Vec<usize>,
}

/// The place of an example in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedExample {
    /// Index of the example among the packed ones.
    pub example: usize,
    /// The position of its `[CLS]`.
    pub start: usize,
    /// Its number of tokens.
    pub length: usize,
}

impl Packing {
    /// Packs examples of these `lengths` into rows of `sequence_length` positions, with at most `sequences_per_row`
    /// examples each. The number of allocations does not depend on the number of examples.
    ///
    /// # Panics
    /// If an example is longer than a row, or `sequences_per_row` is 0.
    pub fn new(lengths: &[usize], sequence_length: usize, sequences_per_row: usize) -> Self {
        assert!(sequences_per_row > 0, "a row holds at least one sequence");
        let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
        longest_first.sort_unstable_by_key(|&example| (std::cmp::Reverse(lengths[example]), example));
        let mut open = OpenRows::new(sequence_length, lengths.len());
        let mut examples_of_row: Vec<usize> = Vec::with_capacity(lengths.len());
        let mut by_row: Vec<(usize, PackedExample)> = Vec::with_capacity(lengths.len());
        for example in longest_first {
            let length = lengths[example];
            let (row, room) = open.take(length).unwrap_or_else(|| {
                assert!(length <= sequence_length, "{length} tokens do not fit into {sequence_length} positions");
                examples_of_row.push(0);
                (examples_of_row.len() - 1, sequence_length)
            });
            by_row.push((row, PackedExample { example, start: sequence_length - room, length }));
            examples_of_row[row] += 1;
            if examples_of_row[row] < sequences_per_row && room > length {
                open.put(row, room - length);
            }
        }
        by_row.sort_unstable_by_key(|&(row, placed)| (row, placed.start));
        let mut end = 0;
        let ends = examples_of_row.into_iter().map(|examples| {
            end += examples;
            end
        });
        let ends = ends.collect();
        Packing { sequence_length, placed: by_row.into_iter().map(|(_, placed)| placed).collect(), ends }
    }

    /// Iterates over the rows: the examples of each, from left to right.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[PackedExample]> {
        (0..self.ends.len()).map(|row| self.row(row))
    }

    /// Returns the examples of row `row`, from left to right; none after the last row.
    pub fn row(&self, row: usize) -> &[PackedExample] {
        let end = |row: usize| self.ends.get(row).copied().unwrap_or(self.placed.len());
        &self.placed[row.checked_sub(1).map_or(0, end)..end(row)]
    }

    /// Returns the average number of rows per example: from 1 / K, if every row holds K examples, to 1.
    pub fn rows_per_sequence(&self) -> f64 {
        self.ends.len() as f64 / self.placed.len() as f64
    }

    /// Returns the share of the rows' positions that hold a token.
    pub fn fill(&self) -> f64 {
        let tokens: usize = self.placed.iter().map(|placed| placed.length).sum();
        tokens as f64 / (self.ends.len() * self.sequence_length) as f64
    }
}

/// The rows that can take another example, by their free positions.
struct OpenRows {
    /// For each number of free positions, the latest row.
    last: Vec<Option<usize>>,
    /// For each row, the previous one with the same number of free positions.
    before: Vec<Option<usize>>,
}

impl OpenRows {
    /// Creates an empty set of up to `most` rows.
    fn new(sequence_length: usize, most: usize) -> Self {
        OpenRows { last: vec![None; sequence_length + 1], before: vec![None; most] }
    }

    /// Removes and returns the fullest row with room for `length`, and its free positions. The search costs no more
    /// than writing the positions of a row.
    fn take(&mut self, length: usize) -> Option<(usize, usize)> {
        let (room, row) = (length..self.last.len()).find_map(|room| Some((room, self.last[room]?)))?;
        self.last[room] = self.before[row];
        Some((row, room))
    }

    fn put(&mut self, row: usize, room: usize) {
        self.before[row] = self.last[room].replace(row);
    }
}

/// Returns the number of masked positions in a row of up to `sequences_per_row` examples: the share of its positions,
/// and one more for each example, because each count is rounded and at least one.
pub fn max_predictions_per_row(config: &ExampleConfig, sequences_per_row: usize) -> usize {
    if sequences_per_row == 1 {
        return config.max_predictions_per_seq;
    }
    let by_share = (config.largest_masked_share() * config.sequence_length as f64) as usize + sequences_per_row;
    by_share.min(sequences_per_row * config.max_predictions_per_seq).min(config.sequence_length)
}
