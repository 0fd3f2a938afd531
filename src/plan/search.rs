//! The search for a micro-batch size: the candidates, the expected memory, and which candidate to compile next. A larger
//! micro-batch uses the matrix units better and reads the weights less often; memory limits it.

use anyhow::bail;

use crate::bert::{BertPretraining, Recompute};
use crate::step::StepSpec;
use crate::task::Precision;
use crate::units::counted;

/// The rule by which a plan chooses the micro-batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatchChoice {
    /// The largest power of two that divides a device's rows and is expected to fit, or a smaller one if it does not fit. With
    /// packed rows, sizes at which at least one micro-batch stays empty are preferred.
    Auto,
    /// A fixed number of rows.
    Size(usize),
    /// The largest size that fits, found by compiling.
    Largest,
}

/// The result of compiling one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial<T> {
    /// The candidate fits.
    Fits(T),
    /// The candidate needs too much memory; a smaller one may fit.
    TooLarge,
    /// The compiler failed for a reason that no other size would change.
    Failed,
}

/// Returns the divisors of `n`, ascending.
pub fn divisors(n: usize) -> Vec<usize> {
    let mut small: Vec<usize> = (1..).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d)).collect();
    let large: Vec<usize> = small.iter().rev().map(|d| n / d).filter(|d| d * d > n).collect();
    small.extend(large);
    small
}

/// Returns the rows of `global_batch` on each of `devices`, which `micro_batch_size` divides.
///
/// # Errors
/// If the global batch does not divide; the message lists the nearest batches that do.
pub fn rows_per_device(
    phase: &str,
    global_batch: usize,
    devices: usize,
    micro_batch_size: usize,
) -> anyhow::Result<usize> {
    let unit = devices.saturating_mul(micro_batch_size);
    if global_batch.is_multiple_of(unit) {
        return Ok(global_batch / devices);
    }
    let below = global_batch / unit * unit;
    let nearest = [below, below.saturating_add(unit)].into_iter().filter(|&n| n > 0);
    let nearest = nearest.map(|n| n.to_string()).collect::<Vec<_>>();
    let sizes = match global_batch.is_multiple_of(devices) {
        true => {
            let all = divisors(global_batch / devices).iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            let rows = counted((global_batch / devices) as u64, "row");
            format!("; with {rows} on each device, micro-batch sizes can be {all}")
        }
        false => String::new(),
    };
    bail!(
        "[[phase]] {phase:?}: global_batch must be a multiple of devices × micro-batch size ({devices} × {micro_batch_size} = \
         {unit}), got {global_batch}; the nearest are {}{sizes}",
        nearest.join(" and ")
    )
}

/// Estimates the bytes that a device needs for the step `spec` with `micro_batch_size` rows: state, gradients, and the
/// activations that the backward pass keeps. The compiler's count is within a third of it. The estimate only chooses the first
/// candidate to compile.
pub fn expected_bytes(task: &BertPretraining, spec: &StepSpec, parameters: usize, micro_batch_size: usize) -> f64 {
    let (model, rows) = (&task.model, &task.rows);
    let [tokens, length, layers, hidden, inner, heads] = [
        micro_batch_size * rows.sequence_length,
        rows.sequence_length,
        model.num_hidden_layers,
        model.hidden_size,
        model.intermediate_size,
        model.num_attention_heads,
    ]
    .map(|n| n as f64);
    let element = if spec.precision == Precision::Bf16 { 2.0 } else { 4.0 };
    // Weights, optimizer state, gradients of a micro-batch and their sum in f32; the weights once more in the compute type.
    let shards = spec.shards().map_or(1.0, |shards| shards.count as f64);
    let state = parameters as f64 * (4.0 * (1 + spec.optimizer.state_names().len()) as f64 / shards + 8.0 + element);
    // For each token, a layer keeps query, key, value, context, two products and their sums (some in f32), the feed-forward
    // layer before and after its activation, and the attention probabilities before and after dropout.
    let (linear, probabilities) = (12.0 * hidden + 2.5 * inner, 2.0 * heads * length);
    let layer_values = match task.recompute {
        Recompute::None => layers * (linear + probabilities),
        Recompute::Attention => layers * linear + probabilities,
        Recompute::Layer => layers * hidden + linear + probabilities,
    };
    let logits = (micro_batch_size * rows.max_predictions * model.vocab_size) as f64 * 8.0;
    state + tokens * element * layer_values + logits
}

/// Returns the first of `candidates` that fits, in their order. Stops at the first failure.
///
/// # Errors
/// If `attempt` returns an error.
pub fn first_fit<T>(
    candidates: impl IntoIterator<Item = usize>,
    mut attempt: impl FnMut(usize) -> anyhow::Result<Trial<T>>,
) -> anyhow::Result<Option<T>> {
    for candidate in candidates {
        match attempt(candidate)? {
            Trial::Fits(found) => return Ok(Some(found)),
            Trial::TooLarge => {}
            Trial::Failed => break,
        }
    }
    Ok(None)
}

/// Returns the largest of `candidates` (ascending) that fits, by binary search from `first`. If a candidate fits, all smaller
/// ones must fit too. Stops at the first failure, with the best found until then.
///
/// # Errors
/// If `attempt` returns an error.
pub fn largest_fit<T>(
    candidates: &[usize],
    first: usize,
    mut attempt: impl FnMut(usize) -> anyhow::Result<Trial<T>>,
) -> anyhow::Result<Option<T>> {
    let (mut low, mut high) = (0, candidates.len());
    let mut best = None;
    let mut probe = candidates.partition_point(|&c| c <= first).saturating_sub(1);
    while low < high {
        match attempt(candidates[probe])? {
            Trial::Fits(found) => {
                best = Some(found);
                low = probe + 1;
            }
            Trial::TooLarge => high = probe,
            Trial::Failed => break,
        }
        probe = usize::midpoint(low, high);
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_are_complete_and_ascend() {
        assert_eq!(divisors(1), [1]);
        assert_eq!(divisors(36), [1, 2, 3, 4, 6, 9, 12, 18, 36]);
        assert_eq!(divisors(97), [1, 97]);
        for n in 1..200 {
            assert_eq!(divisors(n), (1..=n).filter(|d| n % d == 0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn error_for_an_indivisible_batch_names_the_nearest_batches() {
        assert_eq!(rows_per_device("128", 65_536, 2048, 16).unwrap(), 32);
        assert_eq!(
            rows_per_device("128", 65_536, 2048, 64).unwrap_err().to_string(),
            "[[phase]] \"128\": global_batch must be a multiple of devices × micro-batch size (2048 × 64 = 131072), got \
             65536; the nearest are 131072; with 32 rows on each device, micro-batch sizes can be 1, 2, 4, 8, 16, 32"
        );
        let odd = rows_per_device("x", 100, 3, 4).unwrap_err().to_string();
        assert!(odd.ends_with("got 100; the nearest are 96 and 108"), "{odd}");
        assert!(rows_per_device("x", 100, 2, usize::MAX).unwrap_err().to_string().contains("got 100"));
    }

    #[test]
    fn largest_fit_is_found_from_any_start_in_few_attempts() {
        let candidates = divisors(1024);
        for limit in 0..=1100 {
            for first in [1, 3, 16, 1024] {
                let mut attempts = 0;
                let found = largest_fit(&candidates, first, |n| {
                    attempts += 1;
                    Ok(if n <= limit { Trial::Fits(n) } else { Trial::TooLarge })
                });
                let expected = candidates.iter().copied().filter(|&c| c <= limit).max();
                assert_eq!(found.unwrap(), expected, "limit {limit} from {first}");
                assert!(attempts <= 5, "{attempts} attempts");
            }
        }
        assert!(largest_fit(&candidates, 8, |_| -> anyhow::Result<Trial<()>> { bail!("no compiler") }).is_err());
        assert_eq!(largest_fit(&[], 1, |_| Ok(Trial::Fits(()))).unwrap(), None);
    }

    #[test]
    fn smaller_sizes_are_tried_only_after_too_large() {
        let search = |results: &[(usize, Trial<usize>)], descending: bool| {
            let mut attempts = Vec::new();
            let attempt = |n| {
                attempts.push(n);
                Ok(results.iter().find(|(size, _)| *size == n).map_or(Trial::TooLarge, |(_, result)| *result))
            };
            let found = match descending {
                true => first_fit([8, 4, 2, 1], attempt),
                false => largest_fit(&[1, 2, 4, 8], 4, attempt),
            };
            (found.unwrap(), attempts)
        };
        let fits = |n| (n, Trial::Fits(n));
        assert_eq!(search(&[fits(2), fits(1)], true), (Some(2), vec![8, 4, 2]));
        assert_eq!(search(&[(4, Trial::Failed), fits(2), fits(1)], true), (None, vec![8, 4]));
        assert_eq!(search(&[fits(2), fits(1)], false), (Some(2), vec![4, 2]));
        assert_eq!(search(&[(4, Trial::Failed), fits(2), fits(1)], false), (None, vec![4]));
        assert_eq!(search(&[fits(4), (8, Trial::Failed)], false), (Some(4), vec![4, 8]));
    }
}
