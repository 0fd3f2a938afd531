//! Import of a Hugging Face directory as a checkpoint of step 0, from which a run starts.
//!
//! Directories differ: names of TensorFlow checkpoints (`gamma`, `beta`), a `BertModel` without the prefix `bert.`, prefixes of
//! wrappers, half precision, several files, copies of tied tensors, missing heads. All of these are accepted and reported; a
//! tensor of the wrong shape, a missing encoder tensor or a value that is not finite is an error.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{DECODER_BIAS, DECODER_WEIGHT, PREDICTIONS_BIAS, PublishedModel, WORD_EMBEDDINGS, is_encoder, tokenizer};
use crate::checkpoint::copied_files::read_sentence_transformers;
use crate::checkpoint::{Checkpoint, CheckpointError, MODEL, State, TOKENIZER_FILES, TensorFile};
use crate::file_kind::WrongKind;
use crate::files;
use crate::shape::{DType, HostTensor};

const INDEX: &str = "model.safetensors.index.json";

/// Prefixes that wrappers add to the names of all tensors: `torch.compile`, and `DataParallel` or `DistributedDataParallel`.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// A checkpoint of step 0, with the tensors that the import left out or converted.
#[derive(Debug)]
pub struct Imported {
    /// Weights in the model's order, unpadded, f32; [`State::missing`] lists those that the directory lacks.
    pub checkpoint: Checkpoint,
    /// Tensors that were not imported, by the directory's names.
    pub ignored: Vec<String>,
    /// Tensors that were converted to f32, by the checkpoint's names.
    pub converted: Vec<String>,
    /// The prefix that a wrapper of PyTorch had added to the names of tensors, which was removed.
    pub wrapper: Option<&'static str>,
}

/// Reads a directory that `save_pretrained` of any version wrote and whose `config.json` describes `model`.
///
/// # Errors
/// [`CheckpointError::NotSafetensors`] for pickled weights, [`CheckpointError::TensorShape`], [`CheckpointError::NotFinite`],
/// [`CheckpointError::Config`] for a tied tensor whose copy differs, [`CheckpointError::TensorMissing`] for a tensor below the heads, [`CheckpointError::Damaged`].
pub fn import(directory: &Path, model: &PublishedModel) -> Result<Imported, CheckpointError> {
    let required = &model.tensors;
    let mut sources = Sources::open(directory)?;
    let index_of: HashMap<&str, usize> = required.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
    let mut taken: Vec<Option<HostTensor>> = vec![None; required.len()];
    let (mut ignored, mut converted) = (Vec::new(), Vec::new());
    let names = sources.names();
    // Some directories have the shared bias under the decoder's name only.
    let bias_is_decoders = !names.iter().any(|name| name == PREDICTIONS_BIAS);
    for source in names {
        let name = match source.as_str() {
            DECODER_BIAS if bias_is_decoders => PREDICTIONS_BIAS.to_owned(),
            _ => modern_name(&source, |name| index_of.contains_key(name)),
        };
        let Some(&i) = index_of.get(name.as_str()) else {
            ignored.push(source);
            continue;
        };
        let (file, found) = sources.describe(&source);
        let tensor = sources.read(&source)?;
        if taken[i].is_some() {
            return Err(CheckpointError::TensorTwice { file, tensor: name });
        }
        if tensor.shape().dims != required[i].1.dims || !tensor.shape().dtype.is_float() {
            let required = required[i].1.clone();
            return Err(CheckpointError::TensorShape { file, tensor: source, required, found });
        }
        if tensor.shape().dtype != DType::F32 {
            converted.push(name);
        }
        let tensor = to_f32(tensor);
        check_finite(&file, &source, &tensor)?;
        taken[i] = Some(tensor);
    }

    // Tied tensors may be stored twice; the copies must then be equal, or the model is not tied.
    for (copy, original) in [(DECODER_WEIGHT, WORD_EMBEDDINGS), (DECODER_BIAS, PREDICTIONS_BIAS)] {
        if !ignored.iter().any(|name| name == copy) {
            continue;
        }
        let tied = index_of.get(original).and_then(|&i| taken[i].as_ref());
        if tied.is_some_and(|tied| sources.read(copy).is_ok_and(|copy| to_f32(copy).bytes() != tied.bytes())) {
            return Err(CheckpointError::Config {
                path: sources.describe(copy).0,
                key: copy.to_owned(),
                required: format!("a copy of {original}, because they are tied"),
                found: "other values".to_owned(),
            });
        }
    }

    let (mut weights, mut missing) = (Vec::new(), Vec::new());
    for ((name, shape), tensor) in required.iter().cloned().zip(taken) {
        match tensor {
            Some(tensor) => weights.push((name, tensor)),
            // A base model has no heads, and one without next-sentence prediction no pooler: the run initialises them.
            None if !is_encoder(&name) => missing.push(name),
            None => {
                return Err(CheckpointError::TensorMissing {
                    file: directory.to_path_buf(),
                    tensor: name,
                    required: shape,
                });
            }
        }
    }

    let config =
        serde_json::to_string_pretty(&model.config).map_err(|e| CheckpointError::io("write", directory)(e.into()))?;
    let mut files = vec![("config.json".to_owned(), config.into_bytes())];
    for name in TOKENIZER_FILES {
        let path = directory.join(name);
        if path.exists() {
            files.push((name.to_owned(), files::read(&path).map_err(CheckpointError::io("read", &path))?));
        }
    }
    files.extend(read_sentence_transformers(directory)?);
    let state = State { missing, ..State::default() };
    let checkpoint = Checkpoint { state, model: weights, optimizer: Vec::new(), files };
    tokenizer::check(directory, |name| checkpoint.file(name), model)?;
    Ok(Imported { checkpoint, ignored, converted, wrapper: sources.wrapper })
}

/// Returns the current name of a tensor in transformers: `gamma` and `beta` of a LayerNorm became `weight` and `bias`, and
/// a base model's names lack `bert.`.
fn modern_name(source: &str, is_known: impl Fn(&str) -> bool) -> String {
    let name = match source.rsplit_once('.') {
        Some((layer_norm, "gamma")) => format!("{layer_norm}.weight"),
        Some((layer_norm, "beta")) => format!("{layer_norm}.bias"),
        _ => source.to_owned(),
    };
    let prefixed = format!("bert.{name}");
    if !is_known(&name) && is_known(&prefixed) { prefixed } else { name }
}

/// Checks that all values of an f32 tensor are finite.
fn check_finite(file: &Path, name: &str, tensor: &HostTensor) -> Result<(), CheckpointError> {
    let values = bytemuck::allocation::pod_collect_to_vec::<u8, f32>(tensor.bytes());
    let mut others = values.iter().enumerate().filter(|(_, value)| !value.is_finite());
    let Some((at, value)) = others.next() else { return Ok(()) };
    let shape = tensor.shape();
    let index = shape.strides().iter().zip(&shape.dims).map(|(stride, size)| at / stride % size).collect();
    Err(CheckpointError::NotFinite {
        file: file.to_path_buf(),
        tensor: name.to_owned(),
        value: *value,
        index,
        count: 1 + others.count(),
        of: values.len(),
    })
}

/// Converts a floating-point tensor to f32; the conversion from half precision is exact.
fn to_f32(tensor: HostTensor) -> HostTensor {
    match tensor.shape().dtype {
        DType::F32 => tensor,
        _ => HostTensor::from_f64(tensor.shape().with_dtype(DType::F32), &tensor.to_f64()),
    }
}

/// The safetensors files of a directory, one or several, and the place of each tensor.
struct Sources {
    files: Vec<TensorFile>,
    /// The index of the file and the name there, by the name without prefixes of wrappers.
    places: BTreeMap<String, (usize, String)>,
    /// The prefix that was removed.
    wrapper: Option<&'static str>,
}

impl Sources {
    fn open(directory: &Path) -> Result<Sources, CheckpointError> {
        let index = directory.join(INDEX);
        let paths = if directory.join(MODEL).exists() {
            vec![directory.join(MODEL)]
        } else if index.exists() {
            shards(&index)?
        } else {
            return Err(not_safetensors(directory));
        };
        let files = paths.iter().map(|path| TensorFile::open(path)).collect::<Result<Vec<_>, _>>()?;
        let (mut places, mut wrapper) = (BTreeMap::new(), None);
        for (i, file) in files.iter().enumerate() {
            for stored in file.names() {
                let mut name = stored;
                while let Some((prefix, rest)) = WRAPPERS.into_iter().find_map(|p| Some((p, name.strip_prefix(p)?))) {
                    (wrapper, name) = (Some(prefix), rest);
                }
                if places.insert(name.to_owned(), (i, stored.to_owned())).is_some() {
                    return Err(CheckpointError::TensorTwice { file: file.path().to_path_buf(), tensor: name.into() });
                }
            }
        }
        Ok(Sources { files, places, wrapper })
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    /// Returns the file of a tensor, and its type and shape there.
    fn describe(&self, name: &str) -> (PathBuf, String) {
        let Some((i, stored)) = self.places.get(name) else { return Default::default() };
        let file = &self.files[*i];
        (file.path().to_path_buf(), file.describe(stored).unwrap_or_default())
    }

    fn read(&mut self, name: &str) -> Result<HostTensor, CheckpointError> {
        match self.places.get(name) {
            Some((i, stored)) => self.files[*i].read(stored),
            None => Err(CheckpointError::damaged(Path::new(MODEL), format!("no tensor {name}"))),
        }
    }
}

/// Returns the files that an index names: `{"weight_map": {tensor: file}}`.
fn shards(index: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let text = files::read(index).map_err(CheckpointError::io("read", index))?;
    let not_an_index = |what: String| CheckpointError::damaged(index, what);
    let json: Value = serde_json::from_slice(&text).map_err(|e| {
        let recognised = WrongKind::of(index, "an index of safetensors files", &text);
        recognised.map_or_else(|| not_an_index(format!("invalid JSON: {e}")), CheckpointError::from)
    })?;
    let map = json["weight_map"].as_object().ok_or_else(|| not_an_index("no table weight_map".into()))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if let Some(name) = names.iter().find(|name| name.contains(['/', '\\'])) {
        return Err(not_an_index(format!("it names {name}, which is not in the same directory")));
    }
    let missing: Vec<String> =
        names.iter().filter(|name| !index.with_file_name(name).exists()).map(|name| name.to_string()).collect();
    if !missing.is_empty() {
        return Err(CheckpointError::ShardsMissing { index: index.to_path_buf(), missing });
    }
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}

/// Returns the name of a file in `directory` that is one of several, such as `model-00001-of-00002.safetensors`.
fn shard_in(directory: &Path) -> Option<String> {
    let names = std::fs::read_dir(directory).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with("model-") && name.ends_with(".safetensors")).min()
}

fn not_safetensors(directory: &Path) -> CheckpointError {
    if let Some(shard) = shard_in(directory) {
        let path = directory.to_path_buf();
        return CheckpointError::NotSafetensors {
            path,
            found: format!("{shard} without {INDEX}"),
            next: "download the index and all files that it lists".to_owned(),
        };
    }
    let other =
        ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack", "model.onnx"];
    let found = other.into_iter().find(|name| directory.join(name).exists());
    let next = match found {
        Some("pytorch_model.bin" | "pytorch_model.bin.index.json") => {
            "load and save it once with transformers (AutoModelForPreTraining.from_pretrained(DIR).save_pretrained(NEW))"
        }
        _ => "choose a directory with config.json and model.safetensors",
    };
    CheckpointError::NotSafetensors {
        path: directory.to_path_buf(),
        found: found.map_or("no weights".to_owned(), str::to_owned),
        next: next.to_owned(),
    }
}
