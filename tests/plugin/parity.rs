//! The step on a real plugin against the reference values of `fixtures/bert_small`: forward pass, every gradient by name,
//! every optimizer, for every split of the batch.

use crate::common::cpu;
use crate::common::parity::*;
use lambert::bert::{Recompute, Site, mask_graph};
use lambert::eval::evaluate;
use lambert::hlo;
use lambert::runtime::backend::Backend;
use lambert::shape::HostTensor;
use lambert::task::Precision;
use lambert::verify::{Check, Quantity, Split, VerifyOptions, dropout_losses, verify_splits};

#[test]
fn cpu_plugin_matches_the_reference_in_f32() {
    assert_parity(&cpu(1), &options(Precision::F32));
}

#[test]
fn cpu_plugin_matches_the_reference_in_f32_with_micro_batches_and_recomputation() {
    for (devices, micro_batches, recompute) in [(2, 2, Recompute::Attention), (1, 8, Recompute::Layer)] {
        let optimizer = Some("nvlamb".to_string());
        assert_parity(&cpu(devices), &VerifyOptions { micro_batches, recompute, optimizer, ..options(Precision::F32) });
    }
}

#[test]
fn every_split_of_the_batch_matches_the_reference_and_has_the_same_dropout_masks() {
    let (case, devices) = (case(), cpu(8));
    // The second split needs 32 rows, but the batch has 8; the rest is padding.
    let splits = [(2, 4), (8, 4)].map(|(devices, micro_batches)| Split { devices, micro_batches });
    assert_eq!(splits.map(|split| split.padding(8)), [0, 24]);
    let options = VerifyOptions { steps: Some(2), optimizer: Some("lamb".to_string()), ..options(Precision::F32) };
    let checked = verify_splits(&case, |n| devices.first(n), &splits, &options, |_, _| {}).unwrap();
    for split in &checked {
        let misses: Vec<&Check> = split.checks.iter().filter(|check| !check.ok).collect();
        assert!(misses.is_empty(), "{:?}: {misses:#?}", split.split);
        assert_eq!(split.checks.iter().filter(|check| check.quantity == Quantity::Dropout).count(), 1);
    }
    // The compared losses include dropout, which changes the first loss by hundreds of tolerances.
    let with = dropout_losses(&case, &devices.first(1), &options).unwrap();
    let without: Vec<f64> = case.trajectories[0].rows.iter().map(|row| row.loss).collect();
    assert_eq!(with.len(), 4);
    assert!((with[0] - without[0]).abs() > 2e-3, "{} with dropout, {} without", with[0], without[0]);
}

#[test]
fn cpu_plugin_matches_the_reference_in_f32_with_sharded_optimizer_state() {
    assert_parity(&cpu(4), &VerifyOptions { shard_optimizer: true, ..options(Precision::F32) });
}

#[test]
fn cpu_plugin_matches_the_reference_in_bf16() {
    let optimizer = Some("lamb".to_string());
    assert_parity(&cpu(1), &VerifyOptions { optimizer, ..options(Precision::Bf16) });
}

#[test]
fn dropout_masks_are_bit_identical_on_the_plugin_and_in_the_evaluator() {
    let (backend, host) = (cpu(1), |t: &HostTensor| t.to_f64());
    for site in [Site::Embeddings, Site::AttentionProbs(2), Site::Output(1)] {
        let computation = mask_graph(5, 700, 3, site, 0.1);
        let arguments = [HostTensor::new([2], &[7u32, !0]), HostTensor::scalar(123456u32), HostTensor::scalar(!2u32)];
        let expected = evaluate(&computation, &arguments).unwrap()[0].to_f64();
        let executable = backend.compile(&hlo::lower(&computation, &hlo::LowerOptions::default()).bytes).unwrap();
        let buffers: Vec<_> = arguments.iter().map(|t| backend.put(t, 0).unwrap()).collect();
        let outputs = executable.execute(&[buffers.iter().collect()]).unwrap();
        assert_eq!(host(&outputs[0][0].to_host().unwrap()), expected, "{site:?}");
    }
}
