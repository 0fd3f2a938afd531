//! The linear probe against scikit-learn on the same features. scripts/check/probe_reference.py computes the reference
//! values.

use std::fs;
use std::path::Path;

use lambert::probe::{Features, Probe, cross_validated_accuracy};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    rows: usize,
    width: usize,
    classes: usize,
    /// One digit a row.
    labels: String,
    accuracies: Vec<f64>,
    coefficients: Vec<Vec<f64>>,
}

impl Case {
    /// Returns the features of the script's formula; feature 3 is constant.
    fn features(&self) -> Vec<f32> {
        let feature = |i: usize, k: usize| {
            let (row, column) = (i as f64, k as f64);
            let wave = (0.37 * (row + 1.0) * (column + 1.0) + 0.01 * row * row).sin();
            if k == 3 { 0.1 } else { wave * (1 + k % 5) as f64 + 0.5 * column }
        };
        let row = |i: usize| (0..self.width).map(move |k| feature(i, k) as f32);
        (0..self.rows).flat_map(row).collect()
    }

    fn labels(&self) -> Vec<usize> {
        self.labels.bytes().map(|digit| usize::from(digit - b'0')).collect()
    }
}

fn reference() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/probe.json");
    serde_json::from_str::<Reference>(&fs::read_to_string(path).unwrap()).unwrap().cases
}

#[test]
fn accuracies_of_the_folds_equal_scikit_learn() {
    for case in reference() {
        let (values, labels) = (case.features(), case.labels());
        let features = Features::new(case.rows, case.width, &values);
        let score = cross_validated_accuracy(&features, &labels, case.classes).unwrap();
        assert_eq!(score.folds, case.accuracies, "{} rows", case.rows);
        let mean = case.accuracies.iter().sum::<f64>() / case.accuracies.len() as f64;
        assert!((score.accuracy - mean).abs() < 1e-15);
    }
}

#[test]
fn coefficients_equal_scikit_learn() {
    for case in reference() {
        let values = case.features();
        let probe = Probe::fit(&Features::new(case.rows, case.width, &values), &case.labels(), case.classes).unwrap();
        let ours: Vec<f64> = probe.coefficients().flatten().copied().collect();
        let theirs: Vec<f64> = case.coefficients.concat();
        assert_eq!(ours.len(), theirs.len());
        let largest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(largest < 1e-5, "{} rows: coefficients differ by {largest:e}", case.rows);
    }
}

#[test]
fn probe_reads_a_dev_set_with_the_standardisation_of_its_training_set() {
    let case = &reference()[2];
    let (values, labels) = (case.features(), case.labels());
    let (training, dev) = values.split_at(200 * case.width);
    let probe = Probe::fit(&Features::new(200, case.width, training), &labels[..200], 2).unwrap();
    let dev = Features::new(40, case.width, dev);
    let correct = probe.predict(&dev).unwrap().iter().zip(&labels[200..]).filter(|(a, b)| a == b).count();
    assert_eq!(probe.accuracy(&dev, &labels[200..]).unwrap(), correct as f64 / 40.0);
    // One row at a time gives the same predictions as all rows.
    let alone = |row: &[f32]| probe.predict(&Features::new(1, case.width, row)).unwrap()[0];
    let one_by_one: Vec<usize> = values[200 * case.width..].chunks(case.width).map(alone).collect();
    assert_eq!(probe.predict(&dev).unwrap(), one_by_one);
}
