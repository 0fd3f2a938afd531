//! Packing keeps every example, fills rows, preserves the loss and gradients of plain rows with dropout, and gives the same
//! rows on every host.

use std::ops::Range;

use crate::common::Workshop;
use crate::common::packing::*;
use crate::common::steps::task;
use lambert::data::{self, ExampleConfig, Packing, PreparedData, Split, max_predictions_per_row};
use lambert::rng::{Key, Stream};
use lambert::runtime::backend::Evaluator;
use lambert::task::Precision;
use lambert::task::metric_names;
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_example_is_in_one_row_without_overlap(
        lengths in proptest::collection::vec(1usize..=64, 0..300),
        per_row in 1usize..6,
    ) {
        let packing = Packing::new(&lengths, 64, per_row);
        let mut seen = vec![0; lengths.len()];
        for row in packing.rows() {
            prop_assert!((1..=per_row).contains(&row.len()));
            let mut end = 0;
            for placed in row {
                prop_assert_eq!((placed.start, placed.length), (end, lengths[placed.example]));
                end += placed.length;
                seen[placed.example] += 1;
            }
            prop_assert!(end <= 64);
        }
        prop_assert!(seen.iter().all(|&times| times == 1));
    }

    #[test]
    fn every_masked_position_fits_in_its_row(
        lengths in proptest::collection::vec(5usize..=128, 1..200),
        per_row in 1usize..6,
        share in 0.01f64..0.5,
        most in 1usize..60,
    ) {
        let config = ExampleConfig { masked_lm_prob: share, ..ExampleConfig::bert(128, most) };
        let predicted = |length: usize| ((length as f64 * share).round_ties_even() as usize).max(1).min(most);
        let slots = max_predictions_per_row(&config, per_row);
        for row in Packing::new(&lengths, 128, per_row).rows() {
            let needed: usize = row.iter().map(|placed| predicted(placed.length)).sum();
            prop_assert!(needed <= slots, "{needed} masked positions, at most {slots} fit");
        }
    }
}

/// Returns a length distributed as in English Wikipedia at 512: 23.4 % are 512, 36.9 % at most 128, 56.6 % at most 256
/// (the histogram of graphcore/examples, tutorials/blogs_code/packedBERT/histograms.py).
fn length_as_in_wikipedia(stream: &mut Stream) -> usize {
    let within = |stream: &mut Stream, range: Range<u64>| stream.between(range.start, range.end - 1) as usize;
    match stream.uniform() {
        x if x < 0.369 => within(stream, 16..129),
        x if x < 0.566 => within(stream, 129..257),
        x if x < 0.766 => within(stream, 257..512),
        _ => 512,
    }
}

#[test]
fn rows_of_512_are_98_percent_full() {
    let mut stream = Key::new(3).stream();
    for sequences in [1024, 4096, 32768] {
        let lengths: Vec<usize> = (0..sequences).map(|_| length_as_in_wikipedia(&mut stream)).collect();
        let plain = lengths.iter().sum::<usize>() as f64 / (512 * sequences) as f64;
        let packed = Packing::new(&lengths, 512, 8).fill();
        assert!(plain < 0.55 && packed >= 0.98, "{sequences} sequences: {plain} plain, {packed} packed");
    }
}

#[test]
fn packed_loss_and_gradients_equal_plain_rows_with_dropout() {
    let samples = samples(8, small().vocab_size);
    let plain = batch(&plain_rows(&samples), false);
    let expected = gradients(&Evaluator { replicas: 1 }, Precision::F64, [8, 1], false, &plain);
    let loss = expected.last().unwrap().1[0];
    assert!(loss > 1.0 && loss.is_finite(), "{loss}");
    for (replicas, micro_batches) in [(1, 1), (1, 4), (1, 8), (2, 2)] {
        let packed = batch(&packed_rows(&samples, replicas), true);
        let found = gradients(&Evaluator { replicas }, Precision::F64, [8, micro_batches], true, &packed);
        assert_close(&found, &expected, 1e-11);
    }
}

/// An example of one segment has masked tokens but no next sentence; the mean NSP loss is over the other examples.
#[test]
fn example_without_nsp_label_counts_in_the_mlm_loss_only() {
    let (all, unlabelled) = (samples(8, small().vocab_size), 4);
    assert_eq!(all[unlabelled].label, -100.0);
    let backend = Evaluator { replicas: 1 };
    for packed in [false, true] {
        let losses = |label: f64| -> [f64; 2] {
            let mut samples = all.clone();
            samples[unlabelled].label = label;
            let rows = if packed { packed_rows(&samples, 1) } else { plain_rows(&samples) };
            let found = gradients(&backend, Precision::F64, [8, 2], packed, &batch(&rows, packed));
            let (name, metrics) = found.last().unwrap();
            assert_eq!(name, "metrics");
            let names = metric_names(&task(&small()));
            ["mlm_loss", "nsp_loss"].map(|loss| metrics[names.iter().position(|name| *name == loss).unwrap()])
        };
        let [[mlm, without], [mlm_follows, follows], [_, random]] = [-100.0, 0.0, 1.0].map(losses);
        assert_eq!(mlm, mlm_follows);
        // The NSP sums over eight and over seven sequences differ by −log p of the label. Both labels' p add up to one.
        let [p, q] = [follows, random].map(|mean| (7.0 * without - 8.0 * mean).exp());
        assert!((p + q - 1.0).abs() < 1e-9 && p > 0.1 && q > 0.1, "{p} and {q}");
    }
}

#[test]
fn packed_rows_are_host_independent_and_contain_the_examples_of_plain_rows() {
    let workshop = Workshop::new();
    let prepared = std::sync::Arc::new(PreparedData::open(&workshop.path("data")).unwrap());
    let config = ExampleConfig { short_seq_prob: 0.7, ..ExampleConfig::bert(48, 8) };
    let examples = data::Dataset::new(prepared, Split::Train, config).unwrap();
    // Across the end of an epoch.
    let (first, count, per_row) = (examples.epoch_len(0) - 20, 96, 4);
    let plain = examples.batch(first, count).unwrap();
    let of = |replicas, of| examples.packed_batch(first, count, per_row, replicas, of).unwrap();
    let whole = of(0..1, 1);
    assert_eq!(whole, of(0..1, 1));

    // Each host builds the rows of its replicas: concatenated, they are those of one host.
    let together = of(0..4, 4);
    for (name, tensor) in &together.clone().into_host(4).tensors {
        let parts = [of(0..1, 4), of(1..3, 4), of(3..4, 4)];
        let bytes: Vec<u8> =
            parts.iter().flat_map(|part| part.clone().into_host(1).tensor(name).unwrap().bytes().to_vec()).collect();
        assert_eq!(bytes, tensor.bytes(), "{name}");
    }

    // Rows are dealt in turn, so that no replica has more rows than the others.
    for row in 0..count {
        let dealt = row % 4 * (count / 4) + row / 4;
        assert_eq!(together.input_ids[dealt * 48..][..48], whole.input_ids[row * 48..][..48], "row {row}");
    }

    // The rows contain the tokens, types and targets of the plain batch, each example once.
    let packed = whole.packed.as_ref().unwrap();
    let mut seen = vec![0; count];
    let filled = (0..count).filter(|row| whole.attention_mask[row * 48] > 0).count();
    assert!(filled < count && whole.attention_mask[filled * 48..].iter().all(|&number| number == 0));
    for row in 0..filled {
        let numbers = &whole.attention_mask[row * 48..][..48];
        for k in 0..*numbers.iter().max().unwrap() as usize {
            let start = packed.cls_positions[row * per_row + k] as usize;
            let example = packed.example_ids[row * per_row + k] as usize;
            let length = numbers.iter().filter(|&&number| number == k as i32 + 1).count();
            let own = row * 48 + start..row * 48 + start + length;
            let there = example * 48..example * 48 + length;
            seen[example] += 1;
            assert_eq!(plain.attention_mask[example * 48..][..48].iter().sum::<i32>(), length as i32);
            assert_eq!(whole.input_ids[own.clone()], plain.input_ids[there.clone()]);
            assert_eq!(whole.token_type_ids[own.clone()], plain.token_type_ids[there]);
            assert!(packed.position_ids[own].iter().copied().eq(0..length as i32));
            assert_eq!(whole.next_sentence_labels[row * per_row + k], plain.next_sentence_labels[example]);
            let targets = |batch: &data::Batch, row: usize, from: usize, length: usize| -> Vec<(i32, i32)> {
                let slots = row * batch.max_predictions..(row + 1) * batch.max_predictions;
                slots
                    .filter(|&slot| batch.masked_lm_weights[slot] > 0.0)
                    .map(|slot| (batch.masked_lm_positions[slot] - from as i32, batch.masked_lm_ids[slot]))
                    .filter(|(position, _)| (0..length as i32).contains(position))
                    .collect()
            };
            assert_eq!(targets(&whole, row, start, length), targets(&plain, example, 0, 48));
        }
    }
    assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
    assert_eq!(whole.real_tokens(), plain.real_tokens());
}
