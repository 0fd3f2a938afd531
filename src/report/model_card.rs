//! The model card of an export: a README.md with what is known about the model, and fields that its publisher fills in.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::descriptions::description;
use super::goodput::EVALUATION;
use super::{metrics, settings};
use crate::bert::BertConfig;
use crate::checkpoint::hugging_face::Architecture;
use crate::checkpoint::{Checkpoint, RUN_FILE};
use crate::data::{Counts, data_manifest};
use crate::run::weights::{configuration_in, published_model};
use crate::units::{counted, thousands};

/// The facts that a model card states.
#[derive(Clone, Debug)]
struct ModelCard {
    name: String,
    architecture: Architecture,
    model: BertConfig,
    /// Elements of all tensors of the class.
    parameters: u64,
    step: u64,
    /// Counts of the training text and of the held-out text, if the prepared data is on this machine.
    data: Option<(Counts, Counts)>,
    /// The scalars of the evaluation after the step, with their baselines.
    evaluation: Vec<(String, f64)>,
    /// The run file.
    run_file: Option<String>,
}

/// Returns the model card of the checkpoint in `directory` for an export as `architecture`. Its name, data and settings are those of
/// its run file, and its evaluation that of the `metrics.jsonl` beside it; without them, the card leaves them out.
///
/// # Errors
/// If the checkpoint has no configuration, or a file cannot be read.
pub fn model_card(directory: &Path, checkpoint: &Checkpoint, architecture: Architecture) -> anyhow::Result<String> {
    let (model, head) = configuration_in(checkpoint, directory)?;
    let tensors = published_model(&model, &head)?.tensors;
    let elements = |dims: &[usize]| dims.iter().product::<usize>() as u64;
    let of_class = tensors.iter().filter(|(name, _)| architecture.has(name));
    let run_file = checkpoint.file(RUN_FILE).map(|text| String::from_utf8_lossy(text).into_owned());
    let settings = match &run_file {
        Some(text) => settings::of_run_file(&directory.join(RUN_FILE), text.as_bytes())?,
        None => Value::Null,
    };
    let step = checkpoint.state.step;
    let run = directory.parent().unwrap_or(directory);
    let card = ModelCard {
        name: settings["name"].as_str().unwrap_or("BERT").to_owned(),
        architecture,
        model,
        parameters: of_class.map(|(_, shape)| elements(&shape.dims)).sum(),
        step,
        data: settings["data"]["path"].as_str().and_then(|path| counts_of(path, &checkpoint.state.vocabulary_sha256)),
        evaluation: metrics::recorded(run, EVALUATION, step)?.unwrap_or_default(),
        run_file,
    };
    Ok(card.to_markdown())
}

/// Returns the counts of the prepared data at `path`, if it is on this machine and has the vocabulary.
fn counts_of(path: &str, vocabulary_sha256: &str) -> Option<(Counts, Counts)> {
    let manifest = data_manifest(&path.parse().ok()?).ok()??;
    (manifest.vocabulary_sha256 == vocabulary_sha256).then_some((manifest.train, manifest.held_out))
}

impl ModelCard {
    fn to_markdown(&self) -> String {
        let mut text = format!("{}\n# {}\n\n{}\n", self.front_matter(), self.name, self.introduction());
        let mut section = |title: &str, body: Option<String>| {
            if let Some(body) = body {
                let _ = write!(text, "\n## {title}\n\n{body}\n");
            }
        };
        section("Use", Some(self.example()));
        section("Training data", Some(self.training_data()));
        section("Evaluation", self.evaluation_table());
        section("Training", self.run_file.as_deref().map(settings_block));
        section("Limits and licence", Some(TO_FILL_IN.to_owned()));
        text
    }

    /// Returns the metadata for the Hugging Face hub, in YAML.
    fn front_matter(&self) -> String {
        format!(
            "---\nlibrary_name: transformers\npipeline_tag: {}\ntags:\n- bert\n# Fill in before you publish the model:\n\
             # license:\n# language:\n# datasets:\n---",
            match self.architecture {
                Architecture::BertForPreTraining | Architecture::BertForMaskedLM => "fill-mask",
                Architecture::BertModel => "feature-extraction",
                Architecture::BertForSequenceClassification => "text-classification",
                Architecture::BertForTokenClassification => "token-classification",
                Architecture::BertForQuestionAnswering => "question-answering",
            }
        )
    }

    fn introduction(&self) -> String {
        let BertConfig {
            num_hidden_layers, hidden_size, num_attention_heads, vocab_size, max_position_embeddings, ..
        } = self.model;
        format!(
            "A `{}` with {} of hidden size {}, {} in each layer, a vocabulary of {}, up to {}, and {}, trained for {} with lambert {}.",
            self.architecture.name(),
            counted(num_hidden_layers as u64, "layer"),
            thousands(hidden_size as u64),
            counted(num_attention_heads as u64, "attention head"),
            counted(vocab_size as u64, "token"),
            counted(max_position_embeddings as u64, "position"),
            counted(self.parameters, "parameter"),
            counted(self.step, "step"),
            env!("CARGO_PKG_VERSION"),
        )
    }

    fn example(&self) -> String {
        let class = self.architecture.name();
        format!(
            "```python\nfrom transformers import AutoTokenizer, {class}\n\ntokenizer = AutoTokenizer.from_pretrained(\"DIRECTORY\")\n\
             model = {class}.from_pretrained(\"DIRECTORY\")\n```"
        )
    }

    fn training_data(&self) -> String {
        let counts = self.data.map(|(train, held_out)| {
            let of = |counts: Counts| {
                format!("{} with {}", counted(counts.documents, "document"), counted(counts.tokens, "token"))
            };
            format!("{} for training, and {} held out for evaluation.\n\n", of(train), of(held_out))
        });
        counts.unwrap_or_default() + "*Fill in: the sources of the text, their dates, and how it was selected.*"
    }

    /// Returns the table of the evaluation after the last step; none without one.
    fn evaluation_table(&self) -> Option<String> {
        let value = |name: &str| self.evaluation.iter().find(|(own, _)| own == name).map(|(_, value)| *value);
        let is_metric = |name: &str| !name.ends_with("_baseline") && !name.ends_with("examples");
        let rows: Vec<String> = self
            .evaluation
            .iter()
            .filter(|(name, _)| is_metric(name))
            .map(|(name, found)| {
                let baseline =
                    value(&format!("{name}_baseline")).map_or("–".to_owned(), |value| format!("{value:.4}"));
                let meaning = description(EVALUATION, name).unwrap_or_default();
                format!("| `{name}` | {found:.4} | {baseline} | {meaning} |")
            })
            .collect();
        let examples = value("examples").map_or("held-out".to_owned(), |n| format!("{} held-out", thousands(n as u64)));
        (!rows.is_empty()).then(|| {
            format!(
                "On {examples} examples after step {}. The baseline ignores the input and knows only how often each label occurs in \
                 these examples.\n\n| metric | value | baseline | meaning |\n|---|---|---|---|\n{}",
                thousands(self.step),
                rows.join("\n"),
            )
        })
    }
}

const TO_FILL_IN: &str = "*Fill in: the uses that the model is meant for and those that it is not, known biases of the text, and the \
                          licence.*";

fn settings_block(run_file: &str) -> String {
    format!("The run file:\n\n```toml\n{}\n```", run_file.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::{Head, Preset};
    use crate::checkpoint::{METRICS_FILE, State};
    use crate::run::weights::config_json;

    fn checkpoint(files: &[(&str, &str)]) -> Checkpoint {
        let config = config_json(&Preset::Tiny.config(1_000), &Head::Pretraining).unwrap();
        let config = ("config.json".to_owned(), serde_json::to_vec(&config).unwrap());
        let files = files.iter().map(|(name, text)| (name.to_string(), text.as_bytes().to_vec()));
        Checkpoint {
            state: State { step: 1_500, ..State::default() },
            model: Vec::new(),
            optimizer: Vec::new(),
            files: files.chain([config]).collect(),
        }
    }

    #[test]
    fn the_card_has_the_settings_and_the_evaluation_of_its_step_beside_the_baselines() {
        let folder = tempfile::tempdir().unwrap();
        let lines = [
            r#"{"kind":"evaluation","step":1000,"mlm_loss":7.5,"mlm_loss_baseline":6.5,"examples":1024}"#,
            r#"{"kind":"evaluation","step":1500,"mlm_loss":4.125,"mlm_loss_baseline":6.5,"examples":1024,"seconds":2.0}"#,
        ];
        std::fs::write(folder.path().join(METRICS_FILE), lines.join("\n") + "\n").unwrap();
        let run_file = "name = \"alpine\"\n[data]\npath = \"absent\"\n";
        let directory = folder.path().join("step-00001500");
        let card = model_card(&directory, &checkpoint(&[(RUN_FILE, run_file)]), Architecture::BertForMaskedLM).unwrap();
        for part in [
            "pipeline_tag: fill-mask\n",
            "\n# alpine\n",
            "A `BertForMaskedLM` with 2 layers of hidden size 128, 2 attention heads in each layer, a vocabulary of 1,000 tokens",
            "trained for 1,500 steps with lambert",
            "On 1,024 held-out examples after step 1,500.",
            "| `mlm_loss` | 4.1250 | 6.5000 | masked language model loss, in nats for each masked token |",
            "```toml\nname = \"alpine\"\n[data]\npath = \"absent\"\n```",
            "# license:\n",
        ] {
            assert!(card.contains(part), "{part:?} is not in\n{card}");
        }
        assert!(!card.contains("7.5") && !card.contains("seconds"), "{card}");
    }

    #[test]
    fn the_card_of_an_imported_model_has_no_settings_and_no_evaluation() {
        let folder = tempfile::tempdir().unwrap();
        let card = model_card(&folder.path().join("step-0"), &checkpoint(&[]), Architecture::BertModel).unwrap();
        assert!(card.contains("\n# BERT\n") && card.contains("pipeline_tag: feature-extraction"), "{card}");
        assert!(!card.contains("## Evaluation") && !card.contains("## Training\n"), "{card}");
    }
}
