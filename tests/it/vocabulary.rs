//! Models that another program wrote: extension of their vocabulary, and import and export before a step. Nothing here needs a device.

use std::fs;
use std::path::{Path, PathBuf};

use lambert::bert::{BertConfig, Head, param_specs_of};
use lambert::checkpoint::{Checkpoint, Keep, RunDirectory, State};
use lambert::data::{Tokenizer, Vocabulary};
use lambert::run::weights::{config_json, open_model};
use lambert::shape::HostTensor;
use serde_json::Value;

use crate::common::{Workshop, refused, text};

const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const BIAS: &str = "cls.predictions.bias";

/// The files of sentence-transformers beside a model, with bytes that no program would write again.
const SENTENCE_TRANSFORMERS: [(&str, &str); 4] = [
    ("modules.json", "[ {\"idx\":0,  \"path\": \"\"},\n{\"idx\":1, \"path\": \"1_Pooling\"}]"),
    ("sentence_bert_config.json", "{\"max_seq_length\" :24}"),
    ("config_sentence_transformers.json", "{ }"),
    ("1_Pooling/config.json", "{\"pooling_mode_mean_tokens\":true }\n\n"),
];

/// A workshop with `bert`, the model of a Hugging Face directory with three entries `[unused…]` and two rows more than tokens, and
/// `more.txt`, a text with words that its tokenizer splits.
struct Models(Workshop);

impl Models {
    fn new() -> Models {
        let models = Models(Workshop::new());
        let config = models.write_checkpoint("run");
        models.succeed(&["export", "run", "--out", "bert"]);
        assert_eq!(config.vocab_size, models.tokens("bert").len() + 2);
        let document =
            |n: usize| format!("{}The zebra sees a zebrawood. A wooden zebra, the queen!\n\n", "A zebra. ".repeat(n));
        models.write("more.txt", &(0..40).map(document).collect::<String>());
        models
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        text(&self.0.succeed(arguments))
    }

    /// Runs `tokenizer extend` with `--json` and returns its report.
    fn extend(&self, arguments: &[&str]) -> Value {
        let output = self.0.succeed(&[&["tokenizer", "extend"], arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn tokens(&self, directory: &str) -> Vec<String> {
        Vocabulary::read(&self.path(directory).join("vocab.txt")).unwrap().tokens().to_vec()
    }

    /// Returns the rows of a tensor of the Hugging Face directory `name`, as many as the vocabulary size of its configuration.
    fn rows(&self, name: &str, tensor: &str) -> Vec<Vec<f64>> {
        let found = open_model(&self.path(name)).unwrap();
        let (_, tensor): &(String, HostTensor) =
            found.checkpoint.model.iter().find(|(found, _)| found == tensor).expect("the tensor");
        let values = tensor.to_f64();
        let width = values.len() / tensor.shape().dims[0];
        values.chunks(width).take(found.config.vocab_size).map(<[f64]>::to_vec).collect()
    }

    /// Writes a checkpoint with random weights and biases; its tokenizer is that of the data, with three entries `[unused…]`.
    fn write_checkpoint(&self, run: &str) -> BertConfig {
        let tokens: Vec<String> =
            self.tokens("tokenizer").into_iter().chain((0..3).map(|n| format!("[unused{n}]"))).collect();
        let config = BertConfig::from_json(&format!(
            r#"{{"vocab_size": {}, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
            "hidden_act": "gelu", "max_position_embeddings": 48}}"#,
            tokens.len() + 2
        ));
        let config = config.unwrap();
        let tokenizer = Tokenizer::open(&self.path("tokenizer"), false).unwrap();
        let tokenizer = Tokenizer::new(Vocabulary::new(tokens).unwrap(), tokenizer.word_piece().unwrap().rules());
        let keys = Value::Object(config_json(&config, &Head::Pretraining).unwrap());
        let mut files = vec![("config.json".to_owned(), keys.to_string().into_bytes())];
        files.extend(tokenizer.files().into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())));
        let mut model: Vec<(String, HostTensor)> = param_specs_of(&config, &Head::Pretraining)
            .iter()
            .map(|spec| (spec.name.clone(), spec.initial(1)))
            .collect();
        let (_, bias) = model.iter_mut().find(|(name, _)| name == BIAS).unwrap();
        let values: Vec<f32> = (0..bias.shape().dims[0]).map(|row| -(row as f32) / 16.0).collect();
        *bias = HostTensor::new(bias.shape().dims.clone(), &values);
        let checkpoint = Checkpoint { state: State::default(), model, optimizer: Vec::new(), files };
        RunDirectory::new(&self.path(run), Keep::ALL).save(&checkpoint).unwrap();
        config
    }

    /// Writes the files of sentence-transformers into `directory`.
    fn add_modules(&self, directory: &str) {
        SENTENCE_TRANSFORMERS.iter().for_each(|(name, text)| self.write(&format!("{directory}/{name}"), text));
    }

    #[track_caller]
    fn assert_modules(&self, directory: &str) {
        for (name, text) in SENTENCE_TRANSFORMERS {
            assert_eq!(self.read(&format!("{directory}/{name}")), text.as_bytes(), "{directory}/{name}");
        }
    }
}

fn mean(rows: &[Vec<f64>], ids: &[usize]) -> Vec<f64> {
    (0..rows[0].len()).map(|i| ids.iter().map(|&id| rows[id][i]).sum::<f64>() / ids.len() as f64).collect()
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    let close = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
    assert!(found.len() == expected.len() && close, "{what}: {found:?}, expected {expected:?}");
}

#[test]
fn an_extended_model_is_an_ordinary_hugging_face_directory() {
    let models = Models::new();
    models.add_modules("bert");
    let report = models.extend(&["bert", "more.txt", "--pieces", "6", "--out", "extended"]);
    let (old, new) = (models.tokens("bert"), models.tokens("extended"));
    let pieces = report["new_pieces"].as_array().unwrap();
    assert!(pieces.len() > 3, "{report}");
    assert_eq!(
        (report["replaced_unused"].as_u64(), report["architecture"].as_str()),
        (Some(3), Some("BertForPreTraining"))
    );
    assert_eq!(new.len(), old.len() + pieces.len() - 3);
    for share in ["chosen_on", "held_out"] {
        let fertility = |side: &str| report[share][side]["pieces_per_word"].as_f64().unwrap();
        assert!(fertility("after") < fertility("before"), "{share}: {report}");
    }
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    for tensor in [WORDS, BIAS] {
        let [before, after] = ["bert", "extended"].map(|name| models.rows(name, tensor));
        assert_eq!(after.len(), new.len().max(before.len()));
        let added: Vec<usize> = pieces.iter().map(|piece| number(&piece["id"])).collect();
        for (id, row) in before.iter().enumerate().filter(|(id, _)| !added.contains(id)) {
            assert_eq!(*row, after[id], "{tensor}: row {id} stays");
        }
        for piece in pieces {
            let ids: Vec<usize> = piece["old_pieces"].as_array().unwrap().iter().map(number).collect();
            assert_close(&after[number(&piece["id"])], &mean(&before, &ids), &format!("{tensor}: {piece}"));
            assert_eq!(new[number(&piece["id"])], piece["token"]);
        }
    }
    models.assert_modules("extended");

    // The other rows of new pieces, and all pieces behind the last token.
    let more = ["bert", "more.txt", "--pieces", "2", "--keep-unused"];
    let report = models.extend(&[&more[..], &["--rows", "vocabulary", "--out", "vocabulary"]].concat());
    let first = number(&report["new_pieces"][0]["id"]);
    assert_eq!((first, number(&report["replaced_unused"])), (old.len(), 0));
    let before = models.rows("bert", WORDS);
    let all: Vec<usize> = (0..before.len()).collect();
    assert_close(&models.rows("vocabulary", WORDS)[first], &mean(&before, &all), "mean of the vocabulary");
    models.extend(&[&more[..], &["--rows", "random", "--out", "random"]].concat());
    assert_eq!(models.rows("random", BIAS)[first], [0.0]);

    // It is imported and exported, and its tokenizer prepares data and encodes.
    models.succeed(&["import", "extended", "--out", "imported"]);
    models.succeed(&["export", "imported", "--out", "again"]);
    assert_eq!(models.read("again/model.safetensors"), models.read("extended/model.safetensors"));
    assert_eq!(models.read("again/tokenizer.json"), models.read("extended/tokenizer.json"));
    let token = pieces[0]["token"].as_str().unwrap();
    models.write("word.txt", token.trim_start_matches('#'));
    let encoded = models.succeed(&["tokenizer", "encode", "word.txt", "--tokenizer", "extended"]);
    assert!(encoded.contains(&format!("\"ids\":[{}]", pieces[0]["id"])) || token.starts_with('#'), "{encoded}");
    models.succeed(&["prepare", "more.txt", "--tokenizer", "extended", "--held-out", "0.2", "--out", "more"]);
}

#[test]
fn a_tokenizer_alone_is_extended_without_weights() {
    let models = Models::new();
    let report = models.extend(&["tokenizer", "more.txt", "--out", "longer"]);
    assert_eq!(report["architecture"], Value::Null);
    let mut written: Vec<String> = fs::read_dir(models.path("longer"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    written.sort();
    assert_eq!(written, ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]);
    assert_eq!(
        models.tokens("longer").len(),
        models.tokens("tokenizer").len() + report["new_pieces"].as_array().unwrap().len()
    );
    models.succeed(&["prepare", "more.txt", "--tokenizer", "longer", "--held-out", "0.2", "--out", "more"]);
    // The same command again would overwrite it.
    let again = models.0.lambert(&["tokenizer", "extend", "tokenizer", "more.txt", "--out", "longer"]);
    refused(&again, &["longer requires a new or empty directory"]);
}

#[test]
fn extensions_that_are_impossible_write_nothing() {
    let models = Models::new();
    models.write("empty.txt", "\n\n");
    models.write("mine/notes.txt", "mine");
    models.write("broken/config.json", "{}");
    for (arguments, expected) in [
        (["nowhere", "more.txt", "out"], &["nowhere requires a directory with a model or a tokenizer"][..]),
        (["mine", "more.txt", "out"], &["mine: requires a tokenizer", "no tokenizer.json and no vocab.txt"]),
        (["broken", "more.txt", "out"], &["broken/config.json"]),
        (["bert", "absent.txt", "out"], &["absent.txt"]),
        (["bert", "empty.txt", "out"], &["requires text to choose new pieces from"]),
        (["bert", "more.txt", "mine"], &["mine is not empty and is not an unchanged export"]),
        (["tokenizer", "more.txt", "mine"], &["mine requires a new or empty directory"]),
    ] {
        let [model, input, out] = arguments;
        refused(&models.0.lambert(&["tokenizer", "extend", model, input, "--out", out]), expected);
        assert!(!models.path("out").exists(), "{arguments:?}");
    }
    let rare = ["tokenizer", "extend", "bert", "more.txt", "--min-frequency", "1000", "--out", "out"];
    refused(&models.0.lambert(&rare), &["occur at least 1000 times, found none", "lower min_frequency"]);
    assert!(!models.path("out").exists());
    assert_eq!(models.read("mine/notes.txt"), b"mine");
}

#[test]
fn an_encoder_without_heads_is_exported_before_a_step() {
    let models = Models::new();
    models.succeed(&["export", "run", "--architecture", "BertModel", "--out", "encoder"]);
    models.add_modules("encoder");
    models.succeed(&["import", "encoder", "--out", "imported"]);
    models.assert_modules("imported/step-00000000");
    let output = models.succeed(&["export", "imported", "--out", "exported"]);
    assert!(output.contains("BertModel.from_pretrained"), "{output}");
    models.assert_modules("exported");
    for name in ["model.safetensors", "tokenizer.json", "config.json"] {
        assert_eq!(models.read(&format!("exported/{name}")), models.read(&format!("encoder/{name}")), "{name}");
    }
    // An unchanged export is replaced, a changed file in the folder of a module is not.
    models.succeed(&["export", "imported", "--out", "exported"]);
    models.write("exported/1_Pooling/config.json", "mine");
    refused(&models.0.lambert(&["export", "imported", "--out", "exported"]), &["is not an unchanged export"]);
    assert_eq!(models.read("exported/1_Pooling/config.json"), b"mine");
    let masked = ["export", "imported", "--architecture", "BertForMaskedLM", "--out", "masked"];
    let expected = "requires the tensors of BertForMaskedLM, found 5 of them missing (cls.predictions.bias, …)";
    refused(&models.0.lambert(&masked), &[expected, "train first, or export it for BertModel"]);
    assert!(!models.path("masked").exists());

    let report = models.extend(&["encoder", "more.txt", "--out", "extended"]);
    assert_eq!(report["architecture"], "BertModel");
    models.assert_modules("extended");
}

#[test]
fn a_model_gets_more_positions() {
    const POSITIONS: &str = "bert.embeddings.position_embeddings.weight";
    let models = Models::new();
    let positions = |directory: &str| {
        let found = open_model(&models.path(directory)).unwrap();
        let (_, table) = found.checkpoint.model.into_iter().find(|(name, _)| name == POSITIONS).unwrap();
        assert_eq!(found.config.max_position_embeddings, table.shape().dims[0]);
        table.to_f64().chunks(16).map(<[f64]>::to_vec).collect::<Vec<_>>()
    };
    let old = positions("bert");
    for (rows, out) in [("tile", "tiled"), ("interpolate", "interpolated")] {
        let more = ["extend", "bert", "--max-position-embeddings", "95", "--rows", rows, "--out", out];
        let printed = models.succeed(&more);
        assert!(printed.contains("(BertForPreTraining): 48 → 95 positions"), "{printed}");
        let settings: Value = serde_json::from_slice(&models.read(&format!("{out}/tokenizer_config.json"))).unwrap();
        assert_eq!(settings["model_max_length"], 95);
        assert_eq!(models.read(&format!("{out}/tokenizer.json")), models.read("bert/tokenizer.json"));
        let weights = |directory: &str| open_model(&models.path(directory)).unwrap().checkpoint.model;
        for ((name, before), (_, after)) in weights("bert").iter().zip(weights(out)) {
            assert!(name == POSITIONS || *before == after, "{name} is unchanged");
        }
        models.succeed(&more);
    }
    let tiled = positions("tiled");
    assert_eq!((&tiled[..48], &tiled[48..]), (&old[..], &old[..47]));
    let interpolated = positions("interpolated");
    assert_eq!((interpolated.len(), &interpolated[0], &interpolated[94]), (95, &old[0], &old[47]));
    // Of 95 positions, every second one is an old one.
    assert_eq!(interpolated.iter().step_by(2).collect::<Vec<_>>(), old.iter().collect::<Vec<_>>());
    refused(
        &models.0.lambert(&["extend", "bert", "--max-position-embeddings", "48", "--out", "other"]),
        &["max_position_embeddings requires more positions than bert has, 48, got 48"],
    );
    models.write("mine/notes.txt", "mine");
    refused(
        &models.0.lambert(&["extend", "bert", "--max-position-embeddings", "64", "--out", "mine"]),
        &["mine", "is not an unchanged export"],
    );
}

#[test]
fn links_and_other_folders_keep_a_checkpoint_from_removal() {
    let models = Models::new();
    models.add_modules("bert");
    models.succeed(&["import", "bert", "--out", "imported"]);
    let step = models.path("imported/step-00000000");
    RunDirectory::new(&models.path("imported"), Keep::ALL).remove_all().unwrap();
    assert!(!step.exists(), "a checkpoint with the files of modules is removed as a whole");
    fs::remove_dir_all(models.path("imported")).unwrap();
    models.succeed(&["import", "bert", "--out", "imported"]);
    models.write("imported/step-00000000/1_Pooling/notes.txt", "mine");
    RunDirectory::new(&models.path("imported"), Keep::ALL).remove_all().unwrap();
    assert_eq!(models.read("imported/step-00000000/1_Pooling/notes.txt"), b"mine");
    assert!(Path::new(&step).join("model.safetensors").exists());
}
