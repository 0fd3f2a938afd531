//! The average of the weights in runs: exact resumption, sharding, evaluations, and its export.

use lambert::checkpoint::{Checkpoint, Contents, load};
use lambert::run::weights::open_model;

use crate::common::{Workshop, metrics, refused, text};

fn last(workshop: &Workshop, run: &str) -> Checkpoint {
    load(&workshop.path(run).join("step-00000010"), Contents::All).unwrap()
}

/// Returns the averages of a checkpoint.
fn averages(checkpoint: &Checkpoint) -> Vec<(String, Vec<f64>)> {
    let of_average =
        checkpoint.optimizer.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("ema/")?, tensor)));
    of_average.map(|(name, tensor)| (name.to_owned(), tensor.to_f64())).collect()
}

#[test]
fn averages_are_those_of_the_checkpoints_and_survive_resumption_and_sharding() {
    let workshop = Workshop::new();
    for run in ["straight", "resumed", "sharded"] {
        workshop.run_file(&format!("{run}.toml"), run, |text| {
            let text = text.replace("[evaluate]", "[ema]\ndecay = 0.5\n[evaluate]").replace("every = 0", "every = 1");
            // The second phase resets the moments, but not the averages.
            text + "carry_moments = false\n"
        });
    }
    workshop.succeed(&["pretrain", "straight.toml", "--platform", "cpu"]);
    // The loop over the weights of all checkpoints.
    let initial = std::fs::read_dir(workshop.path("straight")).unwrap().flatten();
    assert_eq!(initial.filter(|entry| entry.file_name().to_string_lossy().starts_with("step-")).count(), 10);
    let at = |step: u64| load(&workshop.path(&format!("straight/step-{step:08}")), Contents::All).unwrap();
    let mut expected = averages(&at(1));
    for step in 2..=10 {
        let (n, checkpoint) = ((step - 1) as f64, at(step));
        let decay = 0.5f64.min((1.0 + n) / (10.0 + n));
        let found = averages(&checkpoint);
        for (((name, average), (_, weight)), (_, found)) in expected.iter_mut().zip(&checkpoint.model).zip(&found) {
            for ((average, weight), found) in average.iter_mut().zip(weight.to_f64()).zip(found) {
                *average = decay * *average + (1.0 - decay) * weight;
                assert!((*average - found).abs() < 1e-6, "{name} at step {step}: {found} and {average}");
                *average = *found;
            }
        }
    }

    // A copy of the checkpoint of step 5 is resumed, in the middle of the first phase.
    let [from, to] = ["straight", "resumed"].map(|run| workshop.path(run).join("step-00000005"));
    std::fs::create_dir_all(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap().flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    workshop.succeed(&["pretrain", "resumed.toml", "--platform", "cpu", "--resume"]);
    let (straight, resumed) = (last(&workshop, "straight"), last(&workshop, "resumed"));
    assert_eq!((&resumed.model, &resumed.optimizer), (&straight.model, &straight.optimizer));
    let [straight_metrics, resumed_metrics] = ["straight", "resumed"].map(|run| metrics(&workshop.path(run)));
    let key = ("evaluation".to_owned(), 10);
    assert_eq!(straight_metrics[&key], resumed_metrics[&key]);
    let loss = |name: &str| straight_metrics[&key][name].as_f64().expect("a number");
    assert!(loss("ema_mlm_loss").is_finite() && loss("ema_mlm_loss") != loss("mlm_loss"));

    let sharded =
        ["--devices", "2", "--set", "parallel.optimizer_sharding=sharded", "--set", "phase.1.micro_batch_size=2"];
    let sharded = [&sharded[..], &["--set", "phase.2.micro_batch_size=2"]].concat();
    workshop.succeed(&[&["pretrain", "sharded.toml", "--platform", "cpu"], &sharded[..]].concat());
    for ((name, found), (_, expected)) in averages(&last(&workshop, "sharded")).iter().zip(&averages(&straight)) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-3, "{name}: {found} and {expected}");
        }
    }

    // The averages are exported, and evaluated as the run evaluated them.
    workshop.succeed(&["export", "straight", "--weights", "ema", "--out", "exported"]);
    let exported = open_model(&workshop.path("exported")).unwrap().checkpoint.model;
    for ((name, found), (of, expected)) in exported.iter().zip(&averages(&straight)) {
        assert_eq!((name, &found.to_f64()), (of, expected));
    }
    let examples = straight_metrics[&key]["examples"].as_f64().expect("a number").to_string();
    let evaluate = ["evaluate", "straight/step-00000010", "--data", "data", "--platform", "cpu", "--json"];
    let evaluated = |weights: &str| {
        let output = workshop.succeed(&[&evaluate[..], &["--examples", &examples, "--weights", weights]].concat());
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        object["mlm_loss"].as_f64().expect("a number")
    };
    for (weights, recorded) in [("ema", loss("ema_mlm_loss")), ("model", loss("mlm_loss"))] {
        assert!((evaluated(weights) - recorded).abs() < 1e-5, "{weights}");
    }
    workshop.succeed(&["pretrain", "straight.toml", "--platform", "cpu", "--resume"]);
    let other = ["pretrain", "straight.toml", "--platform", "cpu", "--resume", "--set", "ema.decay=0.9"];
    refused(&workshop.lambert(&other), &["other settings (ema.decay)"]);
}

#[test]
fn the_best_checkpoint_may_be_that_of_the_averages() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| {
        text.replace("[evaluate]", "[ema]\ndecay = 0.5\n[evaluate]\nmetric = \"ema_mlm_loss\"")
            .replace("every = 0", "every = 1")
    });
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let values = metrics(&workshop.path("run"));
    let evaluations = values.iter().filter(|((kind, step), _)| kind == "evaluation" && *step > 0);
    let losses: Vec<(u64, f64)> =
        evaluations.map(|((_, step), line)| (*step, line["ema_mlm_loss"].as_f64().expect("a number"))).collect();
    let best = last(&workshop, "run").state.best.expect("the run selects a checkpoint");
    assert_eq!(best.metric, "ema_mlm_loss");
    assert!(losses.len() > 2 && losses.contains(&(best.step, best.value)), "{best:?} of {losses:?}");
    assert!(losses.iter().all(|(_, loss)| *loss >= best.value), "{best:?} of {losses:?}");
    workshop
        .run_file("plain.toml", "plain", |text| text.replace("[evaluate]", "[evaluate]\nmetric = \"ema_mlm_loss\""));
    let plain = workshop.lambert(&["pretrain", "plain.toml", "--platform", "cpu"]);
    refused(&plain, &["[evaluate] metric requires one of mlm_loss", "got \"ema_mlm_loss\""]);
}

#[test]
fn a_run_may_begin_and_end_to_average() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    refused(
        &workshop.lambert(&["export", "run", "--weights", "ema", "--out", "none"]),
        &["holds no averages of the weights", "[ema]"],
    );
    let resume = ["pretrain", "run.toml", "--platform", "cpu", "--resume", "--accept-changes"];
    workshop.succeed(&[&resume[..], &["--set", "phase.2.steps=5", "--set", "ema.decay=0.5"]].concat());
    let newest = |step| load(&workshop.path(&format!("run/step-{step:08}")), Contents::All).unwrap();
    assert!(!averages(&newest(11)).is_empty());
    let printed = text(&workshop.succeed(&[&resume[..], &["--set", "phase.2.steps=6"]].concat()));
    assert!(printed.contains("resuming with changed settings"), "{printed}");
    assert!(averages(&newest(12)).is_empty());
}
