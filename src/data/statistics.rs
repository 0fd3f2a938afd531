//! How long documents and examples are: what decides how much of a batch is padding.

use serde::Serialize;

use super::error::Result;
use super::examples::Examples;
use super::prepared::Documents;

/// Bars of a histogram of example lengths.
const BARS: usize = 8;

/// Mean and order statistics of some lengths. All zero if there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    pub median: u64,
    /// Nine of ten are at most this long.
    pub percentile_90: u64,
    pub longest: u64,
}

impl Spread {
    fn of(mut lengths: Vec<u64>) -> Self {
        lengths.sort_unstable();
        let Some(&longest) = lengths.last() else { return Spread::default() };
        let at = |share: f64| lengths[((lengths.len() - 1) as f64 * share).round() as usize];
        let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64;
        Spread { mean, median: at(0.5), percentile_90: at(0.9), longest }
    }
}

/// Lengths of the documents of a split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DocumentLengths {
    pub sentences: Spread,
    pub tokens: Spread,
}

/// Measures every document; reads no tokens.
pub fn document_lengths(documents: &Documents) -> DocumentLengths {
    let lengths = (0..documents.len()).map(|index| {
        let starts = documents.get(index).starts;
        (starts.len() as u64 - 1, (starts[starts.len() - 1] - starts[0]) as u64)
    });
    let (sentences, tokens) = lengths.unzip();
    DocumentLengths { sentences: Spread::of(sentences), tokens: Spread::of(tokens) }
}

/// What a number of examples looks like.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExampleLengths {
    pub examples: u64,
    /// Length that examples are padded to.
    pub sequence_length: usize,
    /// Tokens, `[CLS]` and `[SEP]` counted.
    pub lengths: Spread,
    /// Share of a batch that is padding.
    pub padding: f64,
    /// Predictions for each token.
    pub predicted: f64,
    pub random_next: f64,
    /// `(longest, count)`: examples up to `longest` tokens that the bar before does not hold.
    pub histogram: Vec<(usize, u64)>,
}

/// Measures the first `count` examples.
pub fn example_lengths(examples: &Examples, count: u64) -> Result<ExampleLengths> {
    let s = examples.config().sequence_length;
    let (mut lengths, mut predictions, mut random) = (Vec::new(), 0.0, 0);
    let at_once = 1024;
    for first in (0..count).step_by(at_once) {
        let batch = examples.batch(first, at_once.min((count - first) as usize))?;
        lengths.extend(batch.attention_mask.chunks(s).map(|row| row.iter().sum::<i32>() as u64));
        predictions += batch.masked_lm_weights.iter().map(|&w| w as f64).sum::<f64>();
        random += batch.next_sentence_labels.iter().filter(|&&label| label == 1).count();
    }
    let mut histogram: Vec<(usize, u64)> = (1..=BARS).map(|bar| ((s * bar).div_ceil(BARS), 0)).collect();
    for &length in &lengths {
        let bar = histogram.iter().position(|&(longest, _)| length as usize <= longest).unwrap_or(BARS - 1);
        histogram[bar].1 += 1;
    }
    let tokens = lengths.iter().sum::<u64>() as f64;
    Ok(ExampleLengths {
        examples: count,
        sequence_length: s,
        padding: 1.0 - tokens / (count as usize * s) as f64,
        predicted: predictions / tokens,
        random_next: random as f64 / count as f64,
        lengths: Spread::of(lengths),
        histogram,
    })
}
