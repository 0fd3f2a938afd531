//! `lambert report`: the page about runs.

use std::fs;

use serde_json::json;

use crate::common::{Workshop, refused, text};

/// Writes the metrics of a run whose loss falls from 7 by `slope` a step.
fn metrics(workshop: &Workshop, run: &str, slope: f64) {
    let mut lines = vec![json!({"kind": "start", "step": 0, "time": 0.0, "seconds": 1.0, "compiling": 0.5})];
    for step in 1..=400u64 {
        let loss = 7.0 - slope * step as f64;
        lines.push(json!({
            "kind": "train", "step": step, "time": step as f64, "loss": loss, "mlm_loss": loss, "grad_norm": 1.0 / step as f64,
            "learning_rate": 1e-3, "seconds": 0.5, "sequences_per_second": 64.0, "waiting_for_data": 0.01, "padding": 0.1,
            "trust_ratio_min": 0.01, "trust_ratio_median": 0.1, "trust_ratio_max": 1.0, "skipped": 0.0,
        }));
        if step % 100 == 0 {
            lines.push(json!({
                "kind": "evaluation", "step": step, "time": step as f64, "mlm_loss": loss, "mlm_loss_baseline": 6.5,
                "mlm_accuracy": 0.2, "mlm_accuracy_baseline": 0.05, "examples": 10.0, "seconds": 1.0,
            }));
            let ratios =
                |layer: usize| (format!("bert.encoder.layer.{layer}.output.dense.weight"), json!(0.01 * step as f64));
            let mut line = json!({"kind": "trust_ratios", "step": step, "time": step as f64});
            line.as_object_mut().unwrap().extend((0..12).map(ratios));
            lines.push(line);
        }
    }
    lines.push(json!({"kind": "divergence", "step": 400, "time": 401.0, "loss": 9.5}));
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    fs::create_dir_all(workshop.path(run)).unwrap();
    fs::write(workshop.path(run).join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
}

#[test]
fn the_page_of_one_run_has_its_curves_and_is_self_contained() {
    let workshop = Workshop::new();
    metrics(&workshop, "one", 0.01);
    assert!(text(&workshop.succeed(&["report", "one", "--out", "page.html"])).contains("page.html: 1 run"));
    let page = fs::read_to_string(workshop.path("page.html")).unwrap();
    for outside in ["http:", "https:", "src=", "<link", "<script", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    // The last evaluation with its baseline, and the totals: 400 steps of 32 sequences.
    for part in [">3.0000 (6.5000)<", ">12,800<", ">64.0<", "diverged (loss 9.5000)", "Learning rate", "layer.11"] {
        assert!(page.contains(part), "{part}");
    }
    let heat_map = page.split("trust ratio (dark").nth(1).unwrap().split("</figure>").next().unwrap();
    assert_eq!(heat_map.matches("<title>").count(), 12 * 4, "a cell for each layer and step");
    assert!(heat_map.contains("step 400: 4"), "{heat_map}");
}

#[test]
fn several_runs_are_compared_by_sequences_and_settings() {
    let workshop = Workshop::new();
    metrics(&workshop, "runs/lamb", 0.01);
    metrics(&workshop, "runs/adamw", 0.005);
    workshop.succeed(&["report", "runs", "--out", "page.html"]);
    let page = fs::read_to_string(workshop.path("page.html")).unwrap();
    assert!(page.contains("mlm loss by sequences") && page.contains("runs/adamw") && page.contains("runs/lamb"));
    assert!(page.find("runs/adamw") < page.find("runs/lamb"), "in the order of their names");
}

#[test]
fn other_directories_and_files_of_the_user_are_refused() {
    let workshop = Workshop::new();
    refused(&workshop.lambert(&["report", "data", "--out", "page.html"]), &["data holds no metrics.jsonl"]);
    refused(&workshop.lambert(&["report", "nowhere", "--out", "page.html"]), &["cannot list nowhere"]);
    metrics(&workshop, "one", 0.01);
    fs::write(workshop.path("mine.html"), "<p>mine</p>").unwrap();
    refused(
        &workshop.lambert(&["report", "one", "--out", "mine.html"]),
        &["mine.html exists and is no page of lambert"],
    );
    assert_eq!(fs::read_to_string(workshop.path("mine.html")).unwrap(), "<p>mine</p>");
}
