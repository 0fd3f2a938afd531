//! Comparison of a backend with the reference values of `fixtures/bert_small`.

use std::path::Path;

use lambert::bert::{Layers, Recompute};
use lambert::runtime::backend::Backend;
use lambert::task::Precision;
use lambert::verify::reference::ReferenceCase;
use lambert::verify::{Check, VerifyOptions, verify};

pub fn case() -> ReferenceCase {
    ReferenceCase::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bert_small")).unwrap()
}

pub fn options(precision: Precision) -> VerifyOptions {
    VerifyOptions {
        precision,
        micro_batches: 1,
        recompute: Recompute::default(),
        layers: Layers::default(),
        shard_optimizer: false,
        steps: None,
        optimizer: None,
    }
}

/// Fails with the list of all misses.
pub fn assert_parity(backend: &impl Backend, options: &VerifyOptions) -> Vec<Check> {
    let checks = verify(&case(), backend, options, |_| {}).unwrap();
    let misses: Vec<&Check> = checks.iter().filter(|c| !c.ok).collect();
    assert!(misses.is_empty(), "{misses:#?}");
    checks
}
