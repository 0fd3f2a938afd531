//! Optimizers as named stages on tensors. Nothing here knows BERT: an optimizer sees tensors and their names.
//!
//! An [`OptimizerConfig`] is what a run file says, with every choice explicit; an [`Optimizer`] is that configuration
//! bound to a list of tensor names, with the patterns resolved into one [`Treatment`] a tensor.
//!
//! ```toml
//! [optimizer]
//! preset = "nvlamb"              # paper, albert, apex, nvlamb, deepspeed, optax, mlperf, lans; or kind = "adamw" | "lars"
//! weight_decay = 0.02            # any knob overrides the preset's
//! ```

mod adamw;
mod lamb;
mod lars;
mod pattern;
mod stages;

use serde::{Deserialize, Deserializer, Serialize};

pub use adamw::AdamWConfig;
pub use lamb::{Adaptation, Direction, LambConfig, LambPreset, WeightDecayMode};
pub use lars::{LarsConfig, LarsOrder};
pub use stages::{
    Adam, AdamScaled, BiasCorrection, ClipFormula, EpsilonPlace, GradientClip, Held, Phi, RatioClamp,
    add_decayed_weights, apply, joint_norm, scale_by_adam, trust_ratio,
};

use crate::graph::Tensor;
use crate::settings;

/// An optimizer with all its settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum OptimizerConfig {
    Lamb(LambConfig),
    Lars(LarsConfig),
    AdamW(AdamWConfig),
}

impl Default for OptimizerConfig {
    /// LAMB as the paper has it.
    fn default() -> Self {
        OptimizerConfig::Lamb(LambPreset::default().config())
    }
}

/// The settings of an optimizer are impossible, or do not fit the tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizerError {
    #[error("{key} requires {requires}, got {got}")]
    Value { key: &'static str, requires: String, got: String },
    /// The key, what it requires and what it has.
    #[error("{0}")]
    Settings(String),
}

/// What a run file writes: `preset` or `kind`, then any knob.
impl<'de> Deserialize<'de> for OptimizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let table = serde_json::Map::deserialize(deserializer)?;
        OptimizerConfig::from_table(table).map_err(serde::de::Error::custom)
    }
}

impl OptimizerConfig {
    /// The configuration that a table of settings means: `preset` (LAMB's) or `kind` chooses where to start, every other
    /// key overrides one knob.
    ///
    /// # Errors
    /// If a key is unknown or its value impossible.
    pub fn from_table(mut table: serde_json::Map<String, serde_json::Value>) -> Result<Self, OptimizerError> {
        let mut text = |key: &'static str| match table.remove(key) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                Err(OptimizerError::Value { key, requires: "a name in quotes".into(), got: other.to_string() })
            }
        };
        let (kind, preset) = (text("kind")?, text("preset")?);
        let kind = kind.as_deref().unwrap_or("lamb");
        if let Some(preset) = preset.as_deref().filter(|_| kind != "lamb") {
            let requires = "kind = \"lamb\": the presets are implementations of LAMB".to_string();
            return Err(OptimizerError::Value { key: "preset", requires, got: format!("{preset:?} of kind {kind:?}") });
        }
        let config = match kind {
            "lamb" => {
                let preset = preset.map_or(Ok(LambPreset::default()), |name| name.parse())?;
                OptimizerConfig::Lamb(overridden(&preset.config(), table)?)
            }
            "lars" => OptimizerConfig::Lars(overridden(&LarsConfig::default(), table)?),
            "adamw" => OptimizerConfig::AdamW(overridden(&AdamWConfig::default(), table)?),
            other => {
                let requires = "one of lamb, lars, adamw".to_string();
                return Err(OptimizerError::Value { key: "kind", requires, got: format!("{other:?}") });
            }
        };
        config.validate()?;
        Ok(config)
    }

    /// # Errors
    /// The first knob whose value is impossible, with what it requires.
    pub fn validate(&self) -> Result<(), OptimizerError> {
        match self {
            OptimizerConfig::Lamb(lamb) => lamb.validate(),
            OptimizerConfig::Lars(lars) => lars.validate(),
            OptimizerConfig::AdamW(adamw) => adamw.validate(),
        }
    }

    pub const fn name(&self) -> &'static str {
        match self {
            OptimizerConfig::Lamb(_) => "LAMB",
            OptimizerConfig::Lars(_) => "LARS",
            OptimizerConfig::AdamW(_) => "AdamW",
        }
    }

    /// The names of the tensors that the optimizer keeps for each parameter: `m/<tensor>` and so on in checkpoints.
    pub const fn slots(&self) -> &'static [&'static str] {
        match self {
            OptimizerConfig::Lamb(_) | OptimizerConfig::AdamW(_) => &["m", "v"],
            OptimizerConfig::Lars(_) => &["momentum"],
        }
    }

    /// Every knob that is in force, as (name, value) for people.
    pub fn describe(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("optimizer", self.name().to_string())];
        lines.extend(match self {
            OptimizerConfig::Lamb(lamb) => lamb.describe(),
            OptimizerConfig::Lars(lars) => lars.describe(),
            OptimizerConfig::AdamW(adamw) => adamw.describe(),
        });
        lines
    }

    fn gradient_clip(&self) -> GradientClip {
        match self {
            OptimizerConfig::Lamb(lamb) => lamb.gradient_clip,
            OptimizerConfig::Lars(lars) => lars.gradient_clip,
            OptimizerConfig::AdamW(adamw) => adamw.gradient_clip,
        }
    }
}

/// `start` with the keys of `table` in place of its own.
fn overridden<C: Serialize + for<'de> Deserialize<'de>>(
    start: &C,
    table: serde_json::Map<String, serde_json::Value>,
) -> Result<C, OptimizerError> {
    let mut value = serde_json::to_value(start).map_err(|e| OptimizerError::Settings(e.to_string()))?;
    if let Some(knobs) = value.as_object_mut() {
        knobs.extend(table);
    }
    settings::read(value).map_err(|wrong| OptimizerError::Settings(wrong.sentence()))
}

/// How one tensor is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Weight decay applies.
    pub decayed: bool,
    /// The trust ratio applies.
    pub adapted: bool,
}

/// A configuration bound to the tensors it updates.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    config: OptimizerConfig,
    treatments: Vec<Treatment>,
}

/// One tensor and all that belongs to it, in a graph under construction.
struct Variable<'g> {
    weight: Tensor<'g>,
    gradient: Tensor<'g>,
    slots: Vec<Tensor<'g>>,
    treatment: Treatment,
}

/// One tensor's update as far as it goes without norms, and how it goes on from them.
struct Directed<'a, 'g> {
    /// The tensors whose norms are asked for.
    measured: Vec<Tensor<'g>>,
    /// What is made of them, in the same order.
    finish: Box<Finish<'a, 'g>>,
}

/// From norms to new values.
type Finish<'a, 'g> = dyn FnOnce(&[Tensor<'g>]) -> Updated<'g> + 'a;

/// One tensor's new values.
struct Updated<'g> {
    weight: Tensor<'g>,
    slots: Vec<Tensor<'g>>,
    trust_ratio: Tensor<'g>,
}

/// All tensors' new values; lists are in the order of the names.
pub struct Update<'g> {
    pub weights: Vec<Tensor<'g>>,
    /// The slots of the first tensor, then of the second, …, each in the order of [`OptimizerConfig::slots`].
    pub slots: Vec<Vec<Tensor<'g>>>,
    /// A scalar for each tensor; 1 where no ratio applies. Of LANS's two, the momentum's.
    pub trust_ratios: Vec<Tensor<'g>>,
    /// The norm of each gradient, before clipping.
    pub gradient_norms: Vec<Tensor<'g>>,
    /// The norm of all gradients together, before clipping.
    pub gradient_norm: Tensor<'g>,
}

impl Optimizer {
    /// Binds `config` to tensors named `names`.
    ///
    /// # Errors
    /// If a knob has an impossible value or a pattern matches no name.
    pub fn new(config: &OptimizerConfig, names: &[&str]) -> Result<Self, OptimizerError> {
        config.validate()?;
        let undecayed = |patterns| pattern::matched("exclude_from_weight_decay", patterns, names);
        let (undecayed, unadapted) = match config {
            OptimizerConfig::Lamb(lamb) => {
                let undecayed = undecayed(&lamb.exclude_from_weight_decay)?;
                let unadapted = match &lamb.adaptation {
                    Adaptation::All => vec![false; names.len()],
                    Adaptation::AsWeightDecay => undecayed.clone(),
                    Adaptation::WhereDecayed => undecayed.iter().map(|&u| u || lamb.weight_decay == 0.0).collect(),
                    Adaptation::Exclude(patterns) => pattern::matched("adaptation.exclude", patterns, names)?,
                };
                (undecayed, unadapted)
            }
            OptimizerConfig::Lars(lars) => {
                let undecayed = undecayed(&lars.exclude_from_weight_decay)?;
                let unadapted = match &lars.exclude_from_adaptation {
                    None => undecayed.clone(),
                    Some(patterns) => pattern::matched("exclude_from_adaptation", patterns, names)?,
                };
                (undecayed, unadapted)
            }
            OptimizerConfig::AdamW(adamw) => (undecayed(&adamw.exclude_from_weight_decay)?, vec![true; names.len()]),
        };
        let both = undecayed.into_iter().zip(unadapted);
        let treatments = both.map(|(u, a)| Treatment { decayed: !u, adapted: !a }).collect();
        Ok(Optimizer { config: config.clone(), treatments })
    }

    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// How each tensor is treated, in the order of the names.
    pub fn treatments(&self) -> &[Treatment] {
        &self.treatments
    }

    /// One update of all tensors. `learning_rate` and `t` (the update's number, from 1) are scalars of the weights' type;
    /// `slots[i]` are those of tensor i.
    ///
    /// All norms are asked for at two places, for all tensors at once: those of the gradients, and those of weights and
    /// directions. So tensors that are held in parts need two exchanges, whatever their number.
    pub fn update<'g>(
        &self,
        weights: &[Tensor<'g>],
        gradients: &[Tensor<'g>],
        slots: &[Vec<Tensor<'g>>],
        learning_rate: Tensor<'g>,
        t: Tensor<'g>,
        held: Held,
    ) -> Update<'g> {
        let squares = held.squared_norms(gradients);
        let decayed: Vec<bool> = self.treatments.iter().map(|treatment| treatment.decayed).collect();
        let clipped = self.config.gradient_clip().clip(gradients, &squares, &decayed);
        let direct = |(i, &treatment): (usize, &Treatment)| {
            let variable = Variable { weight: weights[i], gradient: clipped[i], slots: slots[i].clone(), treatment };
            match &self.config {
                OptimizerConfig::Lamb(lamb) => lamb.update(&variable, learning_rate, t),
                OptimizerConfig::Lars(lars) => lars.update(&variable, learning_rate),
                OptimizerConfig::AdamW(adamw) => adamw.update(&variable, learning_rate, t),
            }
        };
        let directed: Vec<Directed> = self.treatments.iter().enumerate().map(direct).collect();
        let measured: Vec<Tensor> = directed.iter().flat_map(|tensor| tensor.measured.iter().copied()).collect();
        let mut norms = held.squared_norms(&measured).into_iter().map(Tensor::sqrt);

        let mut update = Update {
            weights: Vec::new(),
            slots: Vec::new(),
            trust_ratios: Vec::new(),
            gradient_norms: squares.iter().map(|square| square.sqrt()).collect(),
            gradient_norm: joint_norm(squares),
        };
        for Directed { measured, finish } in directed {
            let updated = finish(&norms.by_ref().take(measured.len()).collect::<Vec<_>>());
            update.weights.push(updated.weight);
            update.slots.push(updated.slots);
            update.trust_ratios.push(updated.trust_ratio);
        }
        update
    }
}

/// Google's list: neither biases nor LayerNorm decay.
fn default_exclusions() -> Vec<String> {
    vec!["*.bias".to_string(), "*LayerNorm*".to_string()]
}

fn or_none(patterns: &[String]) -> String {
    if patterns.is_empty() { "none".to_string() } else { patterns.join(", ") }
}

fn below_one(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number from 0 to less than 1", value, (0.0..1.0).contains(&value))
}

fn above_zero(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number above 0", value, value.is_finite() && value > 0.0)
}

fn not_negative(key: &'static str, value: f64) -> Result<(), OptimizerError> {
    require(key, "a number of at least 0", value, value.is_finite() && value >= 0.0)
}

fn validate_clip(clip: GradientClip) -> Result<(), OptimizerError> {
    match clip {
        GradientClip::GlobalNorm { max, .. } => above_zero("gradient_clip.global_norm.max", max),
        GradientClip::PerGroup { max, .. } => above_zero("gradient_clip.per_group.max", max),
        GradientClip::None | GradientClip::PerTensor => Ok(()),
    }
}

fn require(key: &'static str, requires: &str, value: f64, holds: bool) -> Result<(), OptimizerError> {
    match holds {
        true => Ok(()),
        false => Err(OptimizerError::Value { key, requires: requires.to_string(), got: value.to_string() }),
    }
}

#[cfg(test)]
mod tests;
