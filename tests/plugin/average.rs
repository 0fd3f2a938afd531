//! Averages of checkpoints: their weights, the comparison with the last checkpoint, and what can be done with them.

use lambert::checkpoint::{Contents, open};
use serde_json::Value;

use crate::common::{Workshop, refused, text};

#[test]
fn an_average_of_the_last_checkpoints_is_compared_exported_and_trained_further() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text.replace("every = 0", "every = 2"));
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let average = ["average", "run", "--last", "3", "--out", "mean", "--platform", "cpu"];
    let printed = text(&workshop.succeed(&average));
    assert!(printed.contains("averaged 3 checkpoints (steps 6, 8, 10) into mean/step-00000010"), "{printed}");
    let header = printed.lines().find(|line| line.contains("held-out") && line.contains("baseline")).unwrap();
    assert_eq!(
        header.split_whitespace().collect::<Vec<_>>(),
        ["held-out", "step", "10", "average", "baseline", "difference"]
    );

    // The numbers are those of `lambert evaluate`.
    let json =
        |line: &[&str]| -> Value { serde_json::from_slice(&workshop.succeed(line).stdout).expect("one JSON object") };
    let steps = ["run/step-00000008", "run/step-00000010"];
    let two = ["--out", "two", "--data", "data", "--json", "--platform", "cpu"];
    let found = json(&[&["average"], &steps[..], &two].concat());
    for (model, key) in [("run/step-00000010", "last_evaluation"), ("two", "average_evaluation")] {
        let evaluated = json(&["evaluate", model, "--data", "data", "--json", "--platform", "cpu"]);
        assert_eq!(evaluated["mlm_loss"], found[key]["mlm_loss"], "{model}");
    }
    assert_ne!(found["last_evaluation"]["mlm_loss"], found["average_evaluation"]["mlm_loss"]);
    let mean = open(&workshop.path("two"), Contents::ModelOnly).unwrap().checkpoint.model;
    let [one, other] = steps.map(|step| open(&workshop.path(step), Contents::ModelOnly).unwrap().checkpoint.model);
    for (((_, mean), (_, one)), (name, other)) in mean.iter().zip(&one).zip(&other) {
        let expected = one.to_f64().into_iter().zip(other.to_f64()).map(|(a, b)| f64::from(f64::midpoint(a, b) as f32));
        assert_eq!(mean.to_f64(), expected.collect::<Vec<_>>(), "{name}");
    }

    workshop.succeed(&["export", "mean", "--out", "exported"]);
    std::fs::write(workshop.path("masks.txt"), "the [MASK] sees the river .\n").unwrap();
    workshop.succeed(&["predict", "mean", "masks.txt", "--platform", "cpu"]);
    workshop.run_file("further.toml", "further", |text| {
        text.replace("name = \"small\"", "name = \"small\"\nimport = \"mean\"")
    });
    let further = text(&workshop.succeed(&["pretrain", "further.toml", "--platform", "cpu"]));
    assert!(further.contains("weights: imported from mean"), "{further}");

    refused(&workshop.lambert(&average), &["mean requires a new or empty directory, found other content"]);
    let more = ["average", "run", "--last", "6", "--out", "none", "--platform", "cpu"];
    refused(&workshop.lambert(&more), &["the last 6 checkpoints", "found 5"]);
    assert!(!workshop.path("none").exists());
}
