//! Into how many slices a device cuts its rows. A larger micro-batch keeps the matrix units busier and reads the weights
//! less often; memory is its limit.

use anyhow::bail;

use crate::bert::{BertPretraining, Recompute};
use crate::step::StepSpec;
use crate::task::Precision;

/// How the micro-batch of a plan is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The largest power of two that divides a device's rows and is expected to fit; a smaller one if it does not, or if
    /// packed sequences then leave whole micro-batches out.
    Auto,
    /// This one.
    Rows(usize),
    /// The largest that the compiler finds room for.
    Largest,
}

/// What came of trying one micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried<T> {
    Fits(T),
    /// There is no room for it; there may be for a smaller one.
    TooLarge,
    /// For a reason that no other size would change.
    Refused,
}

/// The numbers that divide `n`, ascending.
pub fn divisors(n: usize) -> Vec<usize> {
    let mut small: Vec<usize> = (1..).take_while(|d| d * d <= n).filter(|d| n.is_multiple_of(*d)).collect();
    let large: Vec<usize> = small.iter().rev().map(|d| n / d).filter(|d| d * d > n).collect();
    small.extend(large);
    small
}

/// Rows that each of `devices` takes of `global_batch`, in micro-batches of `micro_batch`.
///
/// # Errors
/// With the nearest batches that divide.
pub fn rows(phase: &str, global_batch: usize, devices: usize, micro_batch: usize) -> anyhow::Result<usize> {
    let unit = devices.saturating_mul(micro_batch);
    if global_batch.is_multiple_of(unit) {
        return Ok(global_batch / devices);
    }
    let below = global_batch / unit * unit;
    let nearest = [below, below.saturating_add(unit)].into_iter().filter(|&n| n > 0);
    let nearest = nearest.map(|n| n.to_string()).collect::<Vec<_>>();
    let of_device = match global_batch.is_multiple_of(devices) {
        true => {
            let all = divisors(global_batch / devices).iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            format!("; micro-batches that divide a device's {} rows are {all}", global_batch / devices)
        }
        false => String::new(),
    };
    bail!(
        "[[phase]] {phase:?}: global_batch requires a multiple of devices × micro-batch ({devices} × {micro_batch} = {unit}), \
         got {global_batch}; the nearest are {}{of_device}",
        nearest.join(" and ")
    )
}

/// Bytes that a device is expected to need for the step `spec` in micro-batches of `micro_batch` rows: state, gradients,
/// and what the backward pass keeps of the forward pass. Compilers end up within a third of it; it chooses where to begin,
/// and nothing else.
pub fn expected_bytes(task: &BertPretraining, spec: &StepSpec, parameters: usize, micro_batch: usize) -> f64 {
    let (model, rows) = (&task.model, &task.rows);
    let [tokens, length, layers, hidden, inner, heads] = [
        micro_batch * rows.sequence_length,
        rows.sequence_length,
        model.num_hidden_layers,
        model.hidden_size,
        model.intermediate_size,
        model.num_attention_heads,
    ]
    .map(|n| n as f64);
    let element = if spec.precision == Precision::Bf16 { 2.0 } else { 4.0 };
    // Weights, their slots, gradients of a micro-batch and their sum in f32; the weights once more as products read them.
    let parts = spec.shards().map_or(1.0, |shards| shards.count as f64);
    let state = parameters as f64 * (4.0 * (1 + spec.optimizer.state_names().len()) as f64 / parts + 8.0 + element);
    // Of a token, a layer keeps query, key, value, context, two products and their sums (some in f32), the feed-forward
    // layer before and after its activation, and the attention probabilities before and after dropout.
    let (linear, probabilities) = (12.0 * hidden + 2.5 * inner, 2.0 * heads * length);
    let of_layers = match task.recompute {
        Recompute::None => layers * (linear + probabilities),
        Recompute::Attention => layers * linear + probabilities,
        Recompute::Layer => layers * hidden + linear + probabilities,
    };
    let predicted = (micro_batch * rows.max_predictions * model.vocab_size) as f64 * 8.0;
    state + tokens * element * of_layers + predicted
}

/// The first of `candidates` that fits, in their order; none after one that is refused.
///
/// # Errors
/// Those of `attempt`.
pub fn first<T>(
    candidates: impl IntoIterator<Item = usize>,
    mut attempt: impl FnMut(usize) -> anyhow::Result<Tried<T>>,
) -> anyhow::Result<Option<T>> {
    for candidate in candidates {
        match attempt(candidate)? {
            Tried::Fits(found) => return Ok(Some(found)),
            Tried::TooLarge => {}
            Tried::Refused => break,
        }
    }
    Ok(None)
}

/// The largest of `candidates` (ascending) that fits, as all smaller ones do if one does; of those that were tried before one
/// is refused. Begins at `first` and halves what is left; as few are tried as that allows.
///
/// # Errors
/// Those of `attempt`.
pub fn largest<T>(
    candidates: &[usize],
    first: usize,
    mut attempt: impl FnMut(usize) -> anyhow::Result<Tried<T>>,
) -> anyhow::Result<Option<T>> {
    let (mut low, mut high) = (0, candidates.len());
    let mut best = None;
    let mut probe = candidates.partition_point(|&c| c <= first).saturating_sub(1);
    while low < high {
        match attempt(candidates[probe])? {
            Tried::Fits(found) => {
                best = Some(found);
                low = probe + 1;
            }
            Tried::TooLarge => high = probe,
            Tried::Refused => break,
        }
        probe = (low + high) / 2;
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_ascend_and_are_all_there() {
        assert_eq!(divisors(1), [1]);
        assert_eq!(divisors(36), [1, 2, 3, 4, 6, 9, 12, 18, 36]);
        assert_eq!(divisors(97), [1, 97]);
        for n in 1..200 {
            assert_eq!(divisors(n), (1..=n).filter(|d| n % d == 0).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_batch_that_does_not_divide_is_answered_with_its_neighbours() {
        assert_eq!(rows("128", 65_536, 2048, 16).unwrap(), 32);
        assert_eq!(
            rows("128", 65_536, 2048, 64).unwrap_err().to_string(),
            "[[phase]] \"128\": global_batch requires a multiple of devices × micro-batch (2048 × 64 = 131072), got 65536; \
             the nearest are 131072; micro-batches that divide a device's 32 rows are 1, 2, 4, 8, 16, 32"
        );
        let odd = rows("x", 100, 3, 4).unwrap_err().to_string();
        assert!(odd.ends_with("got 100; the nearest are 96 and 108"), "{odd}");
        assert!(rows("x", 100, 2, usize::MAX).unwrap_err().to_string().contains("got 100"));
    }

    #[test]
    fn the_largest_that_fits_is_found_from_anywhere_in_few_questions() {
        let candidates = divisors(1024);
        for limit in 0..=1100 {
            for first in [1, 3, 16, 1024] {
                let mut asked = 0;
                let found = largest(&candidates, first, |n| {
                    asked += 1;
                    Ok(if n <= limit { Tried::Fits(n) } else { Tried::TooLarge })
                });
                let expected = candidates.iter().copied().filter(|&c| c <= limit).max();
                assert_eq!(found.unwrap(), expected, "limit {limit} from {first}");
                assert!(asked <= 5, "{asked} questions");
            }
        }
        assert!(largest(&candidates, 8, |_| -> anyhow::Result<Tried<()>> { bail!("no compiler") }).is_err());
        assert_eq!(largest(&[], 1, |_| Ok(Tried::Fits(()))).unwrap(), None);
    }

    #[test]
    fn only_want_of_room_leads_to_a_smaller_one() {
        let tried = |answers: &[(usize, Tried<usize>)], from_largest: bool| {
            let mut asked = Vec::new();
            let attempt = |n| {
                asked.push(n);
                Ok(answers.iter().find(|(of, _)| *of == n).map_or(Tried::TooLarge, |(_, answer)| *answer))
            };
            let found = match from_largest {
                true => first([8, 4, 2, 1], attempt),
                false => largest(&[1, 2, 4, 8], 4, attempt),
            };
            (found.unwrap(), asked)
        };
        let fits = |n| (n, Tried::Fits(n));
        assert_eq!(tried(&[fits(2), fits(1)], true), (Some(2), vec![8, 4, 2]));
        assert_eq!(tried(&[(4, Tried::Refused), fits(2), fits(1)], true), (None, vec![8, 4]));
        assert_eq!(tried(&[fits(2), fits(1)], false), (Some(2), vec![4, 2]));
        assert_eq!(tried(&[(4, Tried::Refused), fits(2), fits(1)], false), (None, vec![4]));
        assert_eq!(tried(&[fits(4), (8, Tried::Refused)], false), (Some(4), vec![4, 8]));
    }
}
