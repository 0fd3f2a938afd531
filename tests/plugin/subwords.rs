//! Byte-level BPE and Unigram from training to predictions, in the forms that a user runs.

use std::fs;

use crate::common::{Workshop, refused, text};

#[test]
fn models_with_other_tokenizers_train_resume_export_and_predict() {
    let workshop = Workshop::new();
    for model in ["bpe", "unigram"] {
        let (data, run) = (format!("{model}-data"), format!("{model}-run"));
        let (file, exported) = (format!("{model}.toml"), format!("{model}-exported"));
        let train = ["tokenizer", "train", "text.txt", "--model", model, "--vocab-size", "320", "--out", model];
        workshop.succeed(&train);
        workshop.succeed(&["prepare", "text.txt", "--tokenizer", model, "--held-out", "0.2", "--out", &data]);
        let path = format!("path = \"{data}\"\nwhole_word_mask = true");
        workshop.run_file(&file, &run, |text| text.replace("path = \"data\"", &path));
        workshop.succeed(&["pretrain", &file, "--platform", "cpu"]);
        // Data with another tokenizer is refused, whatever changes are accepted.
        let resume =
            |file: &str| workshop.lambert(&["pretrain", file, "--platform", "cpu", "--resume", "--accept-changes"]);
        workshop.run_file("other.toml", &run, |text| text.replace("steps = 4", "steps = 6"));
        refused(&resume("other.toml"), &["vocabularies"]);
        workshop.run_file(&file, &run, |text| text.replace("path = \"data\"", &path).replace("steps = 4", "steps = 6"));
        let resumed = resume(&file);
        assert!(resumed.status.success(), "{}", text(&resumed));

        workshop.succeed(&["export", &run, "--out", &exported]);
        let read = |directory: &str, name: &str| fs::read_to_string(workshop.path(directory).join(name)).unwrap();
        assert_eq!(read(&exported, "tokenizer.json"), read(model, "tokenizer.json"));
        assert!(
            read(&exported, "tokenizer_config.json").contains("\"model_max_length\": 48"),
            "the length of the model"
        );
        assert!(!workshop.path(&exported).join("vocab.txt").exists());

        fs::write(workshop.path("masked.txt"), "The cat sees the <mask>.\n").unwrap();
        let predict = ["predict", &exported, "masked.txt", "--platform", "cpu", "--json"];
        let predicted: serde_json::Value = serde_json::from_slice(&workshop.succeed(&predict).stdout).unwrap();
        let best = &predicted["masks"][0][0];
        let filled = best["text"].as_str().unwrap();
        assert!(filled.starts_with("The cat sees the") && !filled.contains(['Ġ', '▁']), "{filled}");
        fs::write(workshop.path("other.txt"), "The cat sees the [MASK].\n").unwrap();
        let without = workshop.lambert(&["predict", &exported, "other.txt", "--platform", "cpu"]);
        refused(&without, &["line 1", "<mask>"]);
    }
}
