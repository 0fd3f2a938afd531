//! Statistics of a whole split of prepared data, to inspect it before a long training run.
//!
//! [`Survey::of`] reads every token once to find duplicate documents. All other statistics come from the shards' counts
//! and from a number of examples, built as in training.

pub mod statistics;

use std::collections::HashMap;

use rayon::prelude::*;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use self::statistics::{
    DocumentLengths, ExampleLengths, HistogramBin, PackedLengths, document_lengths, exact_histogram, example_lengths,
    log2_histogram, packed_lengths,
};
use crate::data::error::Result;
use crate::data::examples::dataset::{Dataset, Example};
use crate::data::store::documents::{Document, Documents};
use crate::data::store::shard::{Counts, Split};

/// Maximum number of slices of a sequence for which masked positions are counted.
const SLICES: usize = 16;
/// Number of points of the curve [`VocabularyCoverage::cumulative`].
const CURVE_POINTS: usize = 64;
/// Number of most frequent tokens to list.
const NAMED: usize = 24;

/// Use of the vocabulary in the split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VocabularyCoverage {
    /// Number of tokens in the vocabulary.
    pub vocabulary_size: usize,
    /// Tokens of the vocabulary that occur in the split. Special tokens other than `[UNK]` never do.
    pub used: usize,
    /// Tokens of the vocabulary that occur fewer than ten times, or never.
    pub rare: usize,
    /// Share of tokens that are `[UNK]`.
    pub unknown: f64,
    /// Share of tokens that are `##` pieces.
    pub continuations: f64,
    /// (n, share): the share of all tokens covered by the n most frequent ones; n grows geometrically.
    pub cumulative: Vec<(usize, f64)>,
    /// The most frequent tokens with their counts.
    pub most_frequent: Vec<(String, u64)>,
}

/// The positions from `from` to `to` (inclusive), and the share of their tokens that is masked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PositionSlice {
    /// First position.
    pub from: usize,
    /// Last position.
    pub to: usize,
    /// Masked positions per token.
    pub predicted: f64,
}

/// Statistics of masking over a number of examples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MaskStatistics {
    /// Number of examples.
    pub examples: u64,
    /// Number of masked positions.
    pub predictions: u64,
    /// Share of the masked positions with `[MASK]`.
    pub masked: f64,
    /// Share with the original token.
    pub kept: f64,
    /// Share with another token.
    pub random: f64,
    /// Masked positions per token in slices of the sequence length, including `[CLS]` and `[SEP]`.
    pub by_position: Vec<PositionSlice>,
    /// Examples by their number of masked positions.
    pub per_example: Vec<HistogramBin>,
}

/// Documents with the same tokens as an earlier document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DuplicateCounts {
    /// Documents that repeat an earlier one.
    pub repeats: u64,
    /// Tokens in these documents.
    pub tokens: u64,
    /// Documents that are repeated.
    pub repeated: u64,
    /// Number of copies of the most frequent document.
    pub most: u64,
}

/// All statistics of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// The split.
    pub split: Split,
    /// Counts of the split.
    pub counts: Counts,
    /// Lengths of the documents.
    pub documents: DocumentLengths,
    /// Histogram of documents by their number of tokens.
    pub tokens_of_documents: Vec<HistogramBin>,
    /// Histogram of sentences by their number of tokens.
    pub tokens_of_sentences: Vec<HistogramBin>,
    /// Use of the vocabulary.
    pub coverage: VocabularyCoverage,
    /// Repeated documents.
    pub duplicates: DuplicateCounts,
    /// Lengths of the examples.
    pub examples: ExampleLengths,
    /// Present if rows are packed.
    pub packed: Option<PackedLengths>,
    /// Statistics of masking.
    pub masks: MaskStatistics,
}

/// Settings of packing: the maximum number of examples per row, and the number of examples packed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackingOptions {
    /// Maximum number of examples per row.
    pub sequences_per_row: usize,
    /// Number of examples packed together.
    pub batch: usize,
}

impl Survey {
    /// Computes the statistics of the split of `examples`, using its first `count` examples, optionally `packed`. Calls
    /// `progress` with the number of tokens read.
    ///
    /// # Errors
    /// If a shard cannot be read, or holds a token outside the vocabulary.
    pub fn of(
        examples: &Dataset,
        count: u64,
        packed: Option<PackingOptions>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Survey> {
        let (prepared, split) = (examples.prepared(), examples.split());
        let documents = prepared.documents(split);
        let all = || (0..documents.len()).map(|index| documents.get(index));
        Ok(Survey {
            split,
            counts: prepared.manifest().counts(split),
            documents: document_lengths(documents),
            tokens_of_documents: log2_histogram(all().map(tokens_of)),
            tokens_of_sentences: log2_histogram(
                all().flat_map(|document| document.starts.windows(2).map(|pair| (pair[1] - pair[0]) as u64)),
            ),
            coverage: coverage(examples)?,
            duplicates: duplicates(documents, progress)?,
            examples: example_lengths(examples, count)?,
            packed: packed.map(|PackingOptions { sequences_per_row, batch }| {
                packed_lengths(examples, count, batch, sequences_per_row)
            }),
            masks: masks(examples, count)?,
        })
    }
}

fn tokens_of(document: Document<'_>) -> u64 {
    (document.starts[document.starts.len() - 1] - document.starts[0]) as u64
}

fn coverage(examples: &Dataset) -> Result<VocabularyCoverage> {
    let (prepared, split) = (examples.prepared(), examples.split());
    let vocabulary = prepared.vocabulary();
    let counts = prepared.token_counts(split);
    let total = counts.iter().sum::<u64>().max(1) as f64;
    let share = |selects: &dyn Fn(u32) -> bool| {
        let of = (0u32..).zip(&counts).filter(|(id, _)| selects(*id)).map(|(_, count)| count).sum::<u64>();
        of as f64 / total
    };
    let mut by_count: Vec<(u64, u32)> = counts.iter().copied().zip(0..).collect();
    by_count.sort_by_key(|&(count, id)| (std::cmp::Reverse(count), id));
    let name = |id: u32| vocabulary.token(id).unwrap_or("?").to_owned();
    Ok(VocabularyCoverage {
        vocabulary_size: counts.len(),
        used: counts.iter().filter(|&&count| count > 0).count(),
        rare: counts.iter().filter(|&&count| count < 10).count(),
        unknown: share(&|id| id == vocabulary.special().unk),
        continuations: share(&|id| vocabulary.is_continuation(id)),
        cumulative: cumulative(by_count.iter().map(|&(count, _)| count), counts.len(), total),
        most_frequent: by_count.iter().take(NAMED).map(|&(count, id)| (name(id), count)).collect(),
    })
}

/// Returns the curve [`VocabularyCoverage::cumulative`] from counts in descending order.
fn cumulative(counts: impl Iterator<Item = u64>, vocabulary_size: usize, total: f64) -> Vec<(usize, f64)> {
    let mut points: Vec<usize> = (0..CURVE_POINTS)
        .map(|i| (vocabulary_size as f64).powf(i as f64 / (CURVE_POINTS - 1) as f64).round() as usize)
        .collect();
    points.dedup();
    let mut sum = 0;
    let sums = counts.map(|count| {
        sum += count;
        sum as f64 / total
    });
    (1..).zip(sums).filter(|(n, _)| points.binary_search(n).is_ok()).collect()
}

fn duplicates(documents: &Documents, progress: &(dyn Fn(u64) + Sync)) -> Result<DuplicateCounts> {
    let fingerprints = (0..documents.len())
        .into_par_iter()
        .map(|index| {
            let document = documents.get(index);
            let fingerprint = fingerprint(&document)?;
            progress(tokens_of(document));
            Ok((fingerprint, tokens_of(document)))
        })
        .collect::<Result<Vec<(u128, u64)>>>()?;
    let mut seen: HashMap<u128, (u64, u64)> = HashMap::with_capacity(fingerprints.len());
    for (fingerprint, tokens) in fingerprints {
        seen.entry(fingerprint).or_insert((0, tokens)).0 += 1;
    }
    let repeated = seen.values().filter(|(times, _)| *times > 1);
    Ok(repeated.fold(DuplicateCounts { repeats: 0, tokens: 0, repeated: 0, most: 1 }, |sum, &(times, tokens)| {
        DuplicateCounts {
            repeats: sum.repeats + times - 1,
            tokens: sum.tokens + (times - 1) * tokens,
            repeated: sum.repeated + 1,
            most: sum.most.max(times),
        }
    }))
}

/// Returns a 128-bit hash of the tokens of a document, practically without collisions.
fn fingerprint(document: &Document<'_>) -> Result<u128> {
    /// Tokens read at a time.
    const PIECE: usize = 1 << 16;
    let (start, end) = (document.starts[0], document.starts[document.starts.len() - 1]);
    let mut hash = Xxh3::new();
    for from in (start..end).step_by(PIECE) {
        let ids = document.shard.read_tokens(from..end.min(from + PIECE as u32))?;
        hash.update(bytemuck::cast_slice(&ids));
    }
    Ok(hash.digest128())
}

/// Sums over examples, before division.
#[derive(Clone, Default)]
struct MaskSums {
    masked: u64,
    kept: u64,
    random: u64,
    predictions: [u64; SLICES],
    tokens: [u64; SLICES],
}

fn masks(examples: &Dataset, count: u64) -> Result<MaskStatistics> {
    let mask = examples.prepared().vocabulary().special().mask;
    let length = examples.config().sequence_length;
    let width = length.div_ceil(SLICES);
    let slice = |position: usize| position / width;
    let (mut sums, mut numbers) = (MaskSums::default(), Vec::new());
    for number in 0..count {
        let Example { tokens, targets, .. } = examples.example(number)?;
        (0..tokens.len()).for_each(|position| sums.tokens[slice(position)] += 1);
        for (&position, &id) in targets.positions.iter().zip(&targets.ids) {
            sums.predictions[slice(position)] += 1;
            match tokens[position] {
                now if now == mask => sums.masked += 1,
                now if now == id => sums.kept += 1,
                _ => sums.random += 1,
            }
        }
        numbers.push(targets.ids.len() as u64);
    }
    let predictions: u64 = numbers.iter().sum();
    let share = |part: u64| part as f64 / predictions.max(1) as f64;
    let by_position = (0..length).step_by(width).map(|from| PositionSlice {
        from,
        to: (from + width).min(length) - 1,
        predicted: sums.predictions[slice(from)] as f64 / sums.tokens[slice(from)].max(1) as f64,
    });
    Ok(MaskStatistics {
        examples: count,
        predictions,
        masked: share(sums.masked),
        kept: share(sums.kept),
        random: share(sums.random),
        by_position: by_position.collect(),
        per_example: exact_histogram(&numbers),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_curve_rises_from_the_first_token_to_all() {
        let counts = [50, 30, 15, 5, 0, 0, 0, 0];
        let curve = cumulative(counts.into_iter(), counts.len(), 100.0);
        assert_eq!(curve.first(), Some(&(1, 0.5)));
        assert_eq!(curve.last(), Some(&(8, 1.0)));
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }
}
