//! Steps of `scripts/runs/tiny-64k-32k.toml`, with 65,536 and 32,768 sequences, on a real plugin: the update does not
//! depend on the micro-batch size and the number of devices.
//!
//! Needs a CPU plugin (`lambert plugin install cpu`, or `LAMBERT_PLUGIN`).

use std::collections::BTreeMap;

use crate::common::{Workshop, metrics};
use lambert::checkpoint::TensorFile;

/// Runs one step of each phase with the given split of the batch. Returns the losses, and the weights by name.
fn run(
    workshop: &Workshop,
    name: &str,
    devices: &str,
    micro_batches: [&str; 2],
) -> (Vec<f64>, BTreeMap<String, Vec<f64>>) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/runs/tiny-64k-32k.toml");
    let mut line = vec!["pretrain", file, "--platform", "cpu", "--devices", devices];
    let directory = format!("checkpoint.directory={name}");
    let [first, second] = micro_batches;
    let micro_batches = [format!("phase.1.micro_batch_size={first}"), format!("phase.2.micro_batch_size={second}")];
    let fixed = ["data.path=data", "phase.1.steps=1", "phase.2.steps=1", directory.as_str()];
    for setting in fixed.into_iter().chain(micro_batches.iter().map(String::as_str)) {
        line.extend(["--set", setting]);
    }
    workshop.succeed(&line);
    let metrics = metrics(&workshop.path(name));
    let losses = [1, 2].map(|step| metrics[&("train".to_owned(), step)]["loss"].as_f64().unwrap());
    let mut file = TensorFile::open(&workshop.path(name).join("step-00000002/model.safetensors")).unwrap();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let weights = names.into_iter().map(|name| (name.clone(), file.read(&name).unwrap().to_f64())).collect();
    (losses.to_vec(), weights)
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn steps_of_65_536_and_32_768_rows_are_independent_of_micro_batch_size_and_devices() {
    let workshop = Workshop::new();
    let (losses, weights) = run(&workshop, "coarse", "1", ["16384", "16384"]);
    let (cut_losses, cut_weights) = run(&workshop, "fine", "2", ["2048", "1024"]);
    for (step, (a, b)) in losses.iter().zip(&cut_losses).enumerate() {
        assert!((a - b).abs() < 1e-5, "step {}: loss {a} and {b}", step + 1);
    }
    assert_eq!(weights.len(), cut_weights.len());
    for (name, weight) in &weights {
        let cut = &cut_weights[name];
        let error = norm(weight.iter().zip(cut).map(|(a, b)| a - b)) / norm(weight.iter().copied()).max(1e-3);
        assert!(error < 1e-4, "{name}: relative error {error:.1e}");
    }
}
