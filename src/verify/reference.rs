//! A directory of reference values: the results of one small model, computed by another implementation.
//!
//! ```text
//! DIR/config.json                 Hugging Face's configuration; its dropout probabilities are not used
//!     model.safetensors           first weights, f32, by Hugging Face's names
//!     batches.safetensors         t/input_ids … for t = 0, 1, …: the tensors of a batch
//!     expected_step0.safetensors  on batch 0: sequence_output, the logits of both heads, grad/<tensor>
//!     optimizers.json             optimizers by name: lr and an `[optimizer]` table; entries whose value is text are remarks
//!     trajectories.json           by optimizer, one row a batch: lr, losses, … before that step's update
//!     expected_final.safetensors  <optimizer>/<tensor>: weights after the last step, for some optimizers
//! ```
//! Step t, from 1, uses batch t − 1. An optimizer has any setting of a run file, also `preset`. Unless it has a preset or its own
//! `exclude_from_weight_decay`, tensors whose names end in `bias` or contain `LayerNorm` do not decay. The size of the model and the
//! number of batches are free.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::batch::pretraining::RowForm;
use crate::bert::{BertConfig, param_specs};
use crate::checkpoint::TensorFile;
use crate::files;
use crate::optim::{OptimizerConfig, OptimizerError};
use crate::shape::HostTensor;
use crate::task::ParamSpec;

/// One directory, read and checked for completeness.
pub struct ReferenceCase {
    /// The configuration of the model.
    pub config: BertConfig,
    /// The parameters of the model.
    pub params: Vec<ParamSpec>,
    /// First weights in the published shapes, in the order of `params`.
    pub weights: Vec<HostTensor>,
    /// The tensors of each batch, in the order of [`crate::batch::pretraining::PretrainingTensors`].
    pub batches: Vec<[HostTensor; 7]>,
    /// The final hidden states of the first batch.
    pub sequence_output: HostTensor,
    /// The MLM logits of the first batch.
    pub masked_lm_logits: HostTensor,
    /// The next-sentence logits of the first batch.
    pub seq_relationship_logits: HostTensor,
    /// In the order of `params`.
    pub gradients: Vec<HostTensor>,
    /// The trajectory of every optimizer.
    pub trajectories: Vec<Trajectory>,
}

/// The trajectory of one optimizer.
pub struct Trajectory {
    /// The name of the optimizer.
    pub name: String,
    /// The settings of the optimizer.
    pub optimizer: OptimizerConfig,
    /// The steps, in order.
    pub rows: Vec<Row>,
    /// Weights after the last row, in the order of the parameters; none if the case has none.
    pub final_weights: Option<Vec<HostTensor>>,
}

/// One step of a trajectory, measured before its update.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Row {
    /// The learning rate.
    pub lr: f64,
    /// The loss.
    pub loss: f64,
    /// The MLM loss.
    pub mlm_loss: f64,
    /// The next-sentence loss.
    pub nsp_loss: f64,
    /// The MLM accuracy.
    pub mlm_accuracy: f64,
    /// The global gradient norm.
    pub grad_norm: f64,
}

/// An entry of `optimizers.json`: the peak learning rate, and the settings of an optimizer as an `[optimizer]` table has them. Two
/// settings have a second form: `bias_correction` may be a Boolean, and the clip may be `grad_clip`.
#[derive(Deserialize)]
struct Settings {
    #[serde(rename = "lr")]
    _peak_rate: f64,
    bias_correction: Option<BiasCorrection>,
    grad_clip: Option<Clip>,
    /// A remark.
    #[serde(rename = "formula")]
    _formula: Option<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BiasCorrection {
    Applied(bool),
    Named(serde_json::Value),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clip {
    global_norm: f64,
    #[serde(rename = "formula")]
    _formula: Option<String>,
}

impl Settings {
    /// Returns the optimizer.
    fn config(self) -> Result<OptimizerConfig, OptimizerError> {
        let mut table = self.others;
        if !table.contains_key("preset") {
            table.entry("exclude_from_weight_decay").or_insert_with(|| json!(["*bias", "*LayerNorm*"]));
        }
        if let Some(correction) = self.bias_correction {
            let named = match correction {
                BiasCorrection::Applied(applied) => json!(if applied { "in_update" } else { "none" }),
                BiasCorrection::Named(name) => name,
            };
            table.insert("bias_correction".to_string(), named);
        }
        if let Some(clip) = self.grad_clip {
            let clip = json!({"global_norm": {"max": clip.global_norm, "formula": "apex"}});
            if table.insert("gradient_clip".to_string(), clip).is_some() {
                return Err(OptimizerError::Settings(
                    "grad_clip requires no gradient_clip beside it, got both".to_string(),
                ));
            }
        }
        OptimizerConfig::from_table(table)
    }
}

impl ReferenceCase {
    /// Reads a directory of reference values.
    ///
    /// # Errors
    /// If a file or tensor is missing or does not have the documented layout, or if two files contradict each other. The
    /// message names the file and the tensor or key.
    pub fn read(directory: &Path) -> Result<ReferenceCase> {
        ensure!(directory.is_dir(), "{} is not a directory of reference values", directory.display());
        let config_path = directory.join("config.json");
        let text = files::read_to_string(&config_path).with_context(|| {
            format!(
                "cannot read {}; name a directory of reference values, as tests/fixtures/bert_small",
                config_path.display()
            )
        })?;
        let config = BertConfig::from_json(&text).with_context(|| config_path.display().to_string())?;
        let params = param_specs(&config);

        let mut model = Tensors::open(directory.join("model.safetensors"))?;
        let weights = model.parameters("", &params)?;
        let batches = read_batches(directory, &config)?;
        let mut step0 = Tensors::open(directory.join("expected_step0.safetensors"))?;
        let [rows, length] = *batches[0][0].shape().dims else { unreachable!("input_ids has two dimensions") };
        let predictions = batches[0][3].shape().dims[1];
        Ok(ReferenceCase {
            sequence_output: step0.read("sequence_output", &[rows, length, config.hidden_size])?,
            masked_lm_logits: step0.read("masked_lm_logits", &[rows, predictions, config.vocab_size])?,
            seq_relationship_logits: step0.read("seq_relationship_logits", &[rows, 2])?,
            gradients: step0.parameters("grad/", &params)?,
            trajectories: read_trajectories(directory, &params, batches.len())?,
            config,
            params,
            weights,
            batches,
        })
    }

    /// Rows, sequence length and predictions of every batch.
    pub fn batch_form(&self) -> (usize, usize, usize) {
        let batch = &self.batches[0];
        (batch[0].shape().dims[0], batch[0].shape().dims[1], batch[3].shape().dims[1])
    }
}

/// A safetensors file. Errors about it contain its path.
struct Tensors {
    path: PathBuf,
    file: TensorFile,
}

impl Tensors {
    fn open(path: PathBuf) -> Result<Tensors> {
        Ok(Tensors { file: TensorFile::open(&path)?, path })
    }

    fn has(&self, name: &str) -> bool {
        self.file.names().any(|n| n == name)
    }

    fn read(&mut self, name: &str, dims: &[usize]) -> Result<HostTensor> {
        let tensor = self.file.read(name)?;
        let (path, found) = (self.path.display(), &tensor.shape().dims);
        ensure!(found == dims, "{path}: {name} requires dimensions {dims:?}, got {found:?}");
        Ok(tensor)
    }

    fn parameters(&mut self, prefix: &str, params: &[ParamSpec]) -> Result<Vec<HostTensor>> {
        params.iter().map(|p| self.read(&format!("{prefix}{}", p.name), &p.published_dims)).collect()
    }
}

fn read_batches(directory: &Path, config: &BertConfig) -> Result<Vec<[HostTensor; 7]>> {
    let mut file = Tensors::open(directory.join("batches.safetensors"))?;
    let path = file.path.display().to_string();
    ensure!(file.has("0/input_ids"), "{path} requires at least one batch (0/input_ids), got none");
    let form = |file: &mut Tensors, name: &str| -> Result<[usize; 2]> {
        let dims = file.file.read(name)?.shape().dims.clone();
        <[usize; 2]>::try_from(dims)
            .map_err(|dims| anyhow::anyhow!("{path}: {name} requires 2 dimensions, got {dims:?}"))
    };
    let [rows, length] = form(&mut file, "0/input_ids")?;
    let [_, predictions] = form(&mut file, "0/masked_lm_positions")?;
    config.validate_batch(length, predictions).with_context(|| path.clone())?;
    let spec = RowForm { sequence_length: length, max_predictions: predictions, sequences_per_row: 1 }.spec();
    let mut batches = Vec::new();
    while file.has(&format!("{}/input_ids", batches.len())) {
        let mut batch = Vec::new();
        for (name, shape) in spec.shapes(rows) {
            let name = format!("{}/{name}", batches.len());
            let tensor = file.read(&name, &shape.dims)?;
            let found = tensor.shape();
            ensure!(*found == shape, "{path}: {name} requires {shape}, got {found}");
            batch.push(tensor);
        }
        batches.push(<[HostTensor; 7]>::try_from(batch).map_err(|_| anyhow::anyhow!("a batch has seven tensors"))?);
    }
    Ok(batches)
}

fn read_trajectories(directory: &Path, params: &[ParamSpec], batches: usize) -> Result<Vec<Trajectory>> {
    let mut settings: BTreeMap<String, serde_json::Value> = read_json(directory, "optimizers.json")?;
    settings.retain(|_, value| !value.is_string());
    let rows: BTreeMap<String, Vec<Row>> = read_json(directory, "trajectories.json")?;
    let mut finals = Tensors::open(directory.join("expected_final.safetensors"))?;
    let mut trajectories = Vec::new();
    for (name, rows) in rows {
        let settings = settings.remove(&name).with_context(|| {
            format!("optimizers.json requires an entry {name:?}, because trajectories.json has one; got none")
        })?;
        let optimizer = serde_json::from_value(settings)
            .map_err(anyhow::Error::from)
            .and_then(|settings: Settings| Ok(settings.config()?))
            .with_context(|| format!("optimizers.json: {name}"))?;
        ensure!(
            !rows.is_empty() && rows.len() <= batches,
            "trajectories.json: {name} requires 1 to {batches} rows, one for each batch, got {}",
            rows.len()
        );
        let prefix = format!("{name}/");
        let has_finals = finals.file.names().any(|n| n.starts_with(&prefix));
        let final_weights = if has_finals { Some(finals.parameters(&prefix, params)?) } else { None };
        trajectories.push(Trajectory { name, optimizer, rows, final_weights });
    }
    ensure!(!trajectories.is_empty(), "trajectories.json requires at least one optimizer, got none");
    Ok(trajectories)
}

fn read_json<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<T> {
    let path = directory.join(name);
    let text = files::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} does not have the documented layout", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn optimizer(entry: serde_json::Value) -> Result<OptimizerConfig, String> {
        let settings: Settings = serde_json::from_value(entry).map_err(|e| e.to_string())?;
        settings.config().map_err(|e| e.to_string())
    }

    #[test]
    fn optimizers_json_entries_equal_run_file_settings() {
        let exclude = "exclude_from_weight_decay = ['*bias', '*LayerNorm*']\n";
        let run_file = |text: &str| -> OptimizerConfig { toml::from_str(&format!("{exclude}{text}")).unwrap() };
        let moments = json!({"lr": 0.002, "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-7, "weight_decay": 0.1});
        let entry = |kind: &str, others: serde_json::Value| {
            let mut entry = if kind == "lamb" || kind == "adamw" { moments.clone() } else { json!({"lr": 0.5}) };
            let table = entry.as_object_mut().unwrap();
            table.insert("kind".to_string(), kind.into());
            table.extend(others.as_object().unwrap().clone());
            optimizer(entry)
        };
        let moments = "beta1 = 0.8\nbeta2 = 0.99\nepsilon = 1e-7\nweight_decay = 0.1\n";
        assert_eq!(
            entry("lamb", json!({"bias_correction": false, "grad_clip": {"global_norm": 1.0, "formula": "text"}})),
            Ok(run_file(&format!(
                "{moments}bias_correction = 'none'\ngradient_clip = {{ global_norm = {{ max = 1.0, formula = 'apex' }} }}"
            )))
        );
        assert_eq!(
            entry("lamb", json!({"bias_correction": true, "grad_clip": null})),
            Ok(run_file(&format!("{moments}bias_correction = 'in_update'")))
        );
        assert_eq!(
            entry("adamw", json!({"bias_correction": false})),
            Ok(run_file(&format!("kind = 'adamw'\n{moments}bias_correction = 'none'")))
        );
        assert_eq!(
            entry("lars", json!({"momentum": 0.8, "trust_coefficient": 0.01, "formula": "text"})),
            Ok(run_file("kind = 'lars'\nmomentum = 0.8\ntrust_coefficient = 0.01"))
        );
        assert_eq!(
            entry("sgd", json!({"momentum": 0.8, "nesterov": true, "weight_decay_mode": "decoupled"})),
            Ok(run_file("kind = 'sgd'\nmomentum = 0.8\nnesterov = true\nweight_decay_mode = 'decoupled'"))
        );
        assert!(
            entry("sgd", json!({"bias_correction": true})).unwrap_err().contains("unknown field `bias_correction`")
        );
        assert!(entry("adam", json!({})).unwrap_err().starts_with("kind requires one of lamb, lars, adamw, sgd"));
        // A whole table of a run file.
        assert_eq!(
            entry("lars", json!({"preset": "timm", "weight_decay": 0.1, "exclude_from_weight_decay": ["*bias"]})),
            Ok(toml::from_str(
                "kind = 'lars'\npreset = 'timm'\nweight_decay = 0.1\nexclude_from_weight_decay = ['*bias']"
            )
            .unwrap())
        );
        assert_eq!(
            optimizer(json!({"lr": 1.0, "preset": "optax"})),
            Ok(toml::from_str("preset = 'optax'").unwrap()),
            "a preset has its own exclusions"
        );
        let table = json!({
            "lr": 1.0, "kind": "lamb", "bias_correction": "learning_rate_only", "adaptation": "all",
            "gradient_clip": {"per_group": {"max": 0.5}}, "ratio_clamp": {"min": 0.01, "max": 10.0},
            "exclude_from_weight_decay": [],
        });
        let same = "bias_correction = 'learning_rate_only'\nadaptation = 'all'\ngradient_clip = { per_group = { max = 0.5 } }\n\
                    ratio_clamp = { min = 0.01, max = 10.0 }\nexclude_from_weight_decay = []";
        assert_eq!(optimizer(table), Ok(toml::from_str(same).unwrap()));
        let both = json!({"lr": 1.0, "grad_clip": {"global_norm": 1.0}, "gradient_clip": "none"});
        assert!(optimizer(both).unwrap_err().starts_with("grad_clip requires no gradient_clip"));
        let misspelt = json!({"lr": 1.0, "kind": "lamb", "bias_correction": "some"});
        assert_eq!(
            optimizer(misspelt).unwrap_err(),
            "bias_correction requires one of `none`, `in_update`, `learning_rate_only`, `first_moment_only`, got `some`"
        );
    }
}
