//! Packing: several examples in one row, so that little of a batch is padding.
//!
//! The examples of a step are laid into as few rows as best-fit-decreasing finds: the longest first, each into the fullest
//! row that has room for it and holds fewer than K. Only lengths decide, and those are known without reading text, so every
//! host lays out the whole batch and fills the rows of its own replicas. As all examples of a step count alike in its one
//! update, neither order nor recipe knows of it.
//!
//! Source: the histogram packing of "Efficient Sequence Packing without Cross-contamination" (arXiv 2107.02027), whose
//! longest-pack-first variant this is, example by example instead of length by length.

use std::collections::BTreeMap;

use super::example_config::ExampleConfig;

/// Into which rows examples are laid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Positions of a row.
    pub sequence_length: usize,
    rows: Vec<Vec<Placed>>,
}

/// An example's place in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Index of the example among those that were packed.
    pub example: usize,
    /// The position of its `[CLS]`.
    pub start: usize,
    /// Its tokens.
    pub length: usize,
}

impl Packing {
    /// Lays examples of these `lengths` into rows of `sequence_length` positions, each with at most `sequences_per_row`
    /// examples.
    ///
    /// # Panics
    /// If an example is longer than a row, or a row may hold none.
    pub fn new(lengths: &[usize], sequence_length: usize, sequences_per_row: usize) -> Self {
        assert!(sequences_per_row > 0, "a row holds at least one sequence");
        let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
        longest_first.sort_by_key(|&example| std::cmp::Reverse(lengths[example]));
        let mut rows: Vec<Vec<usize>> = Vec::new();
        // By room that is left: the rows that take another example.
        let mut open: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for example in longest_first {
            let length = lengths[example];
            let fullest = open.range(length..).next().map(|(&room, _)| room);
            let (row, room) = match fullest {
                Some(room) => (take(&mut open, room), room),
                None => {
                    assert!(length <= sequence_length, "{length} tokens do not fit into {sequence_length} positions");
                    rows.push(Vec::new());
                    (rows.len() - 1, sequence_length)
                }
            };
            rows[row].push(example);
            if rows[row].len() < sequences_per_row && room > length {
                open.entry(room - length).or_default().push(row);
            }
        }
        let placed = |examples: Vec<usize>| {
            let mut start = 0;
            let place = |example| {
                let placed = Placed { example, start, length: lengths[example] };
                start += placed.length;
                placed
            };
            examples.into_iter().map(place).collect()
        };
        Packing { sequence_length, rows: rows.into_iter().map(placed).collect() }
    }

    /// The rows: what lies in each, from the left.
    pub fn rows(&self) -> &[Vec<Placed>] {
        &self.rows
    }

    /// Share of the rows' positions that hold a token.
    pub fn fill(&self) -> f64 {
        let tokens: usize = self.rows.iter().flatten().map(|placed| placed.length).sum();
        tokens as f64 / (self.rows.len() * self.sequence_length) as f64
    }
}

/// Removes one of the rows with `room` from the open ones.
fn take(open: &mut BTreeMap<usize, Vec<usize>>, room: usize) -> usize {
    let rows = open.get_mut(&room).expect("the room of an open row");
    let row = rows.pop().expect("rooms are listed while a row has them");
    if rows.is_empty() {
        open.remove(&room);
    }
    row
}

/// Slots for predictions that a row of up to `sequences_per_row` examples needs: the share of its positions, and one more
/// for each example, because each number is rounded and is at least one.
pub fn predictions_of_row(config: &ExampleConfig, sequences_per_row: usize) -> usize {
    if sequences_per_row == 1 {
        return config.max_predictions;
    }
    let by_share = (config.masked_lm_prob * config.sequence_length as f64) as usize + sequences_per_row;
    by_share.min(sequences_per_row * config.max_predictions).min(config.sequence_length)
}
