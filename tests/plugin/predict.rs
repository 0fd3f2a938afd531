//! Predictions on the CPU plugin: independent of batches and order, equal to a plain forward step; the verbs `predict` and
//! `embed`; and probes, of saved models and during pretraining.

use std::sync::Arc;

use serde_json::Value;

use crate::common::{Workshop, cpu, metrics, text};
use lambert::batch::HostBatch;
use lambert::bert::{BertConfig, Encoder, EncoderOutput, param_specs};
use lambert::data::{LabelledExamples, SPECIAL_TOKENS, TextPair, Tokenizer, Vocabulary, WordRules};
use lambert::predict::embed::{embeddings, encoder, tokenize};
use lambert::predict::forward::ForwardSettings;
use lambert::runtime::compile::Compiled;
use lambert::runtime::devices::Devices;
use lambert::runtime::state::{StateLayout, TrainState};
use lambert::step::{ForwardSpec, ForwardStep, Scalars, StepInputs};
use lambert::task::Precision;

const LENGTH: usize = 24;
const SEED: u64 = 5;

fn model() -> BertConfig {
    let json = r#"{"vocab_size": 31, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "hidden_act": "gelu", "max_position_embeddings": 24, "initializer_range": 0.3}"#;
    BertConfig::from_json(json).unwrap()
}

/// Twenty texts of 1 to 20 letters.
fn texts() -> Vec<TextPair> {
    let letter = |i: usize| char::from(b'a' + (i * i % 26) as u8).to_string();
    let text = |n: usize| (0..n * 7 % 20 + 1).map(|i| letter(i + n)).collect::<Vec<_>>().join(" ");
    (0..20).map(|n| TextPair { text: text(n), text_pair: None }).collect()
}

fn examples(texts: Vec<TextPair>) -> LabelledExamples {
    let letters = (b'a'..=b'z').map(|letter| char::from(letter).to_string());
    let tokens = SPECIAL_TOKENS.into_iter().map(str::to_owned).chain(letters).collect();
    let tokenizer = Tokenizer::new(Vocabulary::new(tokens).unwrap(), WordRules::bert(true));
    tokenize(texts, &tokenizer, LENGTH).unwrap()
}

fn initial(devices: &Devices) -> TrainState {
    TrainState::initial(StateLayout::replicated(param_specs(&model()), &[]), SEED, devices).unwrap()
}

/// Returns the means of the hidden states of each text.
fn means(devices: &Devices, micro_batch_size: usize, texts: Vec<TextPair>) -> Vec<Vec<f32>> {
    let settings = ForwardSettings { micro_batch_size, ..ForwardSettings::default() };
    let mut forward = encoder(&model(), EncoderOutput::Mean, devices, settings);
    let state = initial(devices);
    let weights = forward.select(state.layout().specs(), state.buffers()).unwrap();
    let found = embeddings(&mut forward, &weights, &examples(texts)).unwrap();
    found.to_vec::<f32>().unwrap().chunks(16).map(<[f32]>::to_vec).collect()
}

#[track_caller]
fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-5, "{what}: {found} and {expected}");
    }
}

#[test]
fn predictions_are_independent_of_batches_order_and_devices() {
    let devices = cpu(1);
    let expected = means(&devices, 1, texts());
    assert!(expected.windows(2).all(|pair| pair[0] != pair[1]), "different texts have different embeddings");
    assert_close(&means(&devices, 3, texts()), &expected, "three rows a batch");
    assert_close(&means(&devices, 64, texts()), &expected, "one batch");
    let mut reversed = means(&devices, 4, texts().into_iter().rev().collect());
    reversed.reverse();
    assert_close(&reversed, &expected, "in reverse order");
    assert_close(&means(&cpu(2), 4, texts()), &expected, "two devices");
}

#[test]
fn predictions_equal_a_plain_forward_step() {
    let devices = cpu(1);
    let examples = examples(texts());
    let batch: HostBatch = examples.select(&(0..20).collect::<Vec<_>>(), LENGTH);
    let encoder = Encoder { model: model(), sequence_length: LENGTH, outputs: vec![EncoderOutput::Mean] };
    let spec = ForwardSpec { model: Arc::new(encoder), precision: Precision::F32, rows: 20, replicas: 1 };
    let step = ForwardStep::build(&spec).unwrap();
    let specs = param_specs(&model()).into_iter();
    let state = TrainState::initial(
        StateLayout::replicated(specs.filter(|spec| step.params.contains(spec)).collect(), &[]),
        SEED,
        &devices,
    )
    .unwrap();
    let compiled = Compiled::new(&devices, || Ok(step.program)).unwrap();
    let inputs = StepInputs { batch: &batch, scalars: Scalars::FORWARD, replicas: 1 };
    let launched = compiled.run(&devices, state.buffers(), &inputs).unwrap();
    let found = launched.read("mean").unwrap().wait().unwrap().to_vec::<f32>().unwrap();
    let found: Vec<Vec<f32>> = found.chunks(16).map(<[f32]>::to_vec).collect();
    assert_close(&means(&devices, 3, texts()), &found, "a plain forward step");
}

/// Labelled texts of the grammar of the workshop's corpus: the label is whether a cat is the subject.
fn reviews() -> String {
    let row = |i: usize| {
        let (subject, label) = if i.is_multiple_of(3) { ("The cat", "yes") } else { ("A dog", "no") };
        let object = ["the river", "a red house", "some bread", "the green hill"][i % 4];
        format!("{subject} sees {object}.\t{label}\n")
    };
    "sentence\tis_cat\n".to_owned() + &(0..45).map(row).collect::<String>()
}

fn json(output: &std::process::Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn fails(workshop: &Workshop, arguments: &[&str], said: &[&str]) {
    let output = workshop.lambert(&[arguments, &["--platform", "cpu"]].concat());
    assert_eq!(output.status.code(), Some(1), "lambert {arguments:?}\n{}", text(&output));
    assert!(said.iter().all(|said| text(&output).contains(said)), "{said:?}, got\n{}", text(&output));
}

#[test]
fn a_pretrained_run_is_probed_predicts_and_embeds() {
    let workshop = Workshop::new();
    std::fs::write(workshop.path("reviews.tsv"), reviews()).unwrap();
    let probe = "[evaluate]\nprobe = \"reviews.tsv\"\nprobe_text = \"sentence\"\nprobe_label = \"is_cat\"";
    workshop.run_file("run.toml", "run", |text| text.replace("[evaluate]", probe));
    workshop.run_file("wrong.toml", "other", |text| text.replace("[evaluate]", &probe.replace("is_cat", "class")));
    fails(&workshop, &["pretrain", "wrong.toml"], &["[evaluate] probe", "requires a column \"class\"", "\"is_cat\""]);
    fails(&workshop, &["pretrain", "run.toml", "--set", "evaluate.probe=none.tsv"], &["[evaluate] probe", "none.tsv"]);
    assert!(!workshop.path("other").join("metrics.jsonl").exists(), "no step was taken");

    workshop.succeed(&["pretrain", "run.toml", "--platform", "cpu"]);
    let metrics = metrics(&workshop.path("run"));
    let accuracies: Vec<f64> = [0, 4, 6, 8, 10]
        .map(|step| metrics[&("evaluation".to_owned(), step)]["probe_accuracy"].as_f64().unwrap())
        .into();
    let baseline = metrics[&("evaluation".to_owned(), 0)]["probe_accuracy_baseline"].as_f64().unwrap();
    assert!((baseline - 2.0 / 3.0).abs() < 1e-9, "{baseline}");
    assert!(accuracies.iter().all(|accuracy| (0.5..=1.0).contains(accuracy)), "{accuracies:?}");

    let columns = ["--probe-text", "sentence", "--probe-label", "is_cat", "--platform", "cpu", "--json"];
    let evaluated = workshop.succeed(&[&["evaluate", "run", "--probe", "reviews.tsv"], &columns[..]].concat());
    let evaluated = &json(&evaluated)[0];
    assert_eq!(evaluated["probe_accuracy"].as_f64(), accuracies.last().copied(), "as at the end of the run");
    assert_eq!(evaluated["probe_sequence_length"], 48);
    let random = [&["evaluate", "run", "--probe", "reviews.tsv", "--random-weights", "11"], &columns[..]].concat();
    let random = &json(&workshop.succeed(&random))[0];
    assert_eq!(random["probe_accuracy"].as_f64(), accuracies.first().copied(), "as before the first step");
    assert_eq!(random["random_weights"], 11);

    std::fs::write(workshop.path("masked.txt"), "The [MASK] sees the [MASK].\nA dog likes some [MASK].\n").unwrap();
    let filled =
        json(&workshop.succeed(&["predict", "run", "masked.txt", "--json", "--top-k", "3", "--platform", "cpu"]));
    assert_eq!(filled.len(), 2);
    assert_eq!(filled[0]["masks"].as_array().map(Vec::len), Some(2));
    assert_eq!(filled[1]["masks"][0].as_array().map(Vec::len), Some(3));
    let shown = text(&workshop.succeed(&["predict", "run", "masked.txt", "--platform", "cpu"]));
    assert!(shown.starts_with("The [MASK] sees the [MASK].\n") && shown.contains(" %  "), "{shown}");

    let embed = ["embed", "run", "masked.txt", "--normalize", "--out", "out.npy"];
    workshop.succeed(&[&embed[..], &["--platform", "cpu"]].concat());
    assert!(std::fs::read(workshop.path("out.npy")).unwrap().starts_with(b"\x93NUMPY"));
    fails(&workshop, &embed, &["out.npy already exists"]);
    fails(&workshop, &["embed", "run", "masked.txt", "--out", "out.bin"], &[".jsonl, .safetensors or .npy"]);
    std::fs::write(workshop.path("plain.txt"), "The cat [MASK].\nNo mask.\n").unwrap();
    fails(&workshop, &["predict", "run", "plain.txt"], &["plain.txt: requires [MASK] on line 2"]);
    std::fs::write(workshop.path("empty.txt"), "The cat [MASK].\n\n").unwrap();
    fails(&workshop, &["predict", "run", "empty.txt"], &["empty.txt: requires a text on line 2, got an empty one"]);
}
