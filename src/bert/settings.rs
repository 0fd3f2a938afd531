//! The `[model]` table of run files. It is partial: a run file names a preset and overrides some of its values; unknown keys are
//! errors.

use serde::{Deserialize, Serialize};

use super::config::{Activation, BertConfig, ConfigError, Preset, defaults};

/// The `[model]` table of a run file: a preset with overrides, or all sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertSettings {
    /// The preset that supplies unset sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// Rows of the word embeddings. The default is that of imported weights, or the number of tokens.
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
    /// Returns the complete configuration. `vocabulary` is the default of `vocab_size`.
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
    fn run_files_override_presets_and_unknown_keys_are_errors() {
        let settings: BertSettings = toml::from_str("preset = \"tiny\"\nnum_hidden_layers = 3").unwrap();
        let config = settings.resolve(8192).unwrap();
        assert_eq!((config.vocab_size, config.num_hidden_layers, config.hidden_size), (8192, 3, 128));
        let e = BertSettings::default().resolve(8192).unwrap_err();
        assert_eq!(e.to_string(), "hidden_size requires a value if `preset` is not set, got none");
        assert!(toml::from_str::<BertSettings>("num_heads = 3").is_err());
    }
}
