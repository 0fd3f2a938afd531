//! Histograms and summaries of the lengths of documents, examples and packed rows, which determine the share of
//! padding.

use serde::Serialize;

use crate::data::error::Result;
use crate::data::examples::dataset::Dataset;
use crate::data::store::documents::Documents;

/// Maximum number of bins in a histogram of lengths up to the sequence length.
const BINS: usize = 8;

/// The number of items with a size from `from` to `to` (inclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HistogramBin {
    /// Smallest size of the bin.
    pub from: u64,
    /// Largest size of the bin.
    pub to: u64,
    /// Number of items.
    pub count: u64,
}

/// Counts sizes in bins of doubling width: 1, 2–3, 4–7, …, from the smallest used bin to the largest.
pub fn log2_histogram(sizes: impl Iterator<Item = u64>) -> Vec<HistogramBin> {
    let mut counts = [0u64; 64];
    sizes.filter(|&size| size > 0).for_each(|size| counts[size.ilog2() as usize] += 1);
    let used = |from: &dyn Fn(&u64) -> bool| counts.iter().position(from);
    let Some(first) = used(&|&count| count > 0) else { return Vec::new() };
    let last = counts.iter().rposition(|&count| count > 0).unwrap_or(first);
    (first..=last).map(|k| HistogramBin { from: 1 << k, to: (1 << k) + ((1 << k) - 1), count: counts[k] }).collect()
}

/// Counts sizes from 1 to `most` in up to `bins` bins of equal integer width; only the last may be narrower.
pub fn even_histogram(sizes: impl Iterator<Item = u64>, most: usize, bins: usize) -> Vec<HistogramBin> {
    let width = most.div_ceil(bins).max(1);
    let bin = |from: usize| HistogramBin { from: from as u64, to: (from + width - 1).min(most) as u64, count: 0 };
    let mut bins: Vec<HistogramBin> = (1..=most).step_by(width).map(bin).collect();
    for size in sizes.filter(|&size| size > 0) {
        if let Some(bin) = bins.get_mut((size as usize - 1) / width) {
            bin.count += 1;
        }
    }
    bins
}

/// Counts each size separately, from the smallest to the largest.
pub fn exact_histogram(sizes: &[u64]) -> Vec<HistogramBin> {
    let (Some(&least), Some(&most)) = (sizes.iter().min(), sizes.iter().max()) else { return Vec::new() };
    let mut bins: Vec<HistogramBin> =
        (least..=most).map(|size| HistogramBin { from: size, to: size, count: 0 }).collect();
    sizes.iter().for_each(|size| bins[(size - least) as usize].count += 1);
    bins
}

/// Mean and order statistics of lengths; all zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LengthSummary {
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub median: u64,
    /// 90th percentile.
    pub percentile_90: u64,
    /// Maximum.
    pub longest: u64,
}

impl LengthSummary {
    fn of(mut lengths: Vec<u64>) -> Self {
        lengths.sort_unstable();
        let Some(&longest) = lengths.last() else { return LengthSummary::default() };
        let at = |share: f64| lengths[((lengths.len() - 1) as f64 * share).round() as usize];
        let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64;
        LengthSummary { mean, median: at(0.5), percentile_90: at(0.9), longest }
    }
}

/// Lengths of the documents of a split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DocumentLengths {
    /// Sentences per document.
    pub sentences: LengthSummary,
    /// Tokens per document.
    pub tokens: LengthSummary,
}

/// Summarises the lengths of all documents. Reads no tokens.
pub fn document_lengths(documents: &Documents) -> DocumentLengths {
    let lengths = (0..documents.len()).map(|index| {
        let starts = documents.get(index).starts;
        (starts.len() as u64 - 1, (starts[starts.len() - 1] - starts[0]) as u64)
    });
    let (sentences, tokens) = lengths.unzip();
    DocumentLengths { sentences: LengthSummary::of(sentences), tokens: LengthSummary::of(tokens) }
}

/// Lengths and labels of a number of examples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExampleLengths {
    /// Number of examples.
    pub examples: u64,
    /// Length to which examples are padded.
    pub sequence_length: usize,
    /// Number of tokens, including `[CLS]` and `[SEP]`.
    pub lengths: LengthSummary,
    /// Share of a batch that is padding.
    pub padding: f64,
    /// Masked positions per token.
    pub predicted: f64,
    /// Share of examples with label 1: a random or swapped second segment.
    pub random_next: f64,
    /// Histogram of examples by their number of tokens.
    pub histogram: Vec<HistogramBin>,
}

/// Summarises the first `count` examples.
pub fn example_lengths(examples: &Dataset, count: u64) -> Result<ExampleLengths> {
    let s = examples.config().sequence_length;
    let (mut lengths, mut predictions, mut random) = (Vec::new(), 0.0, 0);
    let at_once = 1024;
    for first in (0..count).step_by(at_once) {
        let batch = examples.batch(first, at_once.min((count - first) as usize))?;
        lengths.extend(batch.attention_mask.chunks(s).map(|row| row.iter().sum::<i32>() as u64));
        predictions += batch.masked_lm_weights.iter().map(|&w| w as f64).sum::<f64>();
        random += batch.next_sentence_labels.iter().filter(|&&label| label == 1).count();
    }
    let tokens = lengths.iter().sum::<u64>() as f64;
    Ok(ExampleLengths {
        examples: count,
        sequence_length: s,
        padding: 1.0 - tokens / (count as usize * s) as f64,
        predicted: predictions / tokens,
        random_next: random as f64 / count as f64,
        histogram: even_histogram(lengths.iter().copied(), s, BINS),
        lengths: LengthSummary::of(lengths),
    })
}

/// Result of packing a number of batches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PackedLengths {
    /// Maximum number of examples per row.
    pub sequences_per_row: usize,
    /// Number of examples packed together.
    pub batch: usize,
    /// Number of batches.
    pub batches: u64,
    /// Number of rows.
    pub rows: u64,
    /// Average number of rows per example.
    pub rows_per_sequence: f64,
    /// Share of the rows' positions that hold a token.
    pub fill: f64,
    /// Histogram of rows by their number of examples.
    pub examples_of_rows: Vec<HistogramBin>,
    /// Histogram of rows by their number of tokens.
    pub tokens_of_rows: Vec<HistogramBin>,
}

/// Packs the first `count` examples in whole batches of `batch`, at least one, as training does.
pub fn packed_lengths(examples: &Dataset, count: u64, batch: usize, sequences_per_row: usize) -> PackedLengths {
    let s = examples.config().sequence_length;
    let batches = (count / batch as u64).max(1);
    let (mut numbers, mut tokens) = (Vec::new(), Vec::new());
    for first in (0..batches).map(|number| number * batch as u64) {
        for row in examples.window(first, batch).packing(sequences_per_row).rows() {
            numbers.push(row.len() as u64);
            tokens.push(row.iter().map(|placed| placed.length as u64).sum());
        }
    }
    let rows = numbers.len() as u64;
    PackedLengths {
        sequences_per_row,
        batch,
        batches,
        rows,
        rows_per_sequence: rows as f64 / (batches * batch as u64) as f64,
        fill: tokens.iter().sum::<u64>() as f64 / (rows * s as u64) as f64,
        examples_of_rows: exact_histogram(&numbers),
        tokens_of_rows: even_histogram(tokens.into_iter(), s, BINS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log2_bins_double_and_start_at_the_first_size() {
        let bins = log2_histogram([0, 4, 5, 7, 8, 40].into_iter());
        let as_tuples: Vec<(u64, u64, u64)> = bins.iter().map(|bin| (bin.from, bin.to, bin.count)).collect();
        assert_eq!(as_tuples, [(4, 7, 3), (8, 15, 1), (16, 31, 0), (32, 63, 1)]);
        assert!(log2_histogram(std::iter::empty()).is_empty());
    }

    #[test]
    fn even_bins_cover_every_size_once_with_equal_width() {
        for most in 1..=600 {
            let bins = even_histogram(1..=most as u64, most, BINS);
            assert!(bins.len() <= BINS && bins[0].from == 1 && bins[bins.len() - 1].to == most as u64, "{bins:?}");
            assert!(bins.windows(2).all(|pair| pair[0].to + 1 == pair[1].from), "{bins:?}");
            let widths: Vec<u64> = bins.iter().map(|bin| bin.to + 1 - bin.from).collect();
            let (last, others) = widths.split_last().unwrap();
            assert!(others.iter().all(|width| width == &others[0]) && (1..=widths[0]).contains(last), "{bins:?}");
            assert!(bins.iter().all(|bin| bin.count == bin.to + 1 - bin.from), "{bins:?}");
        }
    }

    #[test]
    fn exact_bins_include_empty_sizes() {
        let counts: Vec<(u64, u64)> = exact_histogram(&[5, 3, 5]).iter().map(|bin| (bin.from, bin.count)).collect();
        assert_eq!(counts, [(3, 1), (4, 0), (5, 2)]);
        assert!(exact_histogram(&[]).is_empty());
    }
}
