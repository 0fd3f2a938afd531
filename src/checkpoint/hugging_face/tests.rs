//! Export and import of small directories. (`scripts/check/hugging_face.py` tests against transformers itself.)

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use serde_json::json;

use crate::checkpoint::hugging_face::*;
use crate::checkpoint::{Checkpoint, State, TensorFile, write_tensors};
use crate::shape::{DType, HostTensor};

/// Returns a model with all kinds of tensors: vocabulary rows, a LayerNorm, a layer, heads.
fn published(vocab_size: usize, layers: usize) -> PublishedModel {
    let config = json!({"vocab_size": vocab_size, "max_position_embeddings": 12, "hidden_act": "gelu_new"});
    let mut tensors = vec![
        (WORD_EMBEDDINGS.to_owned(), vec![vocab_size, 6]),
        ("bert.embeddings.LayerNorm.weight".to_owned(), vec![6]),
        ("bert.embeddings.LayerNorm.bias".to_owned(), vec![6]),
    ];
    for layer in 0..layers {
        tensors.push((format!("bert.encoder.layer.{layer}.intermediate.dense.weight"), vec![10, 6]));
        tensors.push((format!("bert.encoder.layer.{layer}.intermediate.dense.bias"), vec![10]));
    }
    tensors.extend([
        ("bert.pooler.dense.bias".to_owned(), vec![6]),
        (PREDICTIONS_BIAS.to_owned(), vec![vocab_size]),
        ("cls.predictions.transform.LayerNorm.weight".to_owned(), vec![6]),
        ("cls.seq_relationship.weight".to_owned(), vec![2, 6]),
    ]);
    let tensors = tensors.into_iter().map(|(name, dims)| (name, Shape::new(DType::F32, dims))).collect();
    PublishedModel { architecture: ALL_HEADS, config: config.as_object().cloned().unwrap(), tensors }
}

/// Returns values that differ between tensors and are exact in both half precisions.
fn weights(model: &PublishedModel) -> Vec<(String, HostTensor)> {
    let tensors = model.tensors.clone().into_iter().enumerate();
    tensors
        .map(|(k, (name, shape))| {
            let values: Vec<f32> = (0..shape.elements()).map(|i| ((i * 7 + k * 13) % 64) as f32 / 32.0 - 1.0).collect();
            (name, HostTensor::new(shape.dims, &values))
        })
        .collect()
}

fn tokenizer(size: usize) -> Vec<u8> {
    let vocab: serde_json::Map<String, serde_json::Value> = (0..size).map(|i| (format!("t{i}"), json!(i))).collect();
    let normalizer = json!({"type": "BertNormalizer", "lowercase": false, "handle_chinese_chars": true,
        "strip_accents": null, "clean_text": true});
    let model = json!({"type": "WordPiece", "unk_token": "t1", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": vocab});
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model})
    .to_string()
    .into_bytes()
}

fn checkpoint(vocabulary: usize, model: Vec<(String, HostTensor)>) -> Checkpoint {
    let files = vec![("tokenizer.json".to_owned(), tokenizer(vocabulary))];
    Checkpoint { state: State { step: 5, ..State::default() }, model, optimizer: Vec::new(), files }
}

/// Writes a directory as another program does: with its own names, in one or several files.
fn write_directory(directory: &Path, shards: &[Vec<(String, HostTensor)>]) {
    let mut weight_map = serde_json::Map::new();
    for (i, tensors) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let borrowed: Vec<(&str, &HostTensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
        write_tensors(&directory.join(&name), &borrowed).unwrap();
        weight_map.extend(tensors.iter().map(|(n, _)| (n.clone(), json!(name))));
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {}, "weight_map": weight_map}).to_string();
        fs::write(directory.join("model.safetensors.index.json"), index).unwrap();
    }
}

fn words<T: crate::shape::Element>(tensor: &HostTensor, narrow: impl Fn(f64) -> T) -> HostTensor {
    let values: Vec<T> = tensor.to_f64().into_iter().map(narrow).collect();
    HostTensor::new(tensor.shape().dims.clone(), &values)
}

const ALL_HEADS: Architecture = Architecture::BertForPreTraining;

#[test]
fn an_export_holds_the_tensors_of_its_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    for (architecture, absent) in [
        (ALL_HEADS, vec![]),
        (Architecture::BertForMaskedLM, vec!["bert.pooler.dense.bias", "cls.seq_relationship.weight"]),
        (Architecture::BertModel, vec!["cls.predictions.bias", "cls.seq_relationship.weight"]),
    ] {
        let out = folder.path().join(architecture.name());
        export(Path::new("run"), checkpoint(9, weights(&model)), &model, architecture, Vec::new(), &out).unwrap();
        let file = TensorFile::open(&out.join("model.safetensors")).unwrap();
        for (name, _) in &model.tensors {
            assert_eq!(file.names().any(|found| found == name), architecture.has(name), "{architecture:?} {name}");
        }
        assert!(file.names().any(|name| name == WORD_EMBEDDINGS));
        assert!(absent.iter().all(|absent| file.names().all(|name| name != *absent)), "{architecture:?}");
        let config: serde_json::Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["architectures"], json!([architecture.name()]));
    }
}

#[test]
fn export_removes_padding_and_import_restores_all_tensors() {
    for (vocab_size, padded, layers) in [(21, 24, 1), (24, 24, 2), (1, 128, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let model = published(vocab_size, layers);
        let expected = weights(&model);
        let padded: Vec<_> = expected
            .iter()
            .map(|(name, tensor)| {
                let mut dims = tensor.shape().dims.clone();
                if name == WORD_EMBEDDINGS || name == PREDICTIONS_BIAS {
                    dims[0] = padded;
                }
                let mut values: Vec<f32> = tensor.to_vec().unwrap();
                values.resize(dims.iter().product(), f32::NAN);
                (name.clone(), HostTensor::new(dims, &values))
            })
            .collect();
        let out = folder.path().join("exported");
        let notes =
            export(Path::new("run/step-00000005"), checkpoint(vocab_size, padded), &model, ALL_HEADS, Vec::new(), &out)
                .unwrap();
        assert!(notes.is_empty(), "{notes:?}");

        let file = TensorFile::open(&out.join("model.safetensors")).unwrap();
        let names: Vec<&str> = file.names().collect();
        assert_eq!(names, expected.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>());
        let written: serde_json::Value = serde_json::from_slice(&fs::read(out.join("config.json")).unwrap()).unwrap();
        assert_eq!(written["architectures"], json!(["BertForPreTraining"]));
        assert_eq!(written["hidden_act"], json!("gelu_new"));

        let imported = import(&out, &model).unwrap();
        assert_eq!(imported.checkpoint.model, expected);
        let described = imported.checkpoint.file("config.json").map(serde_json::from_slice::<serde_json::Value>);
        assert_eq!(described.unwrap().unwrap().as_object(), Some(&model.config));
        assert!(imported.checkpoint.state.missing.is_empty() && imported.ignored.is_empty());
        assert_eq!(imported.checkpoint.file("tokenizer.json").unwrap(), tokenizer(vocab_size));
    }
}

#[test]
fn old_names_half_precision_copies_and_shards_are_accepted_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 2);
    let expected = weights(&model);
    let mut tensors: Vec<(String, HostTensor)> = expected
        .iter()
        .enumerate()
        .map(|(i, (name, tensor))| {
            let name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
            let tensor = match i % 3 {
                0 => tensor.clone(),
                1 => words(tensor, f16::from_f64),
                _ => words(tensor, bf16::from_f64),
            };
            (name, tensor)
        })
        .collect();
    tensors.push((DECODER_WEIGHT.into(), expected[0].1.clone()));
    tensors.push(("bert.embeddings.position_ids".into(), HostTensor::new([1, 12], &[0i32; 12])));
    let second = tensors.split_off(tensors.len() / 2);
    write_directory(folder.path(), &[tensors, second]);

    let imported = import(folder.path(), &model).unwrap();
    assert_eq!(imported.checkpoint.model, expected);
    assert_eq!(imported.ignored, ["bert.embeddings.position_ids", DECODER_WEIGHT]);
    assert_eq!(imported.converted.len(), (0..expected.len()).filter(|i| i % 3 != 0).count());
    assert!(imported.checkpoint.state.missing.is_empty());
}

#[test]
fn prefixes_of_wrappers_are_removed_and_reported() {
    let model = published(9, 1);
    let expected = weights(&model);
    for (prefix, wrapper) in [("module.", "module."), ("_orig_mod.", "_orig_mod."), ("_orig_mod.module.", "module.")] {
        let folder = tempfile::tempdir().unwrap();
        let renamed = expected.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
        let copy = (format!("{prefix}{DECODER_WEIGHT}"), expected[0].1.clone());
        write_directory(folder.path(), &[renamed.chain([copy]).collect()]);
        let imported = import(folder.path(), &model).unwrap();
        assert_eq!((imported.checkpoint.model.as_slice(), imported.wrapper), (expected.as_slice(), Some(wrapper)));
        assert_eq!(imported.ignored, [DECODER_WEIGHT]);
    }
    let folder = tempfile::tempdir().unwrap();
    write_directory(folder.path(), std::slice::from_ref(&expected));
    assert_eq!(import(folder.path(), &model).unwrap().wrapper, None);
    let folder = tempfile::tempdir().unwrap();
    let twice = (format!("module.{}", expected[1].0), expected[1].1.clone());
    write_directory(folder.path(), &[expected.into_iter().chain([twice]).collect()]);
    let error = import(folder.path(), &model).unwrap_err().to_string();
    assert!(error.contains("requires one tensor bert.embeddings.LayerNorm.weight, found two"), "{error}");
}

#[test]
fn missing_files_of_several_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    let mut tensors = weights(&model);
    let (third, second) = (tensors.split_off(4), tensors.split_off(2));
    write_directory(folder.path(), &[tensors, second, third]);
    let at = |name: &str| folder.path().join(name);
    import(folder.path(), &model).unwrap();
    fs::remove_file(at("model-00003-of-00003.safetensors")).unwrap();
    let error = import(folder.path(), &model).unwrap_err().to_string();
    let expected = "index.json lists model-00003-of-00003.safetensors, which is missing; download all files";
    assert!(error.contains(expected), "{error}");
    fs::remove_file(at("model-00001-of-00003.safetensors")).unwrap();
    let error = import(folder.path(), &model).unwrap_err().to_string();
    assert!(
        error.contains("00001-of-00003.safetensors, model-00003-of-00003.safetensors, which are missing"),
        "{error}"
    );
    fs::write(at("model.safetensors.index.json"), "<html>").unwrap();
    let error = import(folder.path(), &model).unwrap_err().to_string();
    assert!(error.contains("index.json: requires an index of safetensors files, found a web page"), "{error}");
    fs::remove_file(at("model.safetensors.index.json")).unwrap();
    let error = import(folder.path(), &model).unwrap_err().to_string();
    assert!(error.contains("holds model-00002-of-00003.safetensors without model.safetensors.index.json"), "{error}");
}

/// Files of a byte-level BPE tokenizer with an added token, as their program wrote them: with other white space than ours.
fn other_tokenizer(added: u64) -> Vec<(&'static str, Vec<u8>)> {
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]});
    let token = json!({"id": added, "content": "<url>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [token],
        "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
        "trim_offsets": true, "use_regex": true}, "post_processor": null, "decoder": {"type": "ByteLevel",
        "add_prefix_space": true, "trim_offsets": true, "use_regex": true}, "model": model});
    let json = serde_json::to_string_pretty(&json).unwrap();
    let config = format!("{{\"tokenizer_class\":  \"PreTrainedTokenizerFast\", \"added\": {added}}}");
    vec![
        ("tokenizer.json", json.into_bytes()),
        ("tokenizer_config.json", config.into_bytes()),
        ("special_tokens_map.json", b"{\"unk_token\":\t\"<url>\"}".to_vec()),
        ("added_tokens.json", format!("{{\"<url>\": {added}}}").into_bytes()),
        ("vocab.json", b"{\"a\": 0, \"b\": 1, \"ab\": 2}".to_vec()),
        ("merges.txt", b"#version: 0.2\r\na b".to_vec()),
    ]
}

#[test]
fn files_of_any_tokenizer_survive_import_and_export_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    fs::create_dir(&source).unwrap();
    write_directory(&source, &[weights(&model)]);
    let files = other_tokenizer(3);
    files.iter().for_each(|(name, content)| fs::write(source.join(name), content).unwrap());
    let imported = import(&source, &model).unwrap().checkpoint;
    export(Path::new("run"), imported, &model, ALL_HEADS, Vec::new(), &out).unwrap();
    for (name, content) in &files {
        assert_eq!(fs::read(out.join(name)).unwrap(), *content, "{name}");
    }
    assert!(!out.join("vocab.txt").exists(), "an export adds no file");
    let written = tokenizers::Tokenizer::from_file(out.join("tokenizer.json")).unwrap();
    assert_eq!(written.encode_fast("ab<url>", false).unwrap().get_ids(), [2, 3]);
}

#[test]
fn tokenizers_that_do_not_fit_are_rejected_at_import() {
    let model = published(9, 1);
    let refused = |name: &str, content: &[u8]| {
        let folder = tempfile::tempdir().unwrap();
        write_directory(folder.path(), &[weights(&model)]);
        fs::write(folder.path().join(name), content).unwrap();
        import(folder.path(), &model).unwrap_err().to_string()
    };
    for (name, content) in
        other_tokenizer(9).into_iter().filter(|(name, _)| ["tokenizer.json", "added_tokens.json"].contains(name))
    {
        let error = refused(name, &content);
        let expected =
            format!("{name}: the id of token \"<url>\" requires less than 9, the vocab_size of config.json, found 9");
        assert!(error.contains(&expected), "{error}");
    }
    let error = refused("vocab.txt", "t\n".repeat(10).as_bytes());
    assert!(error.contains("vocab.txt: the id of token \"t\" requires less than 9"), "{error}");
    let error = refused("tokenizer.json", b"{\"model\": {\"type\": \"BPEE\"}}");
    assert!(error.contains("tokenizer.json: the file requires what Hugging Face's tokenizers read"), "{error}");
    let error = refused("tokenizer_config.json", b"version https://git-lfs.github.com/spec/v1\n");
    assert!(
        error.contains("tokenizer_config.json: requires a file of a tokenizer, found a pointer of Git LFS"),
        "{error}"
    );
    let error = refused("special_tokens_map.json", "\u{feff}{}".as_bytes());
    assert!(
        error.contains("special_tokens_map.json: requires a file of a tokenizer, found a byte order mark"),
        "{error}"
    );
}

#[test]
fn the_settings_of_a_trained_tokenizer_state_the_length_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    let own = json!({"tokenizer_class": "BertTokenizer", "do_lower_case": true, "strip_accents": false,
        "tokenize_chinese_chars": true, "model_max_length": 512, "pad_token": "[PAD]", "unk_token": "[UNK]",
        "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"});
    let length = |settings: &serde_json::Value| {
        let mut checkpoint = checkpoint(9, weights(&model));
        checkpoint.files.push(("tokenizer_config.json".to_owned(), settings.to_string().into_bytes()));
        let out = folder.path().join("out");
        export(Path::new("run"), checkpoint, &model, ALL_HEADS, Vec::new(), &out).unwrap();
        let written = fs::read(out.join("tokenizer_config.json")).unwrap();
        let mut written: serde_json::Value = serde_json::from_slice(&written).unwrap();
        let length = written["model_max_length"].take();
        written["model_max_length"] = json!(512);
        assert_eq!(written, *settings);
        length
    };
    assert_eq!(length(&own), json!(12));
    let mut other = own.clone();
    other["clean_up_tokenization_spaces"] = json!(true);
    assert_eq!(length(&other), json!(512));
}

#[test]
fn a_base_model_is_imported_and_its_missing_tensors_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    let expected = weights(&model);
    let base: Vec<_> = expected
        .iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix("bert.")?.to_owned(), tensor.clone())))
        .collect();
    write_directory(folder.path(), &[base]);
    let imported = import(folder.path(), &model).unwrap();
    let (bert, heads): (Vec<_>, Vec<_>) = expected.into_iter().partition(|(name, _)| name.starts_with("bert."));
    assert_eq!(imported.checkpoint.model, bert);
    assert_eq!(imported.checkpoint.state.missing, heads.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn a_bias_under_the_decoders_name_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    let expected = weights(&model);
    let renamed = |name: &String| if name == PREDICTIONS_BIAS { DECODER_BIAS.to_owned() } else { name.clone() };
    let tensors = expected.iter().map(|(name, tensor)| (renamed(name), tensor.clone())).collect();
    write_directory(folder.path(), &[tensors]);
    assert_eq!(import(folder.path(), &model).unwrap().checkpoint.model, expected);
}

#[test]
fn tensors_of_another_model_are_rejected_by_name() {
    let model = published(9, 1);
    let refused = |change: fn(&mut Vec<(String, HostTensor)>)| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = weights(&model);
        change(&mut tensors);
        write_directory(folder.path(), &[tensors]);
        import(folder.path(), &model).unwrap_err().to_string()
    };
    let error = refused(|tensors| tensors[4].1 = HostTensor::new([11], &[0.0f32; 11]));
    assert!(error.contains("layer.0.intermediate.dense.bias requires f32[10], found F32[11]"), "{error}");
    let error = refused(|tensors| tensors[4].1 = HostTensor::new([10], &[0i32; 10]));
    assert!(error.contains("layer.0.intermediate.dense.bias requires f32[10], found I32[10]"), "{error}");
    let error = refused(|tensors| tensors.retain(|(name, _)| name != "bert.embeddings.LayerNorm.bias"));
    assert!(error.contains("requires a tensor bert.embeddings.LayerNorm.bias of f32[6], found none"), "{error}");
    let error = refused(|tensors| {
        let untied = HostTensor::zeros(tensors[0].1.shape().clone());
        tensors.push((DECODER_WEIGHT.into(), untied));
    });
    assert!(error.contains("cls.predictions.decoder.weight requires a copy of"), "{error}");
    let error = refused(|tensors| tensors.push(("bert.embeddings.LayerNorm.beta".into(), tensors[2].1.clone())));
    assert!(error.contains("requires one tensor bert.embeddings.LayerNorm.bias, found two"), "{error}");
}

#[test]
fn values_that_are_not_finite_are_rejected_by_tensor_and_index() {
    let model = published(9, 1);
    let refused = |tensor: usize, change: &dyn Fn(&HostTensor) -> HostTensor| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors = weights(&model);
        tensors[tensor].1 = change(&tensors[tensor].1);
        write_directory(folder.path(), &[tensors]);
        import(folder.path(), &model).unwrap_err().to_string()
    };
    let with = |positions: &'static [usize], value: f64| {
        move |tensor: &HostTensor| {
            let mut values = tensor.to_f64();
            positions.iter().for_each(|&at| values[at] = value);
            HostTensor::from_f64(tensor.shape().clone(), &values)
        }
    };
    let embeddings = format!("tensor {WORD_EMBEDDINGS} requires finite values, found");
    let error = refused(0, &with(&[20, 21, 53], f64::NAN));
    let expected =
        format!("model.safetensors: {embeddings} NaN at [3, 2], the first of 3 such values among 54; use weights");
    assert!(error.contains(&expected), "{error}");
    let error = refused(0, &with(&[53], f64::INFINITY));
    assert!(error.contains(&format!("{embeddings} inf at [8, 5], the first of 1 such values among 54")), "{error}");
    let error = refused(4, &with(&[7], f64::NEG_INFINITY));
    assert!(error.contains("intermediate.dense.bias requires finite values, found -inf at [7]"), "{error}");
    // A value that is too large for f32.
    let large = |tensor: &HostTensor| words(tensor, |x| if x == 0.5 { 1e300 } else { x });
    let error = refused(0, &large);
    assert!(error.contains(&format!("{embeddings} inf at [")), "{error}");
    let half = |tensor: &HostTensor| words(tensor, |x| if x == 0.5 { f16::NAN } else { f16::from_f64(x) });
    let error = refused(0, &half);
    assert!(error.contains(&format!("{embeddings} NaN at [")), "{error}");
}

#[test]
fn pickled_weights_are_rejected_with_instructions() {
    let folder = tempfile::tempdir().unwrap();
    let error = import(folder.path(), &published(9, 1)).unwrap_err().to_string();
    assert!(error.contains("no weights"), "{error}");
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    let error = import(folder.path(), &published(9, 1)).unwrap_err().to_string();
    assert!(error.contains("pytorch_model.bin") && error.contains("save_pretrained"), "{error}");
}

#[test]
fn an_export_replaces_only_an_unchanged_export() {
    let folder = tempfile::tempdir().unwrap();
    let model = published(9, 1);
    let again = |out: &Path| {
        export(Path::new("run/step-00000005"), checkpoint(9, weights(&model)), &model, ALL_HEADS, Vec::new(), out)
    };
    let out = folder.path().join("exported");
    again(&out).unwrap();
    again(&out).unwrap();
    for (file, content) in [("notes.txt", "mine"), ("tokenizer.json", "{}\n")] {
        let before = fs::read(out.join(file)).ok();
        fs::write(out.join(file), content).unwrap();
        let error = again(&out).unwrap_err();
        assert!(matches!(error, crate::checkpoint::CheckpointError::WouldOverwrite { .. }), "{error}");
        assert_eq!(fs::read_to_string(out.join(file)).unwrap(), content);
        match before {
            Some(before) => fs::write(out.join(file), before).unwrap(),
            None => fs::remove_file(out.join(file)).unwrap(),
        }
    }
    again(&out).unwrap();
    let empty = folder.path().join("theirs");
    fs::create_dir(&empty).unwrap();
    again(&empty).unwrap();
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_checkpoint_of_another_model_or_tokenizer_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("exported");
    let refused = |checkpoint: Checkpoint| {
        export(Path::new("run/step-00000005"), checkpoint, &published(9, 1), ALL_HEADS, Vec::new(), &out)
            .unwrap_err()
            .to_string()
    };
    let error = refused(checkpoint(9, weights(&published(8, 1))));
    assert!(error.contains("word_embeddings.weight requires f32[9,6], found f32[8,6]"), "{error}");
    let error = refused(checkpoint(10, weights(&published(9, 1))));
    assert!(error.contains("the id of token \"t9\" requires less than 9, the vocab_size of config.json"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
