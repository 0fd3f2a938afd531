//! `lambert export`: a checkpoint becomes a directory that Hugging Face's `from_pretrained` loads.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::bert::{BertConfig, param_specs};
use crate::checkpoint::hugging_face::{PublishedModel, export};
use crate::checkpoint::{Parts, open};
use crate::shape::{DType, Shape};

/// Write a checkpoint as a directory that transformers loads: config.json, model.safetensors, tokenizer.
#[derive(Debug, Args)]
pub struct Export {
    /// A step-… directory, or a run directory (then its newest checkpoint is taken).
    checkpoint: PathBuf,
    /// The directory to write: not there yet, empty, or an earlier export that nobody has changed.
    #[arg(long)]
    out: PathBuf,
}

pub fn run(args: Export) -> anyhow::Result<ExitCode> {
    let loaded = open(&args.checkpoint, Parts::Model)?;
    loaded.notes.iter().for_each(|note| eprintln!("{note}"));
    let (path, checkpoint) = (loaded.path, loaded.checkpoint);
    if !checkpoint.state.missing.is_empty() {
        bail!(
            "{} lacks {} tensors of the model ({}, …), which training from it would make; train first, then export",
            path.display(),
            checkpoint.state.missing.len(),
            checkpoint.state.missing[0]
        );
    }
    let config = checkpoint.file("config.json").map(|text| (path.join("config.json"), text.to_vec()));
    let (config_path, config) =
        config.with_context(|| format!("{} lists no config.json; it was not written by a run", path.display()))?;
    let (_, model) = describe(&config_path, &config)?;

    let step = checkpoint.state.step;
    export(&path, checkpoint, &model, &args.out)?.iter().for_each(|note| eprintln!("{note}"));
    let out = args.out.display();
    println!("exported {} (step {step}, {} tensors) to {out}", path.display(), model.tensors.len());
    println!("load it with  AutoTokenizer.from_pretrained({out:?})  BertForPreTraining.from_pretrained({out:?})");
    Ok(ExitCode::SUCCESS)
}

/// The model that the text of a `config.json`, ours or theirs, describes.
pub(super) fn describe(path: &Path, text: &[u8]) -> anyhow::Result<(BertConfig, PublishedModel)> {
    let text = std::str::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?;
    let config = BertConfig::from_json(text).with_context(|| path.display().to_string())?;
    let published = |spec: crate::bert::ParamSpec| (spec.name, Shape::new(DType::F32, spec.published_dims));
    let tensors = param_specs(&config).into_iter().map(published).collect();
    let serde_json::Value::Object(keys) = serde_json::to_value(&config)? else {
        bail!("{} is not a table of keys", path.display());
    };
    Ok((config, PublishedModel { config: keys, tensors }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_are_the_tensors_of_bert_for_pretraining() {
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
