//! Continued pretraining of a model that another program wrote, on the CPU plugin: extension of its vocabulary, training from its
//! weights without a `[model]` table, and export.

use lambert::data::Vocabulary;

use crate::common::{Workshop, metrics, text};

const POOLING: &str = "{\"pooling_mode_mean_tokens\":  true}";

#[test]
fn a_public_model_is_extended_trained_and_exported() {
    let workshop = Workshop::new();
    let read = |name: &str| std::fs::read_to_string(workshop.path(name)).unwrap();
    let write = |name: &str, text: &str| std::fs::write(workshop.path(name), text).unwrap();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    workshop.succeed(&["export", "run", "--architecture", "BertForMaskedLM", "--out", "bert"]);
    write("bert/modules.json", "[ ]");
    std::fs::create_dir(workshop.path("bert/1_Pooling")).unwrap();
    write("bert/1_Pooling/config.json", POOLING);

    let own = read("text.txt").replace("river", "zebrafish").replace("queen", "quokka");
    write("own.txt", &own);
    workshop.succeed(&["tokenizer", "extend", "bert", "own.txt", "--pieces", "2", "--out", "extended"]);
    workshop.succeed(&["prepare", "own.txt", "--tokenizer", "extended", "--held-out", "0.2", "--out", "own"]);
    let tokens = Vocabulary::read(&workshop.path("extended/vocab.txt")).unwrap();
    assert!(tokens.tokens().iter().any(|token| token == "zebrafish"), "{:?}", tokens.tokens());

    // No [model]: the configuration is that of the weights.
    let continued = |text: String| {
        let (before, after) = (text.find("[model]").unwrap(), text.find("[optimizer]").unwrap());
        format!("import = \"extended\"\n{}{}", &text[..before], &text[after..])
            .replace("path = \"data\"", "path = \"own\"")
    };
    workshop.run_file("continued.toml", "continued", continued);
    let output = text(&workshop.succeed(&["pretrain", "continued.toml", "--platform", "cpu"]));
    assert!(output.contains("weights: imported from extended"), "{output}");
    let found = metrics(&workshop.path("continued"));
    let loss = |step: u64| found[&("evaluation".to_owned(), step)]["mlm_loss"].as_f64().unwrap();
    assert!(loss(10) < loss(0), "{} at the end, {} before the first step", loss(10), loss(0));

    workshop.succeed(&["export", "continued", "--out", "exported"]);
    let config: serde_json::Value = serde_json::from_str(&read("exported/config.json")).unwrap();
    assert_eq!(config["vocab_size"], tokens.len());
    for name in ["vocab.txt", "modules.json", "1_Pooling/config.json"] {
        assert_eq!(read(&format!("exported/{name}")), read(&format!("extended/{name}")), "{name}");
    }
    assert_eq!(read("exported/1_Pooling/config.json"), POOLING);

    // Data of the old vocabulary do not fit.
    workshop.run_file("old.toml", "old", |text| continued(text).replace("path = \"own\"", "path = \"data\""));
    let refused = workshop.lambert(&["pretrain", "old.toml", "--platform", "cpu"]);
    assert!(!refused.status.success() && text(&refused).contains("different vocabularies"), "{}", text(&refused));
}

#[test]
fn the_files_of_modules_survive_a_resumption() {
    let workshop = Workshop::new();
    let write = |name: &str, text: &str| std::fs::write(workshop.path(name), text).unwrap();
    workshop.run_file("run.toml", "run", |text| text);
    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    workshop.succeed(&["export", "run", "--out", "bert"]);
    write("bert/modules.json", "[ ]");
    std::fs::create_dir(workshop.path("bert/1_Pooling")).unwrap();
    write("bert/1_Pooling/config.json", POOLING);
    workshop.succeed(&["import", "bert", "--out", "further"]);
    // Checkpoints of every second step, of which the newest stays; older ones are removed with the folders of their modules.
    workshop.run_file("further.toml", "further", |text| text.replace("every = 0\nkeep = 0", "every = 2\nkeep = 1"));
    workshop.succeed(&["pretrain", "further.toml", "--platform", "cpu", "--resume"]);
    let left: Vec<String> = std::fs::read_dir(workshop.path("further"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("step-"))
        .collect();
    assert_eq!(left, ["step-00000010"]);
    let pooling = std::fs::read_to_string(workshop.path("further/step-00000010/1_Pooling/config.json"));
    assert_eq!(pooling.unwrap(), POOLING);
}
