//! `lambert study` refuses study files that are not fair or not possible, before it trains.

use crate::common::{Workshop, refused};

const STUDY: &str = r#"
name = "small"
base = "base.toml"
directory = "small"
sequences = [64]
batches = [8, 32]
seeds = [1, 2]

[[optimizer]]
name = "LAMB"
table = { preset = "paper" }
space = { "phase.1.learning_rate" = [0.02, 0.04] }

[[optimizer]]
name = "AdamW"
table = { kind = "adamw" }
space = { "phase.1.learning_rate" = [0.001, 0.002] }
"#;

#[test]
fn study_files_that_are_unfair_or_impossible_are_refused() {
    let workshop = Workshop::new();
    workshop.run_file("two.toml", "two", |text| text);
    workshop.run_file("base.toml", "base", |text| text.rsplit_once("[[phase]]").unwrap().0.to_owned());
    for (from, to, expected) in [
        ("[0.001, 0.002]", "[0.001]", "the same number of trials for every optimizer, got LAMB 2, AdamW 1"),
        ("seeds = [1, 2]", "seeds = [0, 1]", "seeds requires other seeds than tuning_seed, got 0 in both"),
        ("batches = [8, 32]", "batches = [8, 8]", "batches requires different numbers, got [8, 8]"),
        ("batches = [8, 32]", "batches = [8, 128]", "sequences requires at least the largest of batches (128), got 64"),
        ("base.toml", "two.toml", "a study requires a run file with one [[phase]], got 2"),
        ("base.toml", "none.toml", "cannot read the run file none.toml"),
        ("seeds = ", "sedes = ", "unknown key `sedes`"),
        (
            "seeds = ",
            "metric = \"mlm_accuracy\"\nseeds = ",
            "metric requires one of mlm_loss, nsp_loss, got \"mlm_accuracy\"",
        ),
        ("seeds = ", "target = inf\nseeds = ", "target requires a finite number, got inf"),
        ("preset = \"paper\"", "preset = \"papre\"", "papre"),
        ("[0.02, 0.04]", "{ min = 0.1, max = 0.2 }", "requires a list of values, got a range"),
        ("phase.1.learning_rate\" = [0.02", "phase.1.learning_rat\" = [0.02", "unknown key `learning_rat`"),
        ("name = \"AdamW\"", "name = \"LAMB\"", "two optimizers have the name \"LAMB\""),
        (
            "[[optimizer]]\nname = \"LAMB\"",
            "[search]\nkind = \"random\"\ntrials = 0\n[[optimizer]]\nname = \"LAMB\"",
            "search.trials requires at least 1",
        ),
    ] {
        assert!(STUDY.contains(from), "{from}");
        std::fs::write(workshop.path("study.toml"), STUDY.replacen(from, to, 1)).unwrap();
        let output = workshop.lambert(&["study", "study.toml", "--plan"]);
        refused(&output, &[expected]);
        assert!(!workshop.path("small").exists());
    }
    refused(&workshop.lambert(&["study", "no.toml"]), &["cannot read the study file no.toml"]);
}
