//! The BERT configuration, with the keys of Hugging Face's `config.json`, and the `[model]` table of run files.
//!
//! [`BertConfig`] is complete. It is read from any `config.json`, and ignores keys that do not affect the pretraining model.
//! [`BertSettings`] is partial: a run file names a preset and overrides some of its values; unknown keys are errors.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of embedding rows is padded to a multiple of this: the lane count of a TPU, and a multiple of the tile sizes
/// of GPU and CPU matrix units.
pub const VOCABULARY_MULTIPLE: usize = 128;

/// The largest vocabulary size: token ids are s32, and the padded size must fit too.
const MOST_TOKENS: usize = i32::MAX as usize / VOCABULARY_MULTIPLE * VOCABULARY_MULTIPLE;
/// The largest value of every other size. It is far above any BERT, and prevents overflow in parameter and FLOP counts.
const MOST: usize = 1 << 20;
/// The largest number of layers. The program contains every layer separately.
const MOST_LAYERS: usize = 1000;

/// The configuration of one BERT. Field names and defaults are those of Hugging Face's `BertConfig`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BertConfig {
    /// The vocabulary size of the tokenizer; see also [`BertConfig::padded_vocab_size`].
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Number of encoder layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads per layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Activation of the feed-forward layer and the MLM transform.
    #[serde(default)]
    pub hidden_act: Activation,
    /// Dropout probability of embeddings and layer outputs.
    #[serde(default = "defaults::dropout")]
    pub hidden_dropout_prob: f64,
    /// Dropout probability of attention probabilities.
    #[serde(default = "defaults::dropout")]
    pub attention_probs_dropout_prob: f64,
    /// Dropout probability of the input of a classifier. The default is [`BertConfig::hidden_dropout_prob`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// Maximum sequence length: rows of the position embeddings.
    #[serde(default = "defaults::max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Number of token types (segments).
    #[serde(default = "defaults::type_vocab_size")]
    pub type_vocab_size: usize,
    /// Standard deviation of the initial weights.
    #[serde(default = "defaults::initializer_range")]
    pub initializer_range: f64,
    /// The epsilon of LayerNorm.
    #[serde(default = "defaults::layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// The id of the padding token.
    #[serde(default)]
    pub pad_token_id: usize,
}

mod defaults {
    pub fn dropout() -> f64 {
        0.1
    }
    pub fn max_position_embeddings() -> usize {
        512
    }
    pub fn type_vocab_size() -> usize {
        2
    }
    pub fn initializer_range() -> f64 {
        0.02
    }
    pub fn layer_norm_eps() -> f64 {
        1e-12
    }
}

/// The activation of the feed-forward layer and the MLM transform (the pooler always uses tanh).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// The exact GELU, x·Φ(x), with the error function.
    #[default]
    #[serde(rename = "gelu")]
    Gelu,
    /// The tanh approximation, which google-research/bert calls "gelu" and Hugging Face "gelu_new".
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_tanh")]
    GeluTanh,
}

/// The published model sizes: BERT-Base and BERT-Large (arXiv 1810.04805), and the smaller models of google-research/bert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// 2 layers, hidden size 128.
    Tiny,
    /// 4 layers, hidden size 256.
    Mini,
    /// 4 layers, hidden size 512.
    Small,
    /// 8 layers, hidden size 512.
    Medium,
    /// 12 layers, hidden size 768.
    Base,
    /// 24 layers, hidden size 1,024.
    Large,
}

impl Preset {
    /// All presets, smallest first.
    pub const ALL: [Preset; 6] =
        [Preset::Tiny, Preset::Mini, Preset::Small, Preset::Medium, Preset::Base, Preset::Large];

    /// Returns the name that run files use.
    pub const fn name(self) -> &'static str {
        match self {
            Preset::Tiny => "tiny",
            Preset::Mini => "mini",
            Preset::Small => "small",
            Preset::Medium => "medium",
            Preset::Base => "base",
            Preset::Large => "large",
        }
    }

    /// Returns the configuration of the preset with vocabulary size `vocab_size`.
    pub fn config(self, vocab_size: usize) -> BertConfig {
        let (num_hidden_layers, hidden_size) = match self {
            Preset::Tiny => (2, 128),
            Preset::Mini => (4, 256),
            Preset::Small => (4, 512),
            Preset::Medium => (8, 512),
            Preset::Base => (12, 768),
            Preset::Large => (24, 1024),
        };
        BertConfig {
            vocab_size,
            hidden_size,
            num_hidden_layers,
            num_attention_heads: hidden_size / 64,
            intermediate_size: 4 * hidden_size,
            hidden_act: Activation::default(),
            hidden_dropout_prob: defaults::dropout(),
            attention_probs_dropout_prob: defaults::dropout(),
            classifier_dropout: None,
            max_position_embeddings: defaults::max_position_embeddings(),
            type_vocab_size: defaults::type_vocab_size(),
            initializer_range: defaults::initializer_range(),
            layer_norm_eps: defaults::layer_norm_eps(),
            pad_token_id: 0,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        by_name("preset", Preset::ALL, Preset::name, name)
    }
}

/// Returns the one of `all` values of a key whose name is `text`.
pub(super) fn by_name<T: Copy, const N: usize>(
    key: &'static str,
    all: [T; N],
    name: fn(T) -> &'static str,
    text: &str,
) -> Result<T, ConfigError> {
    all.into_iter()
        .find(|&value| name(value) == text)
        .ok_or_else(|| ConfigError::new(key, format!("one of {}", all.map(name).join(", ")), format!("{text:?}")))
}

/// A missing or invalid value of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} requires {requires}, got {got}")]
pub struct ConfigError {
    /// The key.
    pub key: &'static str,
    /// The requirement.
    pub requires: String,
    /// The value found.
    pub got: String,
}

impl ConfigError {
    pub(super) fn new(key: &'static str, requires: impl Into<String>, got: impl Into<String>) -> Self {
        ConfigError { key, requires: requires.into(), got: got.into() }
    }
}

impl BertConfig {
    /// Reads the text of a Hugging Face `config.json`.
    ///
    /// # Errors
    /// If a size is missing or invalid, or the file describes an unsupported model: not BERT, relative positions, a decoder,
    /// or an MLM decoder that is not tied to the word embeddings.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let unreadable =
            |e: serde_json::Error| ConfigError::new("config.json", "the configuration of a BERT model", e.to_string());
        let json: serde_json::Value = serde_json::from_str(text).map_err(unreadable)?;
        let only = |key: &'static str, expected: serde_json::Value| match json.get(key) {
            Some(found) if !found.is_null() && *found != expected => {
                Err(ConfigError::new(key, expected.to_string(), found.to_string()))
            }
            _ => Ok(()),
        };
        only("model_type", "bert".into())?;
        only("position_embedding_type", "absolute".into())?;
        only("is_decoder", false.into())?;
        only("tie_word_embeddings", true.into())?;
        let config: BertConfig = serde_json::from_value(json).map_err(unreadable)?;
        config.validate()?;
        Ok(config)
    }

    /// Returns the rows of the embedding table on the device: [`BertConfig::vocab_size`] rounded up to
    /// [`VOCABULARY_MULTIPLE`]. The padding rows are zero and have probability zero in the softmax.
    pub fn padded_vocab_size(&self) -> usize {
        self.vocab_size.next_multiple_of(VOCABULARY_MULTIPLE)
    }

    /// Returns the width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Names the first invalid key and its requirement.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size, MOST_TOKENS),
            ("hidden_size", self.hidden_size, MOST),
            ("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MOST),
            ("intermediate_size", self.intermediate_size, MOST),
            ("max_position_embeddings", self.max_position_embeddings, MOST),
            ("type_vocab_size", self.type_vocab_size, MOST),
        ];
        if let Some((key, size, most)) = sizes.into_iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            return Err(ConfigError::new(key, format!("1 to {most}"), size.to_string()));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let requires = format!("a multiple of num_attention_heads ({})", self.num_attention_heads);
            return Err(ConfigError::new("hidden_size", requires, self.hidden_size.to_string()));
        }
        if self.pad_token_id >= self.vocab_size {
            let requires = format!("a token id of the vocabulary (0 to {})", self.vocab_size - 1);
            return Err(ConfigError::new("pad_token_id", requires, self.pad_token_id.to_string()));
        }
        let probabilities = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or(0.0)),
        ];
        if let Some((key, p)) = probabilities.into_iter().find(|(_, p)| !(0.0..1.0).contains(p)) {
            return Err(ConfigError::new(key, "a probability from 0 to less than 1", p.to_string()));
        }
        let positive = [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)];
        if let Some((key, x)) = positive.into_iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
            return Err(ConfigError::new(key, "a positive number", x.to_string()));
        }
        Ok(())
    }

    /// Checks that rows of this length fit the model.
    ///
    /// # Errors
    /// If the sequence is longer than the position embeddings.
    pub fn validate_sequence_length(&self, sequence_length: usize) -> Result<(), ConfigError> {
        if sequence_length == 0 || sequence_length > self.max_position_embeddings {
            let requires = format!("1 to max_position_embeddings ({})", self.max_position_embeddings);
            return Err(ConfigError::new("sequence_length", requires, sequence_length.to_string()));
        }
        Ok(())
    }

    /// Checks that batches of this shape fit the model.
    ///
    /// # Errors
    /// If the sequence is longer than the position embeddings, or has more masked positions than tokens.
    pub fn validate_batch(&self, sequence_length: usize, predictions: usize) -> Result<(), ConfigError> {
        self.validate_sequence_length(sequence_length)?;
        if predictions == 0 || predictions > sequence_length {
            let requires = format!("1 to sequence_length ({sequence_length})");
            return Err(ConfigError::new("max_predictions_per_seq", requires, predictions.to_string()));
        }
        Ok(())
    }
}

/// The `[model]` table of a run file: a preset with overrides, or all sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertSettings {
    /// The preset that supplies unset sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Vocabulary size. The default is that of the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Width of the hidden states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Number of encoder layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Number of attention heads per layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Width of the feed-forward layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Activation of the feed-forward layer and the MLM transform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<Activation>,
    /// Dropout probability of embeddings and layer outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_dropout_prob: Option<f64>,
    /// Dropout probability of attention probabilities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention_probs_dropout_prob: Option<f64>,
    /// Dropout probability of the input of a classifier. The default is `hidden_dropout_prob`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_dropout: Option<f64>,
    /// Maximum sequence length: rows of the position embeddings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_position_embeddings: Option<usize>,
    /// Number of token types (segments).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_vocab_size: Option<usize>,
    /// Standard deviation of the initial weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// The epsilon of LayerNorm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_eps: Option<f64>,
    /// The id of the padding token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pad_token_id: Option<usize>,
}

impl BertSettings {
    /// Returns the complete configuration. `vocabulary`, the vocabulary size of the tokenizer, is the default of `vocab_size`.
    ///
    /// # Errors
    /// If a size is missing and no preset is set, or the configuration is invalid.
    pub fn resolve(&self, vocabulary: usize) -> Result<BertConfig, ConfigError> {
        let size = |key: &'static str, own: Option<usize>, preset: fn(&BertConfig) -> usize| {
            own.or_else(|| self.preset.map(|p| preset(&p.config(vocabulary))))
                .ok_or_else(|| ConfigError::new(key, "a value if `preset` is not set", "none"))
        };
        let config = BertConfig {
            vocab_size: self.vocab_size.unwrap_or(vocabulary),
            hidden_size: size("hidden_size", self.hidden_size, |c| c.hidden_size)?,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers, |c| c.num_hidden_layers)?,
            num_attention_heads: size("num_attention_heads", self.num_attention_heads, |c| c.num_attention_heads)?,
            intermediate_size: size("intermediate_size", self.intermediate_size, |c| c.intermediate_size)?,
            hidden_act: self.hidden_act.unwrap_or_default(),
            hidden_dropout_prob: self.hidden_dropout_prob.unwrap_or_else(defaults::dropout),
            attention_probs_dropout_prob: self.attention_probs_dropout_prob.unwrap_or_else(defaults::dropout),
            classifier_dropout: self.classifier_dropout,
            max_position_embeddings: self.max_position_embeddings.unwrap_or_else(defaults::max_position_embeddings),
            type_vocab_size: self.type_vocab_size.unwrap_or_else(defaults::type_vocab_size),
            initializer_range: self.initializer_range.unwrap_or_else(defaults::initializer_range),
            layer_norm_eps: self.layer_norm_eps.unwrap_or_else(defaults::layer_norm_eps),
            pad_token_id: self.pad_token_id.unwrap_or(0),
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_have_the_published_sizes() {
        let large = Preset::Large.config(30522);
        assert_eq!((large.num_hidden_layers, large.hidden_size, large.num_attention_heads), (24, 1024, 16));
        assert_eq!((large.intermediate_size, large.head_size(), large.padded_vocab_size()), (4096, 64, 30592));
        for preset in Preset::ALL {
            preset.config(30522).validate().unwrap();
            assert_eq!(preset.name().parse(), Ok(preset));
        }
    }

    #[test]
    fn hugging_face_configs_are_read_and_other_models_are_rejected() {
        let text = r#"{"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 500, "hidden_size": 24,
            "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 40, "hidden_act": "gelu_pytorch_tanh",
            "transformers_version": "5.0", "position_embedding_type": "absolute", "classifier_dropout": null}"#;
        let config = BertConfig::from_json(text).unwrap();
        assert_eq!((config.hidden_act, config.padded_vocab_size()), (Activation::GeluTanh, 512));
        let other = text.replace("\"bert\"", "\"roberta\"");
        let e = BertConfig::from_json(&other).unwrap_err();
        assert_eq!(e.to_string(), "model_type requires \"bert\", got \"roberta\"");
        let e = BertConfig::from_json(&text.replace("gelu_pytorch_tanh", "relu")).unwrap_err();
        assert!(e.to_string().contains("unknown variant `relu`"), "{e}");
    }

    #[test]
    fn invalid_values_are_rejected_by_name() {
        let base = Preset::Base.config(1000);
        let refusal = |change: fn(&mut BertConfig)| {
            let mut config = base.clone();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert_eq!(
            refusal(|c| c.num_attention_heads = 7),
            "hidden_size requires a multiple of num_attention_heads (7), got 768"
        );
        assert_eq!(refusal(|c| c.intermediate_size = 0), "intermediate_size requires 1 to 1048576, got 0");
        assert_eq!(refusal(|c| c.hidden_size = 1 << 31), "hidden_size requires 1 to 1048576, got 2147483648");
        assert_eq!(refusal(|c| c.num_hidden_layers = 1001), "num_hidden_layers requires 1 to 1000, got 1001");
        assert_eq!(
            refusal(|c| c.vocab_size = usize::MAX),
            "vocab_size requires 1 to 2147483520, got 18446744073709551615"
        );
        assert_eq!(
            refusal(|c| c.hidden_dropout_prob = 1.0),
            "hidden_dropout_prob requires a probability from 0 to less than 1, got 1"
        );
        let e = base.validate_batch(513, 20).unwrap_err();
        assert_eq!(e.to_string(), "sequence_length requires 1 to max_position_embeddings (512), got 513");
        let e = base.validate_batch(128, 129).unwrap_err();
        assert_eq!(e.to_string(), "max_predictions_per_seq requires 1 to sequence_length (128), got 129");
    }

    #[test]
    fn run_files_override_presets_and_unknown_keys_are_errors() {
        let settings: BertSettings = toml::from_str("preset = \"tiny\"\nnum_hidden_layers = 3").unwrap();
        let config = settings.resolve(8192).unwrap();
        assert_eq!((config.vocab_size, config.num_hidden_layers, config.hidden_size), (8192, 3, 128));
        let e = BertSettings::default().resolve(8192).unwrap_err();
        assert_eq!(e.to_string(), "hidden_size requires a value if `preset` is not set, got none");
        assert!(toml::from_str::<BertSettings>("num_heads = 3").is_err());
    }
}
