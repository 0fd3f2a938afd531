//! The search for a micro-batch size: the candidates, the expected memory, and which candidate to compile next. A larger
//! micro-batch uses the matrix units better and reads the weights less often; memory limits it.

use std::collections::VecDeque;

use anyhow::bail;

use crate::bert::{BertPretraining, Recompute};
use crate::step::StepSpec;
use crate::task::Precision;
use crate::units::counted;

/// The share of the best rate that a smaller micro-batch, which needs less memory, may lose.
const NEGLIGIBLE: f64 = 0.01;

/// The rule by which a plan chooses the micro-batch size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MicroBatchChoice {
    /// The largest power of two that divides a device's rows and is expected to fit, or a smaller one if it does not fit. With
    /// packed rows, sizes at which at least one micro-batch stays empty are preferred.
    Auto,
    /// A fixed number of rows.
    Size(usize),
    /// The smallest size within 1 % of the most predicted sequences/s, found by compiling; the largest that fits if the rates of the
    /// target are unknown.
    Fastest,
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

/// Returns divisors of `n` from 1 to `n`, each at least twice the one before: 1, 2, 4, 10, 20, 50, 100.
pub fn doubling_divisors(n: usize) -> Vec<usize> {
    let mut sizes = divisors(n);
    let mut last = 0;
    sizes.retain(|&divisor| {
        let far = divisor >= 2 * last;
        last = if far { divisor } else { last };
        far
    });
    sizes
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
    let state = parameters as f64 * (4.0 * (1 + spec.state_names().len()) as f64 / shards + 8.0 + element);
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

/// Returns the position of the smallest micro-batch size whose rate is within 1 % of the best; that of the largest
/// size if a rate is unknown. `rates` are the sequences/s of ascending sizes.
pub fn fastest(rates: &[Option<f64>]) -> Option<usize> {
    let Some(known) = rates.iter().copied().collect::<Option<Vec<f64>>>() else {
        return rates.len().checked_sub(1);
    };
    let best = known.iter().copied().fold(0.0, f64::max);
    known.iter().position(|&rate| rate >= (1.0 - NEGLIGIBLE) * best)
}

/// Returns the one of `candidates` (ascending) that [`fastest`] selects by `rate` among those that fit. If a candidate fits, all
/// smaller ones must fit too.
///
/// Starts at the largest candidate up to `first`. Tries larger ones while each is faster, then smaller ones until one is slower,
/// so few are compiled. Stops at the first failure, with the best found until then.
///
/// # Errors
/// If `attempt` returns an error.
pub fn fastest_fit<T>(
    candidates: &[usize],
    first: usize,
    rate: impl Fn(&T) -> Option<f64>,
    mut attempt: impl FnMut(usize) -> anyhow::Result<Trial<T>>,
) -> anyhow::Result<Option<T>> {
    let middle = candidates.partition_point(|&size| size <= first).max(1).min(candidates.len());
    let (smaller, larger) = candidates.split_at(middle);
    let (mut smaller, mut larger) = (smaller.iter().rev().peekable(), larger.iter().peekable());
    // The tried candidates that fit, ascending.
    let mut fitting: VecDeque<T> = VecDeque::new();
    loop {
        let best = fastest(&fitting.iter().map(&rate).collect::<Vec<_>>());
        let upward = larger.next_if(|_| best.is_some_and(|best| best + 1 == fitting.len()));
        let descends = fitting.front().is_none_or(|smallest| best == Some(0) && rate(smallest).is_some());
        let Some(&size) = upward.or_else(|| smaller.next_if(|_| descends)) else {
            return Ok(best.and_then(|position| fitting.remove(position)));
        };
        match attempt(size)? {
            Trial::Fits(found) if upward.is_some() => fitting.push_back(found),
            Trial::Fits(found) => fitting.push_front(found),
            Trial::TooLarge => larger = [].iter().peekable(),
            Trial::Failed => (smaller, larger) = ([].iter().rev().peekable(), [].iter().peekable()),
        }
    }
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
    fn doubling_divisors_skip_neighbours() {
        assert_eq!(doubling_divisors(64), [1, 2, 4, 8, 16, 32, 64]);
        assert_eq!(doubling_divisors(100), [1, 2, 4, 10, 20, 50, 100]);
        assert_eq!(doubling_divisors(1), [1]);
    }

    #[test]
    fn fastest_is_the_smallest_within_one_percent_of_the_best() {
        let of = |rates: &[f64]| fastest(&rates.iter().copied().map(Some).collect::<Vec<_>>());
        assert_eq!(of(&[50.0, 90.0, 98.9, 99.0, 100.0, 99.9]), Some(3));
        assert_eq!(of(&[50.0, 100.0, 80.0]), Some(1));
        assert_eq!(of(&[100.0, 100.5, 100.9]), Some(0));
        assert_eq!(of(&[]), None);
        assert_eq!(fastest(&[Some(100.0), None, Some(50.0)]), Some(2), "the largest without all rates");
    }

    /// Searches 1, 2, 4 … 256 from `first`. The first `rates.len()` sizes fit. Returns the chosen size and all that were tried.
    fn search_fastest(rates: &[f64], first: usize) -> (Option<usize>, Vec<usize>) {
        let mut tried = Vec::new();
        let rate = |&size: &usize| rates.get(size.ilog2() as usize).copied();
        let found = fastest_fit(&doubling_divisors(256), first, rate, |size| {
            tried.push(size);
            Ok(if rate(&size).is_some() { Trial::Fits(size) } else { Trial::TooLarge })
        });
        (found.unwrap(), tried)
    }

    #[test]
    fn fastest_fit_is_found_from_any_start_in_few_attempts() {
        // Rates saturate at 16 rows; 64 rows are the most that fit.
        let saturating = [10.0, 18.0, 30.0, 60.0, 99.5, 100.0, 100.1];
        assert_eq!(search_fastest(&saturating, 64), (Some(16), vec![64, 128, 32, 16, 8]));
        assert_eq!(search_fastest(&saturating, 128), (Some(16), vec![128, 64, 32, 16, 8]));
        assert_eq!(search_fastest(&saturating, 16), (Some(16), vec![16, 32, 8]));
        assert_eq!(search_fastest(&saturating, 4), (Some(16), vec![4, 8, 16, 32]));
        // Larger micro-batches are always faster: the largest that fits.
        assert_eq!(search_fastest(&[1.0, 2.0, 4.0, 8.0], 8), (Some(8), vec![8, 16, 4]));
        // The rate falls again, as with packed rows, of which more are computed.
        assert_eq!(search_fastest(&[10.0, 20.0, 40.0, 30.0, 20.0], 16), (Some(4), vec![16, 32, 8, 4, 2]));
        assert_eq!(search_fastest(&[], 4), (None, vec![4, 2, 1]));
    }

    #[test]
    fn search_without_rates_returns_the_largest_that_fits() {
        let search = |limit: usize, first: usize| {
            fastest_fit(
                &doubling_divisors(64),
                first,
                |_| None,
                |size| Ok(if size <= limit { Trial::Fits(size) } else { Trial::TooLarge }),
            )
            .unwrap()
        };
        for first in [1, 3, 16, 64, 1000] {
            assert_eq!([0, 1, 20, 64].map(|limit| search(limit, first)), [None, Some(1), Some(16), Some(64)]);
        }
        assert!(fastest_fit(&[8], 8, |()| None, |_| bail!("no compiler")).is_err());
        assert_eq!(fastest_fit(&[], 1, |()| None, |_| Ok(Trial::Fits(()))).unwrap(), None);
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
                false => fastest_fit(&[1, 2, 4, 8], 4, |_| None, attempt),
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
