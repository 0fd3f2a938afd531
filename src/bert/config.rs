//! The BERT configuration, with the keys of Hugging Face's `config.json`. It is read from any `config.json`, and ignores keys that
//! do not affect the pretraining model.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::settings::{F32_NUMBER, fits_f32};

/// Implements `Display` and `FromStr` for the values of a key by their names: `$type::ALL` and `$type::name`.
macro_rules! named {
    ($type:ident, $key:literal) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::bert::ConfigError;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                $crate::bert::config::by_name($key, $type::ALL, $type::name, name)
            }
        }
    };
}
pub(super) use named;

/// The number of embedding rows is padded to a multiple of this: the lane count of a TPU, and a multiple of the tile sizes
/// of GPU and CPU matrix units.
pub const VOCABULARY_MULTIPLE: usize = 128;

/// The largest vocabulary size: token ids are s32, and the padded size must fit too.
const MOST_TOKENS: usize = i32::MAX as usize / VOCABULARY_MULTIPLE * VOCABULARY_MULTIPLE;
/// The largest value of every other size. It is far above any BERT, and prevents overflow in parameter and FLOP counts.
const MOST: usize = 1 << 20;
/// The largest number of layers. The program contains every layer separately.
const MOST_LAYERS: usize = 1000;

/// The keys that determine the shapes of the tensors.
pub const SIZES: [&str; 6] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
];

/// The keys that do not change what given weights compute without dropout.
const KEYS_OF_TRAINING: [&str; 4] =
    ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "initializer_range"];

/// The keys whose value is not null: all but `classifier_dropout`.
const WITH_VALUES: [&str; 13] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "pad_token_id",
];

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

pub(super) mod defaults {
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

named!(Preset, "preset");

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
        let json: Value = serde_json::from_str(text).map_err(unreadable)?;
        let only = |key: &'static str, expected: Value| match json.get(key) {
            Some(found) if !found.is_null() && *found != expected => {
                Err(ConfigError::new(key, expected.to_string(), found.to_string()))
            }
            _ => Ok(()),
        };
        only("model_type", "bert".into())?;
        only("position_embedding_type", "absolute".into())?;
        only("is_decoder", false.into())?;
        only("add_cross_attention", false.into())?;
        only("pruned_heads", serde_json::json!({}))?;
        only("tie_word_embeddings", true.into())?;
        if let Some(key) = WITH_VALUES.into_iter().find(|key| json.get(key).is_some_and(Value::is_null)) {
            let got = "null; write the value of the model, or remove the key if it has its usual value";
            return Err(ConfigError::new(key, "a value", got));
        }
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

    /// Returns the keys whose values differ from those of `other`, with both values. Dropout and the distribution of new weights
    /// may differ: with either, given weights compute the same function.
    pub fn differences(&self, other: &BertConfig) -> Vec<(String, Value, Value)> {
        let [mut own, mut other] = [self, other].map(BertConfig::to_map);
        let keys: BTreeSet<String> = own.keys().chain(other.keys()).cloned().collect();
        let values = keys.into_iter().map(|key| {
            let [own, other] = [&mut own, &mut other].map(|map| map.remove(&key).unwrap_or_default());
            (key, own, other)
        });
        values.filter(|(key, own, other)| own != other && !KEYS_OF_TRAINING.contains(&key.as_str())).collect()
    }

    fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            other => unreachable!("a configuration is an object, got {other:?}"),
        }
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
        if let Some((key, p)) = probabilities.into_iter().find(|(_, p)| !(0.0..1.0).contains(p) || *p as f32 == 1.0) {
            return Err(ConfigError::new(key, "a probability from 0 to less than 1", p.to_string()));
        }
        let positive = [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)];
        if let Some((key, x)) = positive.into_iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
            return Err(ConfigError::new(key, "a positive number", x.to_string()));
        }
        if let Some((key, x)) = probabilities.into_iter().chain(positive).find(|(_, x)| !fits_f32(*x)) {
            return Err(ConfigError::new(key, F32_NUMBER, format!("{x:e}")));
        }
        // Norms of the weights are sums of squares.
        let deviation = self.initializer_range;
        if !fits_f32(deviation * deviation) {
            let requires = "a number from 1.1e-19 to 1.8e19, whose square is computed in f32";
            return Err(ConfigError::new("initializer_range", requires, format!("{deviation:e}")));
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

    /// Checks that sequences of this number of segments fit the model: each has a row of the token type embeddings.
    ///
    /// # Errors
    /// If the model has fewer token types.
    pub fn validate_segments(&self, segments: usize) -> Result<(), ConfigError> {
        if segments > self.type_vocab_size {
            let requires = format!("at least {segments}, a token type for each segment of a sequence");
            return Err(ConfigError::new("type_vocab_size", requires, self.type_vocab_size.to_string()));
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
        for (key, requires) in [
            ("\"position_embedding_type\": \"relative_key\"", "position_embedding_type requires \"absolute\""),
            ("\"pruned_heads\": {\"0\": [1]}", "pruned_heads requires {}"),
            ("\"add_cross_attention\": true", "add_cross_attention requires false"),
            ("\"is_decoder\": true", "is_decoder requires false"),
        ] {
            let text = text.replace("\"position_embedding_type\": \"absolute\"", key);
            let message = BertConfig::from_json(&text).unwrap_err().to_string();
            assert!(message.starts_with(requires), "{message}");
        }
        for key in WITH_VALUES {
            let mut json: Value = serde_json::from_str(text).unwrap();
            json[key] = Value::Null;
            let message = BertConfig::from_json(&json.to_string()).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key} requires a value, got null; write")), "{message}");
        }
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
        assert!(refusal(|c| c.classifier_dropout = Some(0.999_999_999)).contains("to less than 1, got 0.999999999"));
        let useless =
            "requires a number in the range of f32, which computes it (magnitudes from 1.2e-38 to 3.4e38), got 1e-60";
        assert_eq!(refusal(|c| c.layer_norm_eps = 1e-60), format!("layer_norm_eps {useless}"));
        assert_eq!(refusal(|c| c.initializer_range = 1e-60), format!("initializer_range {useless}"));
        assert_eq!(refusal(|c| c.hidden_dropout_prob = 1e-60), format!("hidden_dropout_prob {useless}"));
        for (deviation, found) in [(1e30, "1e30"), (1e-30, "1e-30")] {
            let message =
                BertConfig { initializer_range: deviation, ..base.clone() }.validate().unwrap_err().to_string();
            let requires =
                "initializer_range requires a number from 1.1e-19 to 1.8e19, whose square is computed in f32";
            assert_eq!(message, format!("{requires}, got {found}"));
        }
        let e = base.validate_batch(513, 20).unwrap_err();
        assert_eq!(e.to_string(), "sequence_length requires 1 to max_position_embeddings (512), got 513");
        let e = base.validate_batch(128, 129).unwrap_err();
        assert_eq!(e.to_string(), "max_predictions_per_seq requires 1 to sequence_length (128), got 129");
    }

    type Change = fn(&mut BertConfig);

    #[test]
    fn keys_that_change_the_function_of_weights_are_compared() {
        let base = Preset::Base.config(1000);
        let differences = |change: Change| {
            let mut other = base.clone();
            change(&mut other);
            let found = base.differences(&other).into_iter();
            found.map(|(key, own, other)| format!("{key} {own} {other}")).collect::<Vec<_>>()
        };
        let changes: [(Change, &str); 10] = [
            (|c| c.vocab_size = 1001, "vocab_size 1000 1001"),
            (|c| c.hidden_size = 384, "hidden_size 768 384"),
            (|c| c.num_hidden_layers = 11, "num_hidden_layers 12 11"),
            (|c| c.num_attention_heads = 6, "num_attention_heads 12 6"),
            (|c| c.intermediate_size = 9, "intermediate_size 3072 9"),
            (|c| c.hidden_act = Activation::GeluTanh, "hidden_act \"gelu\" \"gelu_new\""),
            (|c| c.max_position_embeddings = 64, "max_position_embeddings 512 64"),
            (|c| c.type_vocab_size = 1, "type_vocab_size 2 1"),
            (|c| c.layer_norm_eps = 1e-5, "layer_norm_eps 1e-12 0.00001"),
            (|c| c.pad_token_id = 3, "pad_token_id 0 3"),
        ];
        for (change, expected) in changes {
            assert_eq!(differences(change).join(", "), expected);
        }
        let of_training = |c: &mut BertConfig| {
            (c.hidden_dropout_prob, c.attention_probs_dropout_prob) = (0.0, 0.2);
            (c.classifier_dropout, c.initializer_range) = (Some(0.3), 0.01);
        };
        assert!(differences(of_training).is_empty());
        assert_eq!(base.to_map().len(), changes.len() + KEYS_OF_TRAINING.len() - 1, "classifier_dropout is not set");
    }

    #[test]
    fn a_segment_requires_a_token_type() {
        let mut config = Preset::Base.config(1000);
        config.validate_segments(2).unwrap();
        config.type_vocab_size = 1;
        config.validate_segments(1).unwrap();
        let message = config.validate_segments(2).unwrap_err().to_string();
        assert_eq!(message, "type_vocab_size requires at least 2, a token type for each segment of a sequence, got 1");
    }
}
