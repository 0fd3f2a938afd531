//! Training runs of a small model: the loss falls below a baseline, does not depend on how the batch is split, and a
//! non-finite gradient stops the run.

use crate::common::{Workshop, metrics, text};

/// Returns the losses of the training steps, in order.
fn losses(workshop: &Workshop, run: &str) -> Vec<f64> {
    let metrics = metrics(&workshop.path(run));
    metrics.iter().filter(|((kind, _), _)| kind == "train").map(|(_, line)| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn small_model_beats_its_baselines() {
    let workshop = Workshop::new();
    workshop.run_file("run.toml", "run", |text| {
        let no_dropout = "hidden_size = 32\nhidden_dropout_prob = 0.0\nattention_probs_dropout_prob = 0.0";
        let text = text.replace("hidden_size = 16", no_dropout).replace("steps = 6", "steps = 1000");
        let text = text.replace("global_batch = 8\nmicro_batch_size = 4", "global_batch = 32\nmicro_batch_size = 32");
        text.replace("steps = 2 }", "proportion = 0.1 }").replace("every = 4", "every = 0").replace("0.01", "0.002")
    });
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let evaluate = ["evaluate", "run", "--data", "data", "--platform", "cpu", "--json"];
    let output = workshop.succeed(&evaluate);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let (loss, baseline) = (found["mlm_loss"].as_f64().unwrap(), found["mlm_loss_baseline"].as_f64().unwrap());
    assert!(loss < baseline - 0.4, "MLM loss {loss}, baseline {baseline}");
    let judged: Vec<&str> =
        found["learned_nothing"].as_array().unwrap().iter().filter_map(|head| head.as_str()).collect();
    assert!(!judged.contains(&"MLM"), "{judged:?}");
    assert_eq!(found["step"], 1004);

    // `lambert evaluate` on the same number of examples gives the last evaluation of the run.
    let again = workshop.succeed(&[&evaluate[..], &["--examples", "12", "--micro-batch-size", "8"]].concat());
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).expect("one JSON object");
    let last = &metrics(&workshop.path("run"))[&("evaluation".to_owned(), 1004)];
    for name in ["mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"] {
        let baseline = format!("{name}_baseline");
        assert!(last[name].is_number() && last[&baseline].is_number(), "{last}");
        assert_eq!((&last[name], &last[&baseline]), (&again[name], &again[&baseline]));
    }
    let printed = text(&workshop.succeed(&evaluate[..evaluate.len() - 1]));
    assert!(printed.contains("baseline") && printed.contains("difference"), "{printed}");

    // The logits of every position have the size of the model's vocabulary, without padding.
    workshop.succeed(&["evaluate", "run", "--data", "data", "--platform", "cpu", "--logits", "logits.safetensors"]);
    let bytes = std::fs::read(workshop.path("logits.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.tensor("seq_relationship_logits").unwrap().shape(), [4, 2]);
    let vocabulary = std::fs::read_to_string(workshop.path("tokenizer/vocab.txt")).unwrap().lines().count();
    assert_eq!(tensors.tensor("prediction_logits").unwrap().shape(), [4, 48, vocabulary]);
}

#[test]
fn losses_are_independent_of_micro_batch_size_and_devices() {
    let workshop = Workshop::new();
    for (name, micro, devices) in [("one_batch", "8", "1"), ("accumulated", "2", "1"), ("two_devices", "4", "2")] {
        let edit = |text: String| {
            text.replace("micro_batch_size = 4\nsteps = 6", &format!("micro_batch_size = {micro}\nsteps = 6"))
        };
        workshop.run_file(&format!("{name}.toml"), name, |text| {
            edit(text).replace("micro_batch_size = 4", "micro_batch_size = 2")
        });
        workshop.succeed(&["pretrain", &format!("{name}.toml"), "--platform", "cpu", "--devices", devices]);
    }
    let whole = losses(&workshop, "one_batch");
    assert_eq!(whole.len(), 10);
    for other in ["accumulated", "two_devices"] {
        for (step, (a, b)) in whole.iter().zip(losses(&workshop, other)).enumerate() {
            assert!((a - b).abs() < 1e-4, "{other}, step {}: {a} and {b}", step + 1);
        }
    }
}

#[test]
fn losses_are_those_of_unrolled_layers_if_the_layers_are_a_loop() {
    let workshop = Workshop::new();
    for form in ["unrolled", "loop"] {
        let (file, layers) = (format!("{form}.toml"), format!("compile.layers=\"{form}\""));
        workshop.run_file(&file, form, |text| text.replace("num_hidden_layers = 1", "num_hidden_layers = 4"));
        workshop.succeed(&["pretrain", &file, "--platform", "cpu", "--set", &layers]);
    }
    let unrolled = losses(&workshop, "unrolled");
    assert_eq!(unrolled.len(), 10);
    for (step, (a, b)) in unrolled.iter().zip(losses(&workshop, "loop")).enumerate() {
        assert!((a - b).abs() < 1e-4, "step {}: {a}, {b} in a loop", step + 1);
    }
}

#[test]
fn masked_lm_prob_of_a_phase_applies_to_that_phase_only() {
    let workshop = Workshop::new();
    workshop.run_file("same.toml", "same", |text| text);
    workshop.run_file("more.toml", "more", |text| {
        text.replace("max_predictions_per_seq = 8", "max_predictions_per_seq = 8\nmasked_lm_prob = 0.1")
    });
    for run in ["same.toml", "more.toml"] {
        workshop.succeed(&["pretrain", run, "--platform", "cpu"]);
    }
    let (same, more) = (losses(&workshop, "same"), losses(&workshop, "more"));
    assert_eq!(same[..6], more[..6], "the first phase has the same losses");
    assert_ne!(same[6], more[6], "the second phase starts from the same weights but has other masks");
}

#[test]
fn held_out_losses_can_be_compared_between_masking_rates() {
    let workshop = Workshop::new();
    workshop.run_file("same.toml", "same", |text| text);
    workshop.run_file("more.toml", "more", |text| {
        let masks = "masked_lm_prob = 0.4\nmask_shares = { masked = 1.0, random = 0.0, kept = 0.0 }";
        let text = text.replace("path = \"data\"", &format!("path = \"data\"\n{masks}"));
        text.replace("max_predictions_per_seq = 4", "max_predictions_per_seq = 10").replace("seq = 8", "seq = 20")
    });
    for run in ["same.toml", "more.toml"] {
        workshop.succeed(&["pretrain", run, "--platform", "cpu"]);
    }
    let [same, more] = ["same", "more"].map(|run| metrics(&workshop.path(run)));
    let key = |kind: &str, step| (kind.to_owned(), step);
    assert_eq!(same[&key("evaluation", 0)], more[&key("evaluation", 0)], "the same weights and examples");
    assert_ne!(same[&key("train", 1)]["loss"], more[&key("train", 1)]["loss"]);
    let baseline = |metrics: &std::collections::BTreeMap<_, serde_json::Value>| {
        metrics[&key("evaluation", 10)]["mlm_loss_baseline"].clone()
    };
    assert_eq!(baseline(&same), baseline(&more));
    // `lambert evaluate` measures at the rate of the run's `[evaluate]`, too.
    let evaluate = ["evaluate", "more", "--data", "data", "--platform", "cpu", "--json", "--examples", "12"];
    let found = workshop.succeed(&[&evaluate[..], &["--micro-batch-size", "8"]].concat());
    let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("one JSON object");
    assert_eq!(found["mlm_loss"], more[&key("evaluation", 10)]["mlm_loss"]);
}

#[test]
fn non_finite_gradients_stop_the_run_and_are_named() {
    let workshop = Workshop::new();
    // Weights of this size overflow in the first matrix product.
    workshop.run_file("bad.toml", "bad", |text| {
        text.replace("num_hidden_layers = 1", "num_hidden_layers = 1\ninitializer_range = 1e19")
    });
    let output = workshop.lambert(&["pretrain", "bad.toml", "--platform", "cpu"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let message = text(&output);
    assert!(message.contains("step 1: the gradient") && message.contains("not finite"), "{message}");
    assert!(message.contains("skip_non_finite") && message.contains("bert.embeddings"), "{message}");
    let saved = std::fs::read_dir(workshop.path("bad")).unwrap().flatten();
    assert_eq!(saved.filter(|entry| entry.file_name().to_string_lossy().starts_with("step-")).count(), 0);
}
