//! Opens the weights of a checkpoint, a run directory or a Hugging Face directory as a [`Checkpoint`] with tensors in device
//! shapes, and converts checkpoints from and to Hugging Face directories.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};

use super::Run;
use super::compatibility::{check_rows, tokenizer_of};
use crate::bert::{BertConfig, Head, param_specs, param_specs_of};
use crate::checkpoint::hugging_face::{Architecture, Imported, PublishedModel, export, import, is_encoder};
use crate::checkpoint::{
    Checkpoint, Contents, Keep, Loaded, RUN_FILE, RunDirectory, RunLock, TOKENIZER_FILES, load, load_latest, open,
};
use crate::file_kind::WrongKind;
use crate::files;
use crate::optim::ema;
use crate::shape::{DType, HostTensor, Shape};
use crate::task::ParamSpec;

/// A model and its weights.
#[derive(Clone, Debug)]
pub struct FoundModel {
    /// The configuration of the model.
    pub config: BertConfig,
    /// The head of the model.
    pub head: Head,
    /// The checkpoint that holds the weights. [`crate::checkpoint::State::missing`] lists the tensors of the head that it lacks.
    pub checkpoint: Checkpoint,
    /// The directory of the tensors.
    pub path: PathBuf,
    /// Messages about the checkpoint.
    loaded: Vec<String>,
}

impl FoundModel {
    /// Returns the run that pretrained the model, if the checkpoint holds its run file.
    pub fn run(&self) -> Option<Run> {
        let text = std::str::from_utf8(self.checkpoint.file(RUN_FILE)?).ok()?;
        Run::from_checkpoint(&self.path.join(RUN_FILE), text, &self.config).ok()
    }

    /// Returns the sequence length of the last phase of `run`, which pretrained the model, or 128.
    pub fn trained_length(&self, run: Option<&Run>) -> usize {
        let last = run.and_then(|run| run.schedule.phases().last());
        last.map_or(128, |phase| phase.sequence_length).min(self.config.max_position_embeddings)
    }

    /// Returns the messages for the user about the checkpoint, such as a newer one that is damaged.
    pub fn checkpoint_notes(&self) -> &[String] {
        &self.loaded
    }

    /// Returns the messages for the user: those about the checkpoint, and the tensors that it lacks.
    pub fn notes(&self) -> Vec<String> {
        self.loaded.iter().cloned().chain(self.missing_note()).collect()
    }

    /// Returns the message about the tensors that the checkpoint lacks, if any.
    pub fn missing_note(&self) -> Option<String> {
        let missing = &self.checkpoint.state.missing;
        let note =
            || format!("{} lacks {}: these tensors are initialised randomly", self.path.display(), missing.join(", "));
        (!missing.is_empty()).then(note)
    }

    /// Replaces all weights by random ones, drawn with `seed`: the comparison that shows what training gave.
    #[must_use]
    pub fn with_random_weights(mut self, seed: u64) -> FoundModel {
        let specs = param_specs_of(&self.config, &self.head);
        self.checkpoint.model = specs.iter().map(|spec| (spec.name.clone(), spec.initial(seed))).collect();
        self.checkpoint.state.missing.clear();
        self
    }

    /// Replaces the weights by their exponential moving average, which a run with `[ema]` keeps.
    ///
    /// # Errors
    /// If the checkpoint holds no averages, or cannot be read.
    pub fn with_averages(mut self) -> anyhow::Result<FoundModel> {
        self.checkpoint.model = averages_of(&self.path)?;
        Ok(self)
    }

    /// Replaces the head. Encoder and pooler are kept; the tensors of another head are left out, and those of `head` are listed
    /// as missing, so that a run initialises them. A head with other labels is another head.
    pub fn with_head(mut self, head: Head) -> FoundModel {
        if self.head == head {
            return self;
        }
        let tensors = std::mem::take(&mut self.checkpoint.model);
        let mut encoder: HashMap<_, _> = tensors.into_iter().filter(|(name, _)| name.starts_with("bert.")).collect();
        self.checkpoint.state.missing.clear();
        for ParamSpec { name, .. } in param_specs_of(&self.config, &head) {
            match encoder.remove(&name) {
                Some(tensor) => self.checkpoint.model.push((name, tensor)),
                None if is_encoder(&name) => {}
                None => self.checkpoint.state.missing.push(name),
            }
        }
        FoundModel { head, ..self }
    }
}

/// Opens the model in `path`: a `step-…` directory, a run directory (its newest checkpoint or, of a run that selects by a metric,
/// the best one), or the output of `save_pretrained`. The optimizer state is not read.
///
/// # Errors
/// If `path` is none of these, or the model is damaged.
pub fn open_model(path: &Path) -> anyhow::Result<FoundModel> {
    if is_hugging_face(path) {
        let ImportedModel { config, head, imported, .. } = import_model(path)?;
        let (checkpoint, path) = (imported.checkpoint, path.to_path_buf());
        return Ok(FoundModel { config, head, checkpoint, path, loaded: Vec::new() });
    }
    let Loaded { path, checkpoint, notes } = open(path, Contents::ModelOnly)?;
    let (config, head) = configuration_in(&checkpoint, &path)?;
    Ok(FoundModel { config, head, checkpoint, path, loaded: notes })
}

/// Reads the configuration of the model in `path` without its weights; `path` is as for [`open_model`].
///
/// # Errors
/// If `path` is no model, or its configuration is not supported.
pub fn open_configuration(path: &Path) -> anyhow::Result<BertConfig> {
    if is_hugging_face(path) {
        return Ok(describe_directory(path)?.0);
    }
    let Loaded { path, checkpoint, .. } = open(path, Contents::CopiedFiles)?;
    Ok(configuration_in(&checkpoint, &path)?.0)
}

/// Returns the configuration and the head of a checkpoint that was read from `path`.
///
/// # Errors
/// If the checkpoint has no configuration, or an unsupported one.
pub fn configuration_in(checkpoint: &Checkpoint, path: &Path) -> anyhow::Result<(BertConfig, Head)> {
    let config_path = path.join("config.json");
    let Some(text) = checkpoint.file("config.json") else {
        bail!("{} is required, found none; name a checkpoint that a run wrote", config_path.display());
    };
    let (config, head, _) = describe(&config_path, text)?;
    Ok((config, head))
}

/// Returns whether the directory `path` holds a model, damaged or not: the output of `save_pretrained`, a checkpoint, or a run with
/// checkpoints.
pub fn is_model(path: &Path) -> bool {
    let is_single = ["config.json", "state.json"].iter().any(|name| path.join(name).exists());
    is_single || !matches!(load_latest(path, Contents::CopiedFiles), Ok(None))
}

/// Reads the files of the tokenizer in `directory`, byte for byte.
///
/// # Errors
/// If a file cannot be read.
pub fn tokenizer_files(directory: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let present =
        TOKENIZER_FILES.into_iter().map(|name| (name, directory.join(name))).filter(|(_, path)| path.exists());
    let read = |(name, path): (&str, PathBuf)| {
        let content = files::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((name.to_owned(), content))
    };
    present.map(read).collect()
}

/// Returns whether `path` is the output of `save_pretrained` and not a checkpoint, which has a `config.json`, too.
fn is_hugging_face(path: &Path) -> bool {
    path.join("config.json").exists() && !path.join("state.json").exists()
}

/// The model of a Hugging Face directory.
struct ImportedModel {
    config: BertConfig,
    head: Head,
    /// The number of tensors of the model.
    tensors: usize,
    /// The weights, in device shapes.
    imported: Imported,
}

fn import_model(directory: &Path) -> anyhow::Result<ImportedModel> {
    let (config, head, model) = describe_directory(directory)?;
    let mut imported = import(directory, &model)?;
    pad(&config, &mut imported.checkpoint);
    Ok(ImportedModel { config, head, tensors: model.tensors.len(), imported })
}

fn describe_directory(directory: &Path) -> anyhow::Result<(BertConfig, Head, PublishedModel)> {
    let path = directory.join("config.json");
    let text = files::read(&path)
        .with_context(|| format!("cannot read {}; name the output directory of save_pretrained", path.display()))?;
    describe(&path, &text)
}

/// Pads imported tensors to the device shapes that a checkpoint has.
fn pad(config: &BertConfig, checkpoint: &mut Checkpoint) {
    let specs: HashMap<_, _> = param_specs(config).into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    for (name, tensor) in &mut checkpoint.model {
        if let Some(spec) = specs.get(name) {
            *tensor = spec.pad(tensor);
        }
    }
}

/// Parses a `config.json` of lambert or of Hugging Face: the configuration of the model, its head, and the description for export
/// and import.
///
/// # Errors
/// If it is not a BERT configuration, or its head is not supported.
pub fn describe(path: &Path, text: &[u8]) -> anyhow::Result<(BertConfig, Head, PublishedModel)> {
    // A file that is something else is named before its first key is missed.
    let recognised = |error: anyhow::Error| match WrongKind::of(path, "the configuration of a model in JSON", text) {
        Some(kind) => kind.into(),
        None => error,
    };
    let text =
        std::str::from_utf8(text).with_context(|| format!("{} is not text", path.display())).map_err(recognised)?;
    let config = BertConfig::from_json(text).with_context(|| path.display().to_string()).map_err(recognised)?;
    let head = Head::from_config(&serde_json::from_str(text)?).with_context(|| path.display().to_string())?;
    let model = published_model(&config, &head)?;
    Ok((config, head, model))
}

/// Returns the description of a model for export and import.
///
/// # Errors
/// If the configuration has no JSON form.
pub fn published_model(config: &BertConfig, head: &Head) -> anyhow::Result<PublishedModel> {
    let published = |spec: ParamSpec| (spec.name, Shape::new(DType::F32, spec.published_dims));
    Ok(PublishedModel {
        architecture: Architecture::from_name(head.architecture()).expect("every head is one of the architectures"),
        config: config_json(config, head)?,
        tensors: param_specs_of(config, head).into_iter().map(published).collect(),
    })
}

/// Returns the keys of the `config.json` of a checkpoint.
///
/// # Errors
/// If the configuration has no JSON form.
pub fn config_json(config: &BertConfig, head: &Head) -> anyhow::Result<Map<String, Value>> {
    let mut keys: Map<String, Value> = serde_json::from_value(serde_json::to_value(config)?)?;
    keys.insert("model_type".to_owned(), "bert".into());
    keys.extend(head.to_config());
    Ok(keys)
}

/// An export for Hugging Face.
#[derive(Debug)]
pub struct Exported {
    /// The checkpoint that was exported.
    pub checkpoint: PathBuf,
    /// The step of the checkpoint.
    pub step: u64,
    /// The class of transformers that loads the export.
    pub architecture: Architecture,
    /// The number of tensors.
    pub tensors: usize,
    /// Messages for the user.
    pub notes: Vec<String>,
}

/// Returns further files for the export of a checkpoint, which was read from a directory, as a class of transformers: a model card, or
/// an ONNX model.
pub type FilesOf<'a> = &'a dyn Fn(&Path, &Checkpoint, Architecture) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>>;

/// Writes the checkpoint at `path`, or the best or newest one of the run at `path`, to `out`, as the class `architecture` of
/// transformers loads it; by default the class of the model or, if an import lacked some of its heads and no step has been taken, the
/// first class that lacks none. The files of `more` are written too.
///
/// # Errors
/// If there is no complete checkpoint, it was not written by a run, the model lacks heads of `architecture`, or `out` holds
/// something else than an earlier export.
pub fn export_model(
    path: &Path,
    architecture: Option<Architecture>,
    more: Option<FilesOf<'_>>,
    out: &Path,
) -> anyhow::Result<Exported> {
    export_loaded(open(path, Contents::ModelOnly)?, architecture, more, out)
}

/// Writes the averages of the weights that a run with `[ema]` keeps, as [`export_model`] writes the weights.
///
/// # Errors
/// As [`export_model`]; if the checkpoint holds no averages.
pub fn export_averages(
    path: &Path,
    architecture: Option<Architecture>,
    more: Option<FilesOf<'_>>,
    out: &Path,
) -> anyhow::Result<Exported> {
    let mut loaded = open(path, Contents::ModelOnly)?;
    loaded.checkpoint.model = averages_of(&loaded.path)?;
    export_loaded(loaded, architecture, more, out)
}

/// Returns the averages of the weights in the checkpoint `path`, by the names of the weights.
fn averages_of(path: &Path) -> anyhow::Result<Vec<(String, HostTensor)>> {
    let average = |(name, tensor): (String, HostTensor)| Some((ema::parameter(&name)?.to_owned(), tensor));
    let averages: Vec<_> = load(path, Contents::All)?.optimizer.into_iter().filter_map(average).collect();
    ensure!(
        !averages.is_empty(),
        "{} holds no averages of the weights; a run keeps them with the table [ema], as in decay = 0.9999",
        path.display()
    );
    Ok(averages)
}

fn export_loaded(
    loaded: Loaded,
    architecture: Option<Architecture>,
    more: Option<FilesOf<'_>>,
    out: &Path,
) -> anyhow::Result<Exported> {
    let Loaded { path, checkpoint, mut notes } = loaded;
    let config = checkpoint.file("config.json").map(|text| (path.join("config.json"), text.to_vec()));
    let (config_path, config) =
        config.with_context(|| format!("{} has no config.json; it was not written by a run", path.display()))?;
    let (.., model) = describe(&config_path, &config)?;
    let architecture = complete_architecture(&path, &model, &checkpoint.state.missing, architecture)?;
    let step = checkpoint.state.step;
    let more = more.map_or(Ok(Vec::new()), |files_of| files_of(&path, &checkpoint, architecture))?;
    notes.extend(export(&path, checkpoint, &model, architecture, more, out)?);
    let tensors = model.tensors.iter().filter(|(name, _)| architecture.has(name)).count();
    Ok(Exported { checkpoint: path, step, architecture, tensors, notes })
}

/// Returns the class to export the checkpoint `path` of `model` for: `chosen`, or the first class that needs none of the tensors
/// `missing`.
///
/// # Errors
/// If the class needs one of these tensors.
pub(super) fn complete_architecture(
    path: &Path,
    model: &PublishedModel,
    missing: &[String],
    chosen: Option<Architecture>,
) -> anyhow::Result<Architecture> {
    let lacks = |class: Architecture| missing.iter().filter(|tensor| class.has(tensor)).collect::<Vec<_>>();
    let complete: Vec<Architecture> =
        model.architecture.exports().iter().copied().filter(|class| lacks(*class).is_empty()).collect();
    let class = chosen.or(complete.first().copied()).unwrap_or(model.architecture);
    if let [first, ..] = lacks(class).as_slice() {
        let names: Vec<&str> = complete.iter().map(|class| class.name()).collect();
        let others =
            if names.is_empty() { String::new() } else { format!(", or export it for {}", names.join(" or ")) };
        bail!(
            "{} requires the tensors of {}, found {} of them missing ({first}, …); a run that starts from it initialises them, so \
             train first{others}",
            path.display(),
            class.name(),
            lacks(class).len(),
        );
    }
    Ok(class)
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
/// If `directory` holds no BERT model, its tokenizer has more tokens than the model has rows, or `out` holds checkpoints.
pub fn import_checkpoint(directory: &Path, out: &Path) -> anyhow::Result<ImportedCheckpoint> {
    if load_latest(out, Contents::ModelOnly)?.is_some() {
        bail!("{} already holds checkpoints; choose another output directory", out.display());
    }
    let ImportedModel { config, tensors, mut imported, .. } = import_model(directory)?;
    let checkpoint = &mut imported.checkpoint;
    let note = match tokenizer_of(checkpoint, directory) {
        Ok(Some(tokenizer)) => {
            checkpoint.state.vocabulary_sha256 = tokenizer.vocabulary.vocabulary.sha256().to_owned();
            check_rows(directory.display(), &config, &tokenizer.vocabulary)?
        }
        Ok(None) => Some(format!("note: {} holds no tokenizer, so the checkpoint has none", directory.display())),
        // A model with another kind of tokenizer can still be exported.
        Err(error) => Some(format!("note: the tokenizer is copied, but no run can use it: {error}")),
    };
    let _lock = RunLock::take(out)?;
    let saved = RunDirectory::new(out, Keep::ALL).save(checkpoint)?;
    let notes = note.into_iter().chain(saved.notes).collect();
    Ok(ImportedCheckpoint { path: saved.path, imported, tensors, notes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bert::Preset;
    use crate::checkpoint::State;

    #[test]
    fn published_tensors_are_those_of_bert_for_pretraining() {
        let text = r#"{"vocab_size": 21, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 3,
            "intermediate_size": 10, "hidden_act": "gelu_pytorch_tanh", "max_position_embeddings": 12}"#;
        let (.., model) = describe(Path::new("config.json"), text.as_bytes()).unwrap();
        // 5 embeddings, 16 a layer, 2 pooler, 7 heads.
        assert_eq!(model.tensors.len(), 5 + 2 * 16 + 2 + 7);
        let shape = |name: &str| model.tensors.iter().find(|(n, _)| n == name).map(|(_, shape)| shape.to_string());
        assert_eq!(shape("bert.embeddings.word_embeddings.weight").as_deref(), Some("f32[21,6]"));
        assert_eq!(shape("bert.encoder.layer.1.intermediate.dense.weight").as_deref(), Some("f32[10,6]"));
        assert_eq!(shape("cls.predictions.bias").as_deref(), Some("f32[21]"));
        assert_eq!(shape("cls.predictions.decoder.weight"), None);
        assert_eq!(model.config["hidden_act"], "gelu_new");
        let error = |text: &str| format!("{:#}", describe(Path::new("D/config.json"), text.as_bytes()).unwrap_err());
        assert!(error("{}").contains("D/config.json"), "{}", error("{}"));
        for (text, found) in [
            ("version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch"),
            ("\u{feff}{}", "a byte order mark at its start; save"),
        ] {
            let expected = format!("D/config.json: requires the configuration of a model in JSON, found {found}");
            assert!(error(text).starts_with(&expected), "{}", error(text));
        }
    }

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// Writes a checkpoint of a small model with `head` and random weights into `run`.
    fn save_checkpoint(run: &Path, head: &Head) -> Checkpoint {
        let config = BertConfig {
            hidden_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 6,
            max_position_embeddings: 8,
            classifier_dropout: Some(0.25),
            ..Preset::Tiny.config(21)
        };
        let keys = config_json(&config, head).unwrap();
        let checkpoint = Checkpoint {
            state: State { step: 7, ..State::default() },
            model: param_specs_of(&config, head).iter().map(|spec| (spec.name.clone(), spec.initial(3))).collect(),
            optimizer: Vec::new(),
            files: vec![("config.json".to_owned(), serde_json::to_vec(&keys).unwrap())],
        };
        RunDirectory::new(run, Keep::ALL).save(&checkpoint).unwrap();
        checkpoint
    }

    #[test]
    fn a_head_survives_export_and_import() {
        let folder = tempfile::tempdir().unwrap();
        for (number, head) in [
            Head::Pretraining,
            Head::SequenceClassification { labels: labels(&["negative", "positive"]) },
            Head::Regression,
            Head::TokenClassification { labels: labels(&["O", "B-PER", "I-PER"]) },
            Head::QuestionAnswering,
        ]
        .into_iter()
        .enumerate()
        {
            let [run, out] = ["run", "out"].map(|name| folder.path().join(format!("{name}-{number}")));
            let checkpoint = save_checkpoint(&run, &head);
            let exported = export_model(&run, None, None, &out).unwrap();
            assert_eq!(exported.architecture.name(), head.architecture());
            let written: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
            assert_eq!(written["architectures"], serde_json::json!([head.architecture()]));
            assert_eq!(written["classifier_dropout"], 0.25);
            for path in [&run, &out] {
                let found = open_model(path).unwrap();
                assert_eq!((&found.head, &found.checkpoint.model), (&head, &checkpoint.model), "{}", path.display());
                assert_eq!(found.config.classifier_dropout, Some(0.25));
                assert!(found.checkpoint.state.missing.is_empty());
            }
        }
    }

    #[test]
    fn a_model_is_exported_for_classes_whose_heads_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let (run, out) = (folder.path().join("run"), folder.path().join("out"));
        save_checkpoint(&run, &Head::SequenceClassification { labels: labels(&["a", "b", "c"]) });
        let exported = export_model(&run, Some(Architecture::BertModel), None, &out).unwrap();
        assert_eq!(exported.tensors, 5 + 16 + 2);
        let error = export_model(&run, Some(Architecture::BertForMaskedLM), None, &out).unwrap_err().to_string();
        let expected = "holds a BertForSequenceClassification, which can be exported for BertForSequenceClassification or \
                        BertModel, found BertForMaskedLM; choose another architecture";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn another_head_is_initialised_and_the_encoder_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let classes = |names| Head::SequenceClassification { labels: labels(names) };
        let start = |from: &Head, to: &Head| {
            let run = folder.path().join(format!("{from:?}"));
            if !run.exists() {
                save_checkpoint(&run, from);
            }
            let found = open_model(&run).unwrap().with_head(to.clone());
            assert_eq!(found.head, *to);
            let notes = found.notes();
            assert_eq!(notes.is_empty(), found.checkpoint.state.missing.is_empty(), "{notes:?}");
            (found.checkpoint.model.len(), found.checkpoint.state.missing)
        };
        let classifier = ["classifier.weight", "classifier.bias"];
        let pooler = ["bert.pooler.dense.weight", "bert.pooler.dense.bias"];
        assert_eq!(start(&Head::Pretraining, &classes(&["a", "b"])), (21 + 2, labels(&classifier)));
        assert_eq!(start(&classes(&["a", "b"]), &classes(&["a", "b"])), (21 + 4, Vec::new()));
        assert_eq!(start(&classes(&["a", "b"]), &classes(&["b", "a"])), (21 + 2, labels(&classifier)));
        let (tensors, missing) = start(&Head::QuestionAnswering, &Head::Regression);
        assert_eq!((tensors, missing), (21, labels(&[pooler, classifier].concat())));
        let (tensors, missing) = start(&classes(&["a", "b"]), &Head::Pretraining);
        assert_eq!((tensors, missing.len()), (21 + 2, 7));
        assert!(missing.iter().all(|name| name.starts_with("cls.")), "{missing:?}");
    }
}
