//! Opens the weights of a checkpoint, a run directory or a Hugging Face directory as a [`Checkpoint`] with tensors in device
//! shapes, and converts checkpoints from and to Hugging Face directories.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::bert::{BertConfig, param_specs};
use crate::checkpoint::hugging_face::{Architecture, Imported, PublishedModel, export, import};
use crate::checkpoint::{Checkpoint, Contents, Loaded, RunLock, load_latest, open, save};
use crate::digest::sha256_hex;
use crate::shape::{DType, Shape};
use crate::task::ParamSpec;

/// A model and its weights.
#[derive(Debug)]
pub struct FoundModel {
    /// The configuration of the model.
    pub config: BertConfig,
    /// The checkpoint that holds the weights.
    pub checkpoint: Checkpoint,
    /// The directory of the tensors.
    pub path: PathBuf,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Opens the model in `path`: a `step-…` directory, a run directory (its newest checkpoint), or the output of
/// `save_pretrained`. The optimizer state is not read.
///
/// # Errors
/// If `path` is none of these, or the model is damaged.
pub fn open_model(path: &Path) -> anyhow::Result<FoundModel> {
    let config_path = path.join("config.json");
    let is_checkpoint = path.join("state.json").exists();
    if !is_checkpoint && config_path.exists() {
        return import_model(path, &config_path);
    }
    let loaded = open(path, Contents::ModelOnly)?;
    let config_path = loaded.path.join("config.json");
    let Some(text) = loaded.checkpoint.file("config.json") else {
        bail!("{} does not exist; the checkpoint was not written by a run", config_path.display());
    };
    let (config, _) = describe(&config_path, text)?;
    Ok(FoundModel { config, checkpoint: loaded.checkpoint, path: loaded.path, notes: loaded.notes })
}

fn import_model(directory: &Path, config_path: &Path) -> anyhow::Result<FoundModel> {
    let text = std::fs::read(config_path).with_context(|| format!("cannot read {}", config_path.display()))?;
    let (config, model) = describe(config_path, &text)?;
    let mut imported = import(directory, &model)?;
    pad(&config, &mut imported.checkpoint);
    let missing = &imported.checkpoint.state.missing;
    let notes = match missing.is_empty() {
        true => Vec::new(),
        false => vec![format!(
            "{} lacks {}: these tensors are initialised randomly",
            directory.display(),
            missing.join(", ")
        )],
    };
    Ok(FoundModel { config, checkpoint: imported.checkpoint, path: directory.to_path_buf(), notes })
}

/// Pads imported tensors to the device shapes that a checkpoint has, and sets its vocabulary hash.
pub fn pad(config: &BertConfig, checkpoint: &mut Checkpoint) {
    let specs: HashMap<_, _> = param_specs(config).into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    for (name, tensor) in &mut checkpoint.model {
        if let Some(spec) = specs.get(name) {
            *tensor = spec.pad(tensor);
        }
    }
    if let Some(vocabulary) = checkpoint.file("vocab.txt") {
        checkpoint.state.vocabulary_sha256 = sha256_hex(vocabulary);
    }
}

/// Parses a `config.json` of lambert or of Hugging Face.
///
/// # Errors
/// If it is not a BERT configuration.
pub fn describe(path: &Path, text: &[u8]) -> anyhow::Result<(BertConfig, PublishedModel)> {
    let text = std::str::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?;
    let config = BertConfig::from_json(text).with_context(|| path.display().to_string())?;
    let published = |spec: ParamSpec| (spec.name, Shape::new(DType::F32, spec.published_dims));
    let tensors = param_specs(&config).into_iter().map(published).collect();
    let serde_json::Value::Object(keys) = serde_json::to_value(&config)? else {
        bail!("{} requires a JSON object", path.display());
    };
    Ok((config, PublishedModel { config: keys, tensors }))
}

/// An export for Hugging Face.
#[derive(Debug)]
pub struct Exported {
    /// The checkpoint that was exported.
    pub checkpoint: PathBuf,
    /// The step of the checkpoint.
    pub step: u64,
    /// The number of tensors.
    pub tensors: usize,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Writes the checkpoint at `path`, or the newest one of the run at `path`, to `out`, as the class `architecture` of
/// transformers loads it.
///
/// # Errors
/// If there is no complete checkpoint, it was not written by a run, or `out` holds something else than an earlier export.
pub fn export_model(path: &Path, architecture: Architecture, out: &Path) -> anyhow::Result<Exported> {
    let Loaded { path, checkpoint, mut notes } = open(path, Contents::ModelOnly)?;
    if let [first, ..] = checkpoint.state.missing.as_slice() {
        bail!(
            "{} lacks {} tensors of the model ({first}, …); a run that starts from it initialises them, so train first, \
             then export",
            path.display(),
            checkpoint.state.missing.len(),
        );
    }
    let config = checkpoint.file("config.json").map(|text| (path.join("config.json"), text.to_vec()));
    let (config_path, config) =
        config.with_context(|| format!("{} has no config.json; it was not written by a run", path.display()))?;
    let (_, model) = describe(&config_path, &config)?;
    let step = checkpoint.state.step;
    notes.extend(export(&path, checkpoint, &model, architecture, out)?);
    let tensors = model.tensors.iter().filter(|(name, _)| architecture.has(name)).count();
    Ok(Exported { checkpoint: path, step, tensors, notes })
}

/// A checkpoint of step 0 that was made from a Hugging Face directory.
#[derive(Debug)]
pub struct ImportedCheckpoint {
    /// The directory of the checkpoint.
    pub path: PathBuf,
    /// The source of the weights and the tensors that it lacks.
    pub imported: Imported,
    /// The number of tensors of the model.
    pub tensors: usize,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Imports the Hugging Face `directory` as the checkpoint of step 0 in the new run directory `out`.
///
/// # Errors
/// If `directory` holds no BERT model, or `out` holds checkpoints.
pub fn import_checkpoint(directory: &Path, out: &Path) -> anyhow::Result<ImportedCheckpoint> {
    if load_latest(out, Contents::ModelOnly)?.is_some() {
        bail!("{} already holds checkpoints; choose another output directory", out.display());
    }
    let config_path = directory.join("config.json");
    let text = std::fs::read(&config_path).with_context(|| {
        format!("cannot read {}; name the output directory of save_pretrained", config_path.display())
    })?;
    let (config, model) = describe(&config_path, &text)?;
    let mut imported = import(directory, &model)?;
    pad(&config, &mut imported.checkpoint);
    let _lock = RunLock::take(out)?;
    let saved = save(out, &imported.checkpoint, 0)?;
    Ok(ImportedCheckpoint { path: saved.path, imported, tensors: model.tensors.len(), notes: saved.notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_tensors_are_those_of_bert_for_pretraining() {
        let text = r#"{"vocab_size": 21, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 3,
            "intermediate_size": 10, "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 12}"#;
        let (_, model) = describe(Path::new("config.json"), text.as_bytes()).unwrap();
        // 5 embeddings, 16 a layer, 2 pooler, 7 heads.
        assert_eq!(model.tensors.len(), 5 + 2 * 16 + 2 + 7);
        let shape = |name: &str| model.tensors.iter().find(|(n, _)| n == name).map(|(_, shape)| shape.to_string());
        assert_eq!(shape("bert.embeddings.word_embeddings.weight").as_deref(), Some("f32[21,6]"));
        assert_eq!(shape("bert.encoder.layer.1.intermediate.dense.weight").as_deref(), Some("f32[10,6]"));
        assert_eq!(shape("cls.predictions.bias").as_deref(), Some("f32[21]"));
        assert_eq!(shape("cls.predictions.decoder.weight"), None);
        assert_eq!(model.config["hidden_act"], "gelu_new");
        let error = describe(Path::new("D/config.json"), b"{}").unwrap_err();
        assert!(format!("{error:#}").contains("D/config.json"), "{error:#}");
    }
}
