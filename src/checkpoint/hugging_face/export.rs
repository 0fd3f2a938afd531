//! Export of a checkpoint to a directory that `from_pretrained` loads without missing, unexpected or mismatched tensors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Architecture, PREDICTIONS_BIAS, PublishedModel, WORD_EMBEDDINGS, tokenizer};
use crate::checkpoint::copied_files::{Listing, create_folder_of};
use crate::checkpoint::save::check_space;
use crate::checkpoint::tensor_file::{FileRecord, write_bytes, write_tensors};
use crate::checkpoint::{Checkpoint, CheckpointError, MODEL, arrange, is_copied_file, is_sentence_transformers_file};
use crate::files::{self, partial_path};
use crate::shape::{HostTensor, Shape};

/// The file that records the content of an export, so that only an unchanged export is ever replaced.
const RECEIPT: &str = "lambert_export.json";
/// The model card.
pub const MODEL_CARD: &str = "README.md";
/// The model for ONNX runtimes: the name that transformers.js and text-embeddings-inference look for.
pub const ONNX_MODEL: &str = "onnx/model.onnx";

#[derive(Serialize, Deserialize)]
struct Receipt {
    step: u64,
    files: BTreeMap<String, FileRecord>,
}

/// Writes the weights, configuration and tokenizer of `checkpoint` to `out`, as `architecture` loads them, and the files of `more`,
/// [`MODEL_CARD`] and [`ONNX_MODEL`]. `source` is the checkpoint's directory for messages, and `model` describes its model. An
/// unchanged earlier export is replaced; any other directory must be empty or not exist. Returns messages for the user.
///
/// # Errors
/// [`CheckpointError::WouldOverwrite`]; a tensor error if the checkpoint has another model; [`CheckpointError::Heads`] if the
/// model lacks heads of `architecture`; [`CheckpointError::Config`] if its tokenizer does not fit; [`CheckpointError::NoSpace`];
/// or if the file system reports an error.
pub fn export(
    source: &Path,
    checkpoint: Checkpoint,
    model: &PublishedModel,
    architecture: Architecture,
    more: Vec<(&str, Vec<u8>)>,
    out: &Path,
) -> Result<Vec<String>, CheckpointError> {
    // The directory is created by a rename, so `.` and `..` must be replaced by a name.
    let absolute = if out.exists() { fs::canonicalize(out) } else { std::path::absolute(out) };
    let out = &absolute.map_err(CheckpointError::io("find", out))?;
    check_replaceable(out)?;
    if !model.architecture.exports().contains(&architecture) {
        return Err(CheckpointError::Heads { path: source.to_path_buf(), model: model.architecture, architecture });
    }

    let mut notes = Vec::new();
    let mut files = vec![("config.json", pretty(&config_json(model, architecture))?)];
    tokenizer::check(source, |name| checkpoint.file(name), model)?;
    files.extend(tokenizer::exported(|name| checkpoint.file(name), model));
    if files.len() == 1 {
        notes.push(format!("{} holds no tokenizer, so the export has none; copy one into it", source.display()));
    }
    let others = checkpoint.files.iter().filter(|(name, _)| is_sentence_transformers_file(name));
    files.extend(others.map(|(name, content)| (name.as_str(), content.clone())));
    files.extend(more);
    let missing = &checkpoint.state.missing;
    if let Some((tensor, required)) = model.tensors.iter().find(|(t, _)| architecture.has(t) && missing.contains(t)) {
        let (file, tensor, required) = (source.join(MODEL), tensor.clone(), required.clone());
        return Err(CheckpointError::TensorMissing { file, tensor, required });
    }
    let present: Vec<_> = model.tensors.iter().filter(|(name, _)| !missing.contains(name)).cloned().collect();
    let tensors = without_padding(&source.join(MODEL), checkpoint.model, &present)?;
    let names = present.iter().map(|(name, _)| name.as_str());
    let named: Vec<(&str, &HostTensor)> = names.zip(&tensors).filter(|(name, _)| architecture.has(name)).collect();

    let partial = partial_path(out);
    // The directory of an interrupted export.
    if partial.exists() {
        remove_export(&partial)?;
    }
    if let Err(error) = write_export(&partial, checkpoint.state.step, &named, &files) {
        // The first error is reported; the next export removes files that cannot be removed now.
        let _ = remove_export(&partial);
        return Err(error);
    }
    if out.exists() {
        remove_export(out)?;
    }
    fs::rename(&partial, out).map_err(CheckpointError::io("rename", &partial))?;
    Ok(notes)
}

fn write_export(
    partial: &Path,
    step: u64,
    model: &[(&str, &HostTensor)],
    files: &[(&str, Vec<u8>)],
) -> Result<(), CheckpointError> {
    fs::create_dir_all(partial).map_err(CheckpointError::io("create", partial))?;
    check_space(partial, model.iter().map(|(_, tensor)| tensor.bytes().len() as u64).sum())?;
    let mut receipt = Receipt { step, files: BTreeMap::new() };
    receipt.files.insert(MODEL.to_owned(), write_tensors(&partial.join(MODEL), model)?);
    for (name, content) in files {
        create_folder_of(name, partial)?;
        receipt.files.insert(name.to_string(), write_bytes(&partial.join(name), content)?);
    }
    write_bytes(&partial.join(RECEIPT), &pretty(&receipt)?)?;
    Ok(())
}

/// Returns the tensors in the order of `required`, with the padding rows of the two vocabulary tensors removed.
fn without_padding(
    file: &Path,
    mut model: Vec<(String, HostTensor)>,
    required: &[(String, Shape)],
) -> Result<Vec<HostTensor>, CheckpointError> {
    for (name, tensor) in model.iter_mut().filter(|(name, _)| [WORD_EMBEDDINGS, PREDICTIONS_BIAS].contains(&&**name)) {
        let found = tensor.shape();
        let Some((_, shape)) = required.iter().find(|(required, _)| required == name) else { continue };
        let is_padded = (found.dtype, found.dims.get(1..)) == (shape.dtype, shape.dims.get(1..))
            && found.dims.first() > shape.dims.first();
        if is_padded && let Ok(cut) = HostTensor::from_bytes(shape.clone(), tensor.bytes()[..shape.bytes()].to_vec()) {
            *tensor = cut;
        }
    }
    arrange(file, model, required)
}

/// Returns `config.json` as transformers 5 writes it; version 4 ignores keys that it does not know.
fn config_json(model: &PublishedModel, architecture: Architecture) -> Value {
    let mut json = json!({
        "model_type": "bert",
        "classifier_dropout": null,
        "pad_token_id": 0,
        "bos_token_id": null,
        "eos_token_id": null,
        "is_decoder": false,
        "add_cross_attention": false,
        "tie_word_embeddings": true,
        "use_cache": true,
        "dtype": "float32",
    });
    for (key, value) in &model.config {
        json[key] = value.clone();
    }
    json["architectures"] = json!([architecture.name()]);
    json
}

/// Checks that a directory does not exist, is empty, or holds exactly the recorded files of an export.
///
/// # Errors
/// [`CheckpointError::WouldOverwrite`], or if the directory cannot be read.
pub fn check_replaceable(out: &Path) -> Result<(), CheckpointError> {
    let refused = || CheckpointError::WouldOverwrite { path: out.to_path_buf() };
    if !out.exists() {
        return Ok(());
    }
    if !out.is_dir() {
        return Err(refused());
    }
    let present = Listing::of(out).map_err(CheckpointError::io("list", out))?.ok_or_else(refused)?;
    if present.files.is_empty() && present.folders.is_empty() {
        return Ok(());
    }
    let receipt = files::read(out.join(RECEIPT)).ok().and_then(|text| serde_json::from_slice::<Receipt>(&text).ok());
    let receipt = receipt.ok_or_else(refused)?;
    for name in present.files.iter().filter(|name| *name != RECEIPT) {
        let record = receipt.files.get(name).ok_or_else(refused)?;
        if FileRecord::of(&out.join(name))? != *record {
            return Err(refused());
        }
    }
    Ok(())
}

/// Removes a directory that holds only files that an export writes.
fn remove_export(directory: &Path) -> Result<(), CheckpointError> {
    let is_own =
        |name: &String| [MODEL, RECEIPT, MODEL_CARD, ONNX_MODEL].contains(&name.as_str()) || is_copied_file(name);
    let listing = Listing::of(directory).map_err(CheckpointError::io("list", directory))?;
    match listing.filter(|listing| listing.files.iter().all(is_own)) {
        Some(listing) => listing.remove(directory).map_err(CheckpointError::io("remove", directory)),
        None => Err(CheckpointError::WouldOverwrite { path: directory.to_path_buf() }),
    }
}

fn pretty(value: &impl Serialize) -> Result<Vec<u8>, CheckpointError> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|e| CheckpointError::io("write", Path::new("the JSON files"))(e.into()))?;
    Ok((text + "\n").into_bytes())
}
