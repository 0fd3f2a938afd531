//! Packing: several examples in one row, so that little of a batch is padding.
//!
//! The examples of a step are laid into as few rows as best-fit-decreasing finds: the longest first, each into the fullest
//! row that has room for it and holds fewer than K. Only lengths decide, and those are known without reading text, so every
//! host lays out the whole batch and fills the rows of its own replicas. As all examples of a step count alike in its one
//! update, neither order nor recipe knows of it.
//!
//! Source: the histogram packing of "Efficient Sequence Packing without Cross-contamination" (arXiv 2107.02027), whose
//! longest-pack-first variant this is, example by example instead of length by length.

use super::config::ExampleConfig;

/// Into which rows examples are laid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Positions of a row.
    pub sequence_length: usize,
    /// What lies in the rows, one row after the other.
    placed: Vec<PackedExample>,
    /// Where each row ends among `placed`.
    ends: Vec<usize>,
}

/// An example's place in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedExample {
    /// Index of the example among those that were packed.
    pub example: usize,
    /// The position of its `[CLS]`.
    pub start: usize,
    /// Its tokens.
    pub length: usize,
}

impl Packing {
    /// Lays examples of these `lengths` into rows of `sequence_length` positions, each with at most `sequences_per_row`
    /// examples. Allocates a few lists, however many examples there are.
    ///
    /// # Panics
    /// If an example is longer than a row, or a row may hold none.
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

    /// The rows: what lies in each, from the left.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[PackedExample]> {
        (0..self.ends.len()).map(|row| self.row(row))
    }

    /// What lies in row `row`, from the left: nothing behind the last row.
    pub fn row(&self, row: usize) -> &[PackedExample] {
        let end = |row: usize| self.ends.get(row).copied().unwrap_or(self.placed.len());
        &self.placed[row.checked_sub(1).map_or(0, end)..end(row)]
    }

    /// Rows that an example takes, on average: from 1 / K, if every row is shared by K, to 1.
    pub fn rows_per_sequence(&self) -> f64 {
        self.ends.len() as f64 / self.placed.len() as f64
    }

    /// Share of the rows' positions that hold a token.
    pub fn fill(&self) -> f64 {
        let tokens: usize = self.placed.iter().map(|placed| placed.length).sum();
        tokens as f64 / (self.ends.len() * self.sequence_length) as f64
    }
}

/// The rows that take another example, by the room that is left in them.
struct OpenRows {
    /// By room: the row that came last to have it.
    last: Vec<Option<usize>>,
    /// By row: the one that came before it to have the same room.
    before: Vec<Option<usize>>,
}

impl OpenRows {
    /// None, of up to `most` rows.
    fn new(sequence_length: usize, most: usize) -> Self {
        OpenRows { last: vec![None; sequence_length + 1], before: vec![None; most] }
    }

    /// Takes the fullest row that has room for `length`, and says how much that is. To look through all rooms costs no more
    /// than to write the positions of a row.
    fn take(&mut self, length: usize) -> Option<(usize, usize)> {
        let (room, row) = (length..self.last.len()).find_map(|room| Some((room, self.last[room]?)))?;
        self.last[room] = self.before[row];
        Some((row, room))
    }

    fn put(&mut self, row: usize, room: usize) {
        self.before[row] = self.last[room].replace(row);
    }
}

/// Slots for predictions that a row of up to `sequences_per_row` examples needs: the share of its positions, and one more
/// for each example, because each number is rounded and is at least one.
pub fn max_predictions_per_row(config: &ExampleConfig, sequences_per_row: usize) -> usize {
    if sequences_per_row == 1 {
        return config.max_predictions_per_seq;
    }
    let by_share = (config.masked_lm_prob * config.sequence_length as f64) as usize + sequences_per_row;
    by_share.min(sequences_per_row * config.max_predictions_per_seq).min(config.sequence_length)
}
