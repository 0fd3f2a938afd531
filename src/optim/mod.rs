//! Optimizers: named stages on tensors, one file for each update rule. The module imports no model; an optimizer sees
//! tensors and their names.
//!
//! An [`OptimizerConfig`] holds the `[optimizer]` table of a run file with every setting explicit. An [`Optimizer`] binds
//! a configuration to the tensors that it updates, with the name patterns resolved to one [`Treatment`] per tensor.
//!
//! ```toml
//! [optimizer]
//! kind = "lamb"          # the default; or "lars", "adamw", "sgd"
//! preset = "nvlamb"      # a published implementation of that kind
//! weight_decay = 0.02    # overrides the preset's value
//! ```
//!
//! An update of one tensor, as part of a graph:
//!
//! ```
//! use lambert::graph::Graph;
//! use lambert::optim::sgd::SgdConfig;
//! use lambert::optim::{Optimizer, OptimizerConfig, Placement, UpdateScalars};
//! use lambert::shape::{DType, Shape};
//!
//! let sgd = SgdConfig { nesterov: true, exclude_from_weight_decay: Vec::new(), ..SgdConfig::default() };
//! let optimizer = Optimizer::new(&OptimizerConfig::from(sgd), &["w"])?;
//! let graph = Graph::new("update");
//! let tensor = |name: &str| graph.parameter(name, Shape::new(DType::F32, [2, 3]));
//! let scalar = |name: &str| graph.parameter(name, Shape::scalar(DType::F32));
//! let (w, gradient, momentum) = (tensor("w"), tensor("gradient"), tensor("momentum"));
//! let numbers = optimizer.config().hyperparameters();
//! let scalars = UpdateScalars::constant(scalar("learning_rate"), scalar("t"), numbers);
//! let update = optimizer.update(&[w], &[gradient], &[vec![momentum]], &scalars, Placement::Replicated);
//! let computation = graph.finish(&[update.weights[0], update.state[0][0]]);
//! # assert_eq!(computation.outputs.len(), 2);
//! # Ok::<(), lambert::optim::OptimizerError>(())
//! ```
//!
//! To add an optimizer, write a file with a type that implements [`UpdateRule`], declare the file below, and add the
//! type to the list of kinds below.

pub mod adam;
pub mod adamw;
pub mod ema;
mod error;
pub mod hyperparameters;
pub mod lamb;
pub mod lars;
mod optimizer;
pub mod pattern;
mod rule;
pub mod sgd;
pub mod stages;

use serde::{Deserialize, Deserializer, Serialize};

pub use error::OptimizerError;
pub use hyperparameters::{Hyperparameters, UpdateScalars};
pub use optimizer::{Optimizer, Update};
pub use rule::{Finish, Param, PartialUpdate, Preset, TensorUpdate, Treatment, UpdateRule};
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

            /// Returns the presets of every kind, in the order of the kinds.
            pub fn catalogue() -> Vec<CatalogueEntry> {
                let mut entries = Vec::new();
                $(entries.extend(<$rule>::presets().iter().map(|preset| CatalogueEntry {
                    kind: $kind,
                    name: preset.name,
                    source: preset.source,
                    config: (preset.settings)().into(),
                }));)+
                entries
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

/// A published implementation that a run file can name.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogueEntry {
    /// The value of `kind`.
    pub kind: &'static str,
    /// The value of `preset`.
    pub name: &'static str,
    /// The implementation.
    pub source: &'static str,
    /// Its settings.
    pub config: OptimizerConfig,
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
    /// The `kind` of a table without one.
    pub const DEFAULT_KIND: &'static str = "lamb";

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
        let config = OptimizerConfig::of_kind(kind.as_deref().unwrap_or(Self::DEFAULT_KIND), preset.as_deref(), table)?;
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

    /// Returns the numbers in the formulas of an update, which are scalar arguments of the step: those of the clip, then those of
    /// the rule.
    pub fn hyperparameters(&self) -> Hyperparameters {
        let mut numbers = self.rule().gradient_clip().hyperparameters();
        numbers.extend(self.rule().hyperparameters());
        numbers
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
    R: UpdateRule + Default + Serialize + for<'de> Deserialize<'de> + 'static,
{
    let initial = match preset {
        None => R::default(),
        Some(name) => {
            let preset = R::presets().iter().find(|preset| preset.name == name);
            (preset.ok_or_else(|| unknown_preset(kind, name))?.settings)()
        }
    };
    let mut value = serde_json::to_value(initial).map_err(|e| OptimizerError::Settings(e.to_string()))?;
    if let Some(settings) = value.as_object_mut() {
        settings.extend(table);
    }
    settings::read(value).map_err(|wrong| OptimizerError::Settings(wrong.sentence()))
}

/// Returns the error about a preset that `kind` does not have, with the kinds that have it.
fn unknown_preset(kind: &str, name: &str) -> OptimizerError {
    let catalogue = OptimizerConfig::catalogue();
    let of_kind = catalogue.iter().filter(|entry| entry.kind == kind).map(|entry| entry.name);
    let others: Vec<String> =
        catalogue.iter().filter(|entry| entry.name == name).map(|entry| format!("{:?}", entry.kind)).collect();
    let elsewhere =
        if others.is_empty() { String::new() } else { format!(", a preset of kind {}", others.join(" and ")) };
    OptimizerError::Value {
        key: "preset",
        requires: format!("one of {} for kind {kind:?}", of_kind.collect::<Vec<_>>().join(", ")),
        got: format!("{name:?}{elsewhere}"),
    }
}

#[cfg(test)]
mod tests;
