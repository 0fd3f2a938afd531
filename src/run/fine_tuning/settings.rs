//! The tables `[task]`, `[model]`, `[train]` and `[evaluate]` of a fine-tuning run file, with their defaults.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};

use crate::bert::BertConfig;
use crate::data::labelled::{Column, SquadVersion};
use crate::schedule::{Curve, Decay, Phase, Warmup};

/// The kind of a fine-tuning task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// One of several classes for a text or a pair of texts.
    SequenceClassification,
    /// A number for a text or a pair of texts.
    Regression,
    /// A class for every word.
    TokenClassification,
    /// The answer to a question, as a part of a context.
    QuestionAnswering,
}

impl TaskKind {
    /// Returns the name in run files.
    pub const fn name(self) -> &'static str {
        match self {
            TaskKind::SequenceClassification => "sequence_classification",
            TaskKind::Regression => "regression",
            TaskKind::TokenClassification => "token_classification",
            TaskKind::QuestionAnswering => "question_answering",
        }
    }

    /// Returns the metrics that can select the best checkpoint of the task, the default first.
    pub const fn metrics(self) -> &'static [&'static str] {
        match self {
            TaskKind::SequenceClassification => &["accuracy", "macro_f1", "matthews"],
            TaskKind::Regression => &["pearson", "spearman"],
            TaskKind::TokenClassification => &["f1", "precision", "recall", "token_accuracy"],
            TaskKind::QuestionAnswering => &["f1", "exact_match"],
        }
    }
}

/// The `[task]` table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSettings {
    /// The kind of the task.
    pub kind: TaskKind,
    /// The file of the training examples.
    #[serde(skip_serializing)]
    pub train: PathBuf,
    /// The file of the held-out examples.
    #[serde(skip_serializing)]
    pub dev: PathBuf,
    /// Positions of a row.
    pub sequence_length: usize,
    /// The column of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Column>,
    /// The column of the second text of a pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<Column>,
    /// The column of the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Column>,
    /// The names of the classes, in order; by default those of the training file, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Give up the head of a model that was fine-tuned for other labels.
    #[serde(default, skip_serializing)]
    pub replace_head: bool,
    /// The version of SQuAD's format, "1.1" by default; in "2.0", questions may have no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<SquadVersion>,
    /// Tokens between the starts of consecutive windows of a long context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<usize>,
    /// Tokens of a question; longer ones are truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_query_length: Option<usize>,
    /// Tokens of a predicted answer, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_answer_length: Option<usize>,
    /// Candidates for the answer of a question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_best: Option<usize>,
}

impl TaskSettings {
    /// Checks that the keys fit the kind of task.
    ///
    /// # Errors
    /// The first key that does not, with what it requires.
    pub fn validate(&self) -> anyhow::Result<()> {
        let kind = self.kind;
        let texts = matches!(kind, TaskKind::SequenceClassification | TaskKind::Regression);
        let answers = kind == TaskKind::QuestionAnswering;
        let classes = matches!(kind, TaskKind::SequenceClassification | TaskKind::TokenClassification);
        let keys = [
            ("text", self.text.is_some(), texts || kind == TaskKind::TokenClassification),
            ("text_pair", self.text_pair.is_some(), texts),
            ("label", self.label.is_some(), !answers),
            ("labels", !self.labels.is_empty(), classes),
            ("version", self.version.is_some(), answers),
            ("stride", self.stride.is_some(), answers),
            ("max_query_length", self.max_query_length.is_some(), answers),
            ("max_answer_length", self.max_answer_length.is_some(), answers),
            ("n_best", self.n_best.is_some(), answers),
        ];
        if let Some((key, ..)) = keys.iter().find(|(_, given, allowed)| *given && !allowed) {
            bail!("`{key}` has no meaning for kind = {:?}; remove it", kind.name());
        }
        let sizes = [
            ("sequence_length", Some(self.sequence_length)),
            ("stride", self.stride),
            ("max_query_length", self.max_query_length),
            ("max_answer_length", self.max_answer_length),
            ("n_best", self.n_best),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == Some(0)) {
            bail!("`{key}` requires at least 1, got 0");
        }
        Ok(())
    }
}

/// The `[model]` table: dropout that differs from that of the imported model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropoutSettings {
    /// Dropout of embeddings and layer outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dropout_prob: Option<f64>,
    /// Dropout of attention probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_probs_dropout_prob: Option<f64>,
    /// Dropout before the classifier; by default that of layer outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
}

impl DropoutSettings {
    /// Returns `config` with these probabilities.
    pub fn apply(&self, config: &BertConfig) -> BertConfig {
        BertConfig {
            hidden_dropout_prob: self.hidden_dropout_prob.unwrap_or(config.hidden_dropout_prob),
            attention_probs_dropout_prob: self
                .attention_probs_dropout_prob
                .unwrap_or(config.attention_probs_dropout_prob),
            classifier_dropout: self.classifier_dropout.or(config.classifier_dropout),
            ..config.clone()
        }
    }
}

/// The `[train]` table: batches and learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the training examples.
    pub epochs: f64,
    /// Examples per step, over all devices.
    pub global_batch: usize,
    /// Examples per device and micro-batch.
    #[serde(skip_serializing)]
    pub micro_batch_size: usize,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// The length of the warm-up.
    #[serde(default)]
    pub warmup: Warmup,
    /// The learning rate after the peak.
    #[serde(default)]
    pub decay: Decay,
    /// The formula that combines warm-up and decay.
    #[serde(default)]
    pub curve: Curve,
}

impl TrainSettings {
    /// Returns the phase of a run on `examples` training examples (windows, for question answering) of `sequence_length`
    /// positions.
    ///
    /// # Errors
    /// If `epochs` or `learning_rate` is not a positive number, or there is no `global_batch`.
    pub fn phase(&self, examples: u64, sequence_length: usize) -> anyhow::Result<Phase> {
        let epochs = self.epochs;
        ensure!(epochs.is_finite() && epochs > 0.0, "`epochs` requires a positive number, got {epochs}");
        ensure!(self.global_batch > 0, "`global_batch` requires at least 1, got 0");
        let rate = self.learning_rate;
        ensure!(rate.is_finite() && rate > 0.0, "`learning_rate` requires a positive number, got {rate}");
        let steps = (epochs * examples as f64 / self.global_batch as f64).ceil() as u64;
        Ok(Phase {
            name: "fine-tuning".to_owned(),
            sequence_length,
            // Nothing is masked, but every phase requires at least one.
            max_predictions_per_seq: 1,
            global_batch: self.global_batch,
            batch_ramp: None,
            micro_batch_size: self.micro_batch_size,
            sequences_per_row: Some(1),
            steps,
            masked_lm_prob: None,
            learning_rate: Some(self.learning_rate),
            sqrt_scaled: None,
            warmup: self.warmup,
            warmup_start: 0,
            decay: self.decay,
            curve: self.curve,
            carry_moments: true,
            carry_step: true,
        })
    }
}

/// The `[evaluate]` table: evaluations on the dev file, and which checkpoint is the best.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionSettings {
    /// Steps between evaluations; 0 evaluates after every epoch.
    pub every: u64,
    /// Examples per device and micro-batch.
    #[serde(skip_serializing)]
    pub micro_batch_size: usize,
    /// The metric of the best checkpoint; by default the first of the task ([`TaskKind::metrics`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Evaluations without a better value after which the run stops; 0 never stops early.
    pub patience: u64,
}

impl Default for SelectionSettings {
    fn default() -> Self {
        SelectionSettings { every: 0, micro_batch_size: 32, metric: None, patience: 0 }
    }
}

impl SelectionSettings {
    /// Returns the metric that selects the best checkpoint of a task.
    ///
    /// # Errors
    /// If the task has no metric of that name.
    pub fn metric(&self, kind: TaskKind) -> anyhow::Result<&'static str> {
        let known = kind.metrics();
        let Some(name) = &self.metric else { return Ok(known[0]) };
        let found = known.iter().find(|known| *known == name);
        let Some(found) = found else {
            bail!("`metric` requires {} for kind = {:?}, got {name:?}", known.join(" or "), kind.name());
        };
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(text: &str) -> TaskSettings {
        toml::from_str(&format!("train = 'a'\ndev = 'b'\nsequence_length = 8\n{text}")).unwrap()
    }

    #[test]
    fn keys_of_another_kind_of_task_are_refused() {
        task("kind = 'question_answering'\nstride = 128\nversion = '2.0'").validate().unwrap();
        task("kind = 'sequence_classification'\ntext_pair = 'b'\nlabels = ['x', 'y']").validate().unwrap();
        let message = |text: &str| task(text).validate().unwrap_err().to_string();
        assert_eq!(
            message("kind = 'regression'\nstride = 128"),
            "`stride` has no meaning for kind = \"regression\"; remove it"
        );
        assert_eq!(message("kind = 'question_answering'\nstride = 0"), "`stride` requires at least 1, got 0");
    }

    #[test]
    fn steps_cover_the_epochs() {
        let train: TrainSettings =
            toml::from_str("epochs = 2.5\nglobal_batch = 32\nmicro_batch_size = 8\nlearning_rate = 1e-4").unwrap();
        assert_eq!(train.phase(100, 64).unwrap().steps, 8); // 250 examples are 7.8 batches
        assert!(TrainSettings { epochs: 0.0, ..train }.phase(100, 64).is_err());
    }

    #[test]
    fn metric_of_the_best_checkpoint_is_one_of_the_task() {
        let named = |name: &str| SelectionSettings { metric: Some(name.to_owned()), ..SelectionSettings::default() };
        assert_eq!(SelectionSettings::default().metric(TaskKind::Regression).unwrap(), "pearson");
        assert_eq!(named("matthews").metric(TaskKind::SequenceClassification).unwrap(), "matthews");
        assert_eq!(named("token_accuracy").metric(TaskKind::TokenClassification).unwrap(), "token_accuracy");
        assert_eq!(
            named("f2").metric(TaskKind::QuestionAnswering).unwrap_err().to_string(),
            "`metric` requires f1 or exact_match for kind = \"question_answering\", got \"f2\""
        );
    }
}
