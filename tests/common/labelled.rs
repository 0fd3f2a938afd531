//! A temporary directory with a small untrained model and labelled files of the four tasks, each with a pattern that a model
//! learns in some ten steps.

use std::path::PathBuf;
use std::process::Output;

use lambert::bert::{BertConfig, Head, param_specs_of};
use lambert::checkpoint::{Checkpoint, Keep, RunDirectory, State};
use lambert::run::fine_tuning::FineTuningRun;
use lambert::run::weights::config_json;
use serde_json::{Value, json};

use super::{lambert, text};

/// Number of training examples.
pub const TRAIN: usize = 64;
/// Number of held-out examples; the last rows of an evaluation are padding.
pub const DEV: usize = 27;
/// The names of the tasks.
pub const KINDS: [&str; 4] = ["sequence_classification", "regression", "token_classification", "question_answering"];

const WORDS: [&str; 8] = ["the", "a", "house", "river", "sees", "finds", "green", "old"];
const PEOPLE: [&str; 2] = ["anna", "paul"];
const PLACES: [&str; 2] = ["oslo", "rome"];

/// The directory.
pub struct LabelledFiles {
    directory: tempfile::TempDir,
}

impl LabelledFiles {
    /// Writes the model to `model`, and the files of each task to `KIND.train` and `KIND.dev`, with the endings of their formats.
    pub fn new() -> LabelledFiles {
        let files = LabelledFiles { directory: tempfile::tempdir().expect("a temporary directory") };
        files.write_model("model", &[]);
        for kind in KINDS {
            for (split, examples) in [("train", 0..TRAIN), ("dev", TRAIN..TRAIN + DEV)] {
                files.write(&file_name(kind, split), &content(kind, examples));
            }
        }
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).expect("the file is written");
    }

    /// Writes a checkpoint of an untrained model; its tokenizer also has the words `more`.
    pub fn write_model(&self, name: &str, more: &[&str]) {
        let specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
        let words = [&specials[..], &WORDS, &PEOPLE, &PLACES, &["good", "bad", "who", "is", "it"], more].concat();
        let config = BertConfig::from_json(
            r#"{"vocab_size": 22, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "hidden_act": "gelu", "max_position_embeddings": 24, "initializer_range": 0.1,
            "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}"#,
        );
        let config = config.expect("a configuration");
        let head = Head::Pretraining;
        let keys = config_json(&config, &head).expect("JSON");
        let checkpoint = Checkpoint {
            state: State::default(),
            model: param_specs_of(&config, &head).iter().map(|spec| (spec.name.clone(), spec.initial(9))).collect(),
            optimizer: Vec::new(),
            files: vec![
                ("config.json".to_owned(), Value::Object(keys).to_string().into_bytes()),
                ("vocab.txt".to_owned(), words.join("\n").into_bytes()),
                ("tokenizer_config.json".to_owned(), br#"{"do_lower_case": true}"#.to_vec()),
            ],
        };
        RunDirectory::new(&self.path(name), Keep::ALL).save(&checkpoint).expect("the model is written");
    }

    /// Returns the text of the run file of the task `kind` with the run directory `directory`.
    pub fn run(&self, kind: &str, directory: &str) -> String {
        let path = |name: &str| self.path(name).display().to_string();
        let [train, dev] = ["train", "dev"].map(|split| path(&file_name(kind, split)));
        let (model, directory) = (path("model"), path(directory));
        format!(
            "name = 'small'\nseed = 5\nimport = '{model}'\n\
             [task]\nkind = '{kind}'\ntrain = '{train}'\ndev = '{dev}'\nsequence_length = 16\n\
             [optimizer]\nkind = 'adamw'\n\
             [train]\nepochs = 6\nglobal_batch = 16\nmicro_batch_size = 8\nlearning_rate = 0.02\n\
             warmup = {{ steps = 2 }}\n\
             [evaluate]\nevery = 4\nmicro_batch_size = 8\n\
             [checkpoint]\ndirectory = '{directory}'\nevery = 4\nkeep = 0\n"
        )
    }

    /// Opens the run file of the task `kind` with `overrides`.
    pub fn open(&self, kind: &str, overrides: &[&str]) -> anyhow::Result<FineTuningRun> {
        self.write("run.toml", &self.run(kind, "run"));
        let overrides: Vec<String> = overrides.iter().map(|set| (*set).to_owned()).collect();
        FineTuningRun::open(&self.path("run.toml"), &overrides)
    }

    /// Runs `lambert finetune` with the run file of the task `kind`, the run directory `directory` and more arguments.
    pub fn fine_tune(&self, kind: &str, directory: &str, more: &[&str]) -> Output {
        let file = format!("{directory}.toml");
        self.write(&file, &self.run(kind, directory));
        self.lambert(&[&["finetune", &file, "--platform", "cpu"], more].concat())
    }

    /// Runs `lambert` in the directory.
    pub fn lambert(&self, arguments: &[&str]) -> Output {
        lambert().args(arguments).current_dir(self.directory.path()).output().expect("lambert starts")
    }
}

/// Returns the output of a run that succeeded.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    text(output)
}

/// Returns the name of the file of a task, with the ending of its format.
pub fn file_name(kind: &str, split: &str) -> String {
    let ending = match kind {
        "token_classification" => "conll",
        "question_answering" => "json",
        _ => "tsv",
    };
    format!("{kind}.{split}.{ending}")
}

fn content(kind: &str, examples: std::ops::Range<usize>) -> String {
    match kind {
        "token_classification" => examples.map(sentence).collect(),
        "question_answering" => {
            let paragraphs: Vec<Value> = examples.map(paragraph).collect();
            json!({"version": "1.1", "data": [{"title": "t", "paragraphs": paragraphs}]}).to_string()
        }
        kind => {
            let row = |example: usize| {
                let (word, class, number) = [("good", "yes", 1.5), ("bad", "no", -0.5)][example % 2];
                let label = if kind == "regression" { number.to_string() } else { class.to_owned() };
                format!("{}\t{label}\n", words(example, word).join(" "))
            };
            "text\tlabel\n".to_owned() + &examples.map(row).collect::<String>()
        }
    }
}

/// Returns three to six words with `word` among them.
fn words(example: usize, word: &'static str) -> Vec<&'static str> {
    let count = 3 + example % 4;
    let mut words: Vec<&str> = (0..count).map(|i| WORDS[(example * 7 + i * (1 + example % 3)) % 8]).collect();
    words[example / 2 % count] = word;
    words
}

fn sentence(example: usize) -> String {
    let label = |word: &str| match word {
        word if PEOPLE.contains(&word) => "B-PER",
        word if PLACES.contains(&word) => "B-LOC",
        _ => "O",
    };
    let name = [PEOPLE, PLACES][example % 2][example / 2 % 2];
    words(example, name).iter().map(|word| format!("{word} {}\n", label(word))).collect::<String>() + "\n"
}

fn paragraph(example: usize) -> Value {
    let name = PEOPLE[example % 2];
    let context = words(example, name).join(" ");
    let answer = json!({"text": name, "answer_start": context.find(name)});
    json!({"context": context, "qas": [{"id": example.to_string(), "question": "who is it", "answers": [answer]}]})
}
