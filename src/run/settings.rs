//! The tables `[compile]`, `[data]`, `[evaluate]`, `[divergence]` and `[checkpoint]` of a run file, with their defaults.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::bert::Layers;
use crate::checkpoint::Keep;
use crate::data::{Column, ExampleConfig, ExampleMode, MaskShares, Masking, SpanMask, TextColumns};
use crate::settings::is_default;
use crate::storage::Location;

/// The location of the prepared data, and how examples are made from it. The defaults are those of google-research/bert,
/// `create_pretraining_data.py`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSettings {
    /// The output directory of `lambert prepare`.
    #[serde(skip_serializing)]
    pub path: Location,
    /// The local directory for a copy of data in a bucket; `path` includes it.
    #[serde(default, skip_serializing)]
    pub cache: Option<PathBuf>,
    /// Sentence pairs for next sentence or sentence order prediction, or single segments.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: ExampleMode,
    /// The fraction of tokens that is masked. A phase may override it.
    #[serde(default = "default::masked_lm_prob")]
    pub masked_lm_prob: f64,
    /// The replacements of masked tokens, as shares that sum to 1.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mask_shares: MaskShares,
    /// Mask all pieces of a word together.
    #[serde(default)]
    pub whole_word_mask: bool,
    /// Mask spans of whole words, as SpanBERT does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_mask: Option<SpanMask>,
    /// Whether masks change in every epoch (`dynamic`) or stay the same (`static`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub masking: Masking,
    /// The fraction of documents that is split into shorter sequences. It has no effect on single segments.
    #[serde(default = "default::short_seq_prob")]
    pub short_seq_prob: f64,
}

impl DataSettings {
    /// Returns the configuration that training and held-out examples of this shape share. It has no seed and no phase:
    /// training examples add those ([`super::Run::training_examples`]), held-out examples do not, so they are the same in
    /// every run.
    pub fn examples(&self, sequence_length: usize, max_predictions_per_seq: usize) -> ExampleConfig {
        ExampleConfig {
            mode: self.mode,
            masked_lm_prob: self.masked_lm_prob,
            short_seq_prob: self.short_seq_prob,
            whole_word_mask: self.whole_word_mask,
            span_mask: self.span_mask,
            ..ExampleConfig::bert(sequence_length, max_predictions_per_seq)
        }
    }
}

/// The exponential moving average of the weights, which the step keeps beside them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaSettings {
    /// The decay of each step, such as 0.9999; see [`crate::optim::ema`].
    pub decay: f64,
}

/// The frequency of evaluations, and their number of held-out examples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluateSettings {
    /// Steps between evaluations; 0 evaluates only before the first step and after the last step of each phase.
    pub every: u64,
    /// Held-out examples, at most.
    pub examples: usize,
    /// Examples per device and micro-batch.
    pub micro_batch_size: usize,
    /// The fraction of tokens that is masked in held-out examples, whatever that of training.
    pub masked_lm_prob: f64,
    /// The metric that selects the best checkpoint; without one, no checkpoint is kept for its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// Evaluations without a better value of `metric` after which the run stops; 0 never stops early.
    pub patience: u64,
    /// A file of labelled texts (`.tsv`, `.csv`, `.jsonl`, `.parquet`), whose labels a probe predicts at each evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<PathBuf>,
    /// The column of its texts; `text` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_text: Option<Column>,
    /// The column of the second texts of pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_text_pair: Option<Column>,
    /// The column of its labels; `label` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_label: Option<Column>,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        EvaluateSettings {
            every: 0,
            examples: 1024,
            micro_batch_size: 32,
            masked_lm_prob: default::masked_lm_prob(),
            metric: None,
            patience: 0,
            probe: None,
            probe_text: None,
            probe_text_pair: None,
            probe_label: None,
        }
    }
}

impl EvaluateSettings {
    /// Returns the columns of the file of the probe.
    pub fn probe_columns(&self) -> TextColumns {
        let TextColumns { text, label, .. } = TextColumns::default();
        TextColumns {
            text: self.probe_text.clone().unwrap_or(text),
            text_pair: self.probe_text_pair.clone(),
            label: self.probe_label.clone().or(label),
        }
    }

    /// Returns the first column that is set although there is no probe.
    pub(super) fn column_without_probe(&self) -> Option<&'static str> {
        let columns = [
            ("probe_text", &self.probe_text),
            ("probe_text_pair", &self.probe_text_pair),
            ("probe_label", &self.probe_label),
        ];
        let is_set = columns.into_iter().find(|(_, column)| column.is_some() && self.probe.is_none());
        is_set.map(|(name, _)| name)
    }
}

/// The form of the compiled programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompileSettings {
    /// The form of the encoder's layers: `unrolled`, `loop` or `auto`. A loop rounds differently, so it is one of the
    /// settings that a resumed run must share.
    pub layers: Layers,
}

/// The reaction of a run to a divergence of training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DivergenceSettings {
    /// The reaction: `stop`, `warn` or `roll_back`.
    pub action: DivergenceAction,
    /// The number of times that the run goes back, at most; then it stops.
    pub max_roll_backs: u64,
}

impl Default for DivergenceSettings {
    fn default() -> Self {
        DivergenceSettings { action: DivergenceAction::default(), max_roll_backs: 3 }
    }
}

/// The reaction to a divergence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DivergenceAction {
    /// Stop without saving.
    #[default]
    Stop,
    /// Report it and train on.
    Warn,
    /// Go back to the last good checkpoint, and leave out the examples since then.
    RollBack,
}

/// The location and frequency of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSettings {
    /// The run directory: checkpoints, metrics and TensorBoard files. In a bucket: checkpoints and metrics.
    pub directory: Location,
    /// The local directory that a run in a bucket is saved into first; `directory` includes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Steps between checkpoints; 0 saves only after the last step of each phase.
    #[serde(default)]
    pub every: u64,
    /// The number of newest checkpoints to keep; 0 keeps all.
    #[serde(default = "default::keep")]
    pub keep: usize,
    /// The checkpoints of steps that this divides are kept too; 0 keeps none for this reason.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_every: u64,
}

impl CheckpointSettings {
    /// Returns the checkpoints that stay.
    pub fn kept(&self) -> Keep {
        Keep { newest: self.keep, every: self.keep_every }
    }
}

mod default {
    pub fn masked_lm_prob() -> f64 {
        0.15
    }
    pub fn short_seq_prob() -> f64 {
        0.1
    }
    pub fn keep() -> usize {
        3
    }
}
