//! The unigram baseline of the MLM loss: predicts every masked token by its frequency in the training text.

use crate::data::error::Result;
use crate::data::examples::dataset::Dataset;
use crate::data::store::shard::Split;

/// Returns the mean of −ln p(target) in nats, where p is the token's frequency with add-one smoothing.
///
/// `train_counts[id]` counts the training text. Special tokens count 0 there and are never targets. Returns NaN without
/// targets.
pub fn unigram_loss(train_counts: &[u64], targets: impl IntoIterator<Item = u32>) -> f64 {
    let total = train_counts.iter().sum::<u64>() as f64 + train_counts.len() as f64;
    let (mut sum, mut n) = (0.0, 0u64);
    for target in targets {
        let count = train_counts.get(target as usize).copied().unwrap_or(0);
        sum -= ((count + 1) as f64 / total).ln();
        n += 1;
    }
    sum / n as f64
}

/// Returns [`unigram_loss`] over the targets of the first `examples` examples.
///
/// Masked positions are drawn uniformly from the text, so the expected frequencies of targets are those of the text's
/// tokens.
pub fn unigram_baseline(held_out: &Dataset, examples: u64) -> Result<f64> {
    let counts = held_out.prepared().token_counts(Split::Train);
    let mut targets = Vec::new();
    for number in 0..examples {
        targets.extend(held_out.example(number)?.targets.ids);
    }
    Ok(unigram_loss(&counts, targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unigram_loss_is_the_cross_entropy_of_smoothed_frequencies() {
        // (3 + 1) / (4 + 4) twice and (0 + 1) / 8 once.
        let expected = -(2.0 * 0.5f64.ln() + 0.125f64.ln()) / 3.0;
        assert!((unigram_loss(&[0, 3, 1, 0], [1, 1, 3]) - expected).abs() < 1e-15);
    }
}
