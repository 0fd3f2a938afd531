//! Optimizers: named stages on tensors, one file for each update rule. The module imports no model; an optimizer sees
//! tensors and their names.
//!
//! An [`OptimizerConfig`] holds the `[optimizer]` table of a run file with every setting explicit. An [`Optimizer`] binds
//! a configuration to the tensors that it updates, with the name patterns resolved to one [`Treatment`] per tensor.
//!
//! ```toml
//! [optimizer]
//! preset = "nvlamb"      # paper, albert, apex, nvlamb, deepspeed, optax, mlperf, lans; or kind = "lars" | "adamw" | "sgd"
//! weight_decay = 0.02    # overrides the preset's value
//! ```
//!
//! An update of one tensor, as part of a graph:
//!
//! ```
//! use lambert::graph::Graph;
//! use lambert::optim::sgd::SgdConfig;
//! use lambert::optim::{Optimizer, OptimizerConfig, Placement};
//! use lambert::shape::{DType, Shape};
//!
//! let sgd = SgdConfig { nesterov: true, exclude_from_weight_decay: Vec::new(), ..SgdConfig::default() };
//! let optimizer = Optimizer::new(&OptimizerConfig::from(sgd), &["w"])?;
//! let graph = Graph::new("update");
//! let tensor = |name: &str| graph.parameter(name, Shape::new(DType::F32, [2, 3]));
//! let scalar = |name: &str| graph.parameter(name, Shape::scalar(DType::F32));
//! let (w, gradient, momentum) = (tensor("w"), tensor("gradient"), tensor("momentum"));
//! let (rate, t) = (scalar("learning_rate"), scalar("t"));
//! let update = optimizer.update(&[w], &[gradient], &[vec![momentum]], rate, t, Placement::Replicated);
//! let computation = graph.finish(&[update.weights[0], update.state[0][0]]);
//! # assert_eq!(computation.outputs.len(), 2);
//! # Ok::<(), lambert::optim::OptimizerError>(())
//! ```
//!
//! To add an optimizer, write a file with a type that implements [`UpdateRule`], declare the file below, and add the
//! type to the list of kinds below.

pub mod adamw;
pub mod lamb;
pub mod lars;
mod optimizer;
pub mod pattern;
mod rule;
pub mod sgd;
pub mod stages;

use serde::{Deserialize, Deserializer, Serialize};

pub use optimizer::{Optimizer, Update};
pub use rule::{Finish, OptimizerError, Param, PartialUpdate, TensorUpdate, Treatment, UpdateRule};
pub use stages::{Placement, global_norm};

use crate::settings;

/// A table of settings, as a run file spells them.
type Table = serde_json::Map<String, serde_json::Value>;

/// Makes [`OptimizerConfig`] from the list of kinds: each line has the `kind` of run files, the variant, and the type
/// that implements [`UpdateRule`].
macro_rules! optimizer_kinds {
    ($($kind:literal => $variant:ident($rule:ty),)+) => {
        /// An optimizer with all its settings.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "kind")]
        pub enum OptimizerConfig {
            $(
                #[doc = concat!("`kind = \"", $kind, "\"`")]
                #[serde(rename = $kind)]
                $variant($rule),
            )+
        }

        $(
            impl From<$rule> for OptimizerConfig {
                fn from(rule: $rule) -> Self {
                    OptimizerConfig::$variant(rule)
                }
            }
        )+

        impl OptimizerConfig {
            /// The values of `kind` in a run file.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// Returns the update rule.
            pub fn rule(&self) -> &dyn UpdateRule {
                match self {
                    $(OptimizerConfig::$variant(rule) => rule,)+
                }
            }

            /// Returns the preset of `kind`, or its defaults, overridden by the settings of `table`.
            fn of_kind(kind: &str, preset: Option<&str>, table: Table) -> Result<Self, OptimizerError> {
                match kind {
                    $($kind => Ok(configured::<$rule>(kind, preset, table)?.into()),)+
                    other => Err(OptimizerError::Value {
                        key: "kind",
                        requires: format!("one of {}", Self::KINDS.join(", ")),
                        got: format!("{other:?}"),
                    }),
                }
            }
        }
    };
}

optimizer_kinds! {
    "lamb" => Lamb(lamb::LambConfig),
    "lars" => Lars(lars::LarsConfig),
    "adamw" => AdamW(adamw::AdamWConfig),
    "sgd" => Sgd(sgd::SgdConfig),
}

impl Default for OptimizerConfig {
    /// Returns LAMB with the preset `paper`.
    fn default() -> Self {
        lamb::LambConfig::default().into()
    }
}

/// Reads the form of a run file: `preset` or `kind`, then any setting.
impl<'de> Deserialize<'de> for OptimizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = serde_json::Map::deserialize(deserializer)?;
        OptimizerConfig::from_table(table).map_err(serde::de::Error::custom)
    }
}

impl OptimizerConfig {
    /// Reads a table of settings: `kind` (LAMB by default) and `preset` choose the initial values, every other key
    /// overrides one setting.
    ///
    /// # Errors
    /// If a key is unknown or its value is out of range.
    pub fn from_table(mut table: Table) -> Result<Self, OptimizerError> {
        let mut text = |key: &'static str| match table.remove(key) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(OptimizerError::Value { key, requires: "a name in quotes".into(), got: other.to_string() })
            }
        };
        let (kind, preset) = (text("kind")?, text("preset")?);
        let config = OptimizerConfig::of_kind(kind.as_deref().unwrap_or("lamb"), preset.as_deref(), table)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the range of every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, or does not fit f32, with what it requires.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        self.rule().validate()?;
        let settings = serde_json::to_value(self).map_err(|e| OptimizerError::Settings(e.to_string()))?;
        match settings::outside_f32(&settings) {
            Some((key, x)) => {
                Err(OptimizerError::Settings(format!("{key} requires {}, got {x:e}", settings::F32_NUMBER)))
            }
            None => Ok(()),
        }
    }

    /// Returns the optimizer's name for people, as `LAMB`.
    pub fn name(&self) -> &'static str {
        self.rule().name()
    }

    /// Returns the names of the state tensors that the optimizer keeps for each parameter. A checkpoint names them
    /// `m/<parameter>` and so on.
    pub fn state_names(&self) -> &'static [&'static str] {
        self.rule().state_names()
    }

    /// Returns every resolved setting as (name, value), formatted for display.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("optimizer", self.name().to_string())];
        lines.extend(self.rule().describe());
        lines
    }
}

/// Returns the rule `R` with a preset's settings, or the defaults, overridden by those of `table`.
fn configured<R>(kind: &str, preset: Option<&str>, table: Table) -> Result<R, OptimizerError>
where
    R: UpdateRule + Default + Serialize + for<'de> Deserialize<'de>,
{
    let initial = match preset {
        None => R::default(),
        Some(name) => R::preset(name).ok_or_else(|| match R::preset_names() {
            [] => OptimizerError::Value {
                key: "preset",
                requires: "a kind that has presets, as \"lamb\"".to_string(),
                got: format!("{name:?} of kind {kind:?}"),
            },
            names => OptimizerError::Value {
                key: "preset",
                requires: format!("one of {}", names.join(", ")),
                got: format!("{name:?}"),
            },
        })?,
    };
    let mut value = serde_json::to_value(initial).map_err(|e| OptimizerError::Settings(e.to_string()))?;
    if let Some(settings) = value.as_object_mut() {
        settings.extend(table);
    }
    settings::read(value).map_err(|wrong| OptimizerError::Settings(wrong.sentence()))
}

#[cfg(test)]
mod tests;
