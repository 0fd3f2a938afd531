//! Packing changes where examples lie and nothing else: none is lost, rows are full, the update is that of plain rows with
//! dropout on, no example knows of its neighbours, and it does not matter who fills which rows.

mod common;

use std::collections::HashMap;
use std::ops::Range;

use common::steps::{run, spec};
use common::{Workshop, metrics};
use lambert::bert::{BatchForm, Bert, BertConfig, Examples, ParamSpec, Precision, Preset, Recompute, param_specs};
use lambert::data::{self, ExampleConfig, Packing, Prepared, Split, predictions_of_row};
use lambert::graph::{Computation, Graph};
use lambert::hlo;
use lambert::pjrt::{Platform, PlatformChoice};
use lambert::rng::{Key, Stream};
use lambert::runtime::backend::{Engine, Evaluator};
use lambert::runtime::devices::Devices;
use lambert::shape::{DType, HostTensor, Shape};
use lambert::step::{GradientStep, METRICS, StepSpec};
use proptest::prelude::*;

/// Positions of a row, in the tests of the model.
const LENGTH: usize = 16;
/// Slots for predictions of a plain row, and of a packed one.
const PREDICTIONS: [usize; 2] = [3, 8];
/// Sequences of a packed row, at most.
const PER_ROW: usize = 4;

proptest! {
    #[test]
    fn every_example_lies_in_one_row_beside_the_others(
        lengths in proptest::collection::vec(1usize..=64, 0..300),
        per_row in 1usize..6,
    ) {
        let packing = Packing::new(&lengths, 64, per_row);
        let mut seen = vec![0; lengths.len()];
        for row in packing.rows() {
            prop_assert!((1..=per_row).contains(&row.len()));
            let mut end = 0;
            for placed in row {
                prop_assert_eq!((placed.start, placed.length), (end, lengths[placed.example]));
                end += placed.length;
                seen[placed.example] += 1;
            }
            prop_assert!(end <= 64);
        }
        prop_assert!(seen.iter().all(|&times| times == 1));
    }

    #[test]
    fn a_row_has_a_slot_for_each_prediction(
        lengths in proptest::collection::vec(5usize..=128, 1..200),
        per_row in 1usize..6,
        share in 0.01f64..0.5,
        most in 1usize..60,
    ) {
        let config = ExampleConfig { masked_lm_prob: share, ..ExampleConfig::bert(128, most) };
        let predicted = |length: usize| ((length as f64 * share).round_ties_even() as usize).max(1).min(most);
        let slots = predictions_of_row(&config, per_row);
        for row in Packing::new(&lengths, 128, per_row).rows() {
            let needed: usize = row.iter().map(|placed| predicted(placed.length)).sum();
            prop_assert!(needed <= slots, "{needed} predictions, {slots} slots");
        }
    }
}

/// Lengths like those of English Wikipedia at 512: 23.4 % are 512, 36.9 % at most 128, 56.6 % at most 256 (the histogram of
/// graphcore/examples, tutorials/blogs_code/packedBERT/histograms.py).
fn length_as_in_wikipedia(stream: &mut Stream) -> usize {
    let within = |stream: &mut Stream, range: Range<u64>| stream.between(range.start, range.end - 1) as usize;
    match stream.uniform() {
        x if x < 0.369 => within(stream, 16..129),
        x if x < 0.566 => within(stream, 129..257),
        x if x < 0.766 => within(stream, 257..512),
        _ => 512,
    }
}

#[test]
fn at_512_rows_are_full_to_98_percent() {
    let mut stream = Key::new(3).stream();
    for sequences in [1024, 4096, 32768] {
        let lengths: Vec<usize> = (0..sequences).map(|_| length_as_in_wikipedia(&mut stream)).collect();
        let plain = lengths.iter().sum::<usize>() as f64 / (512 * sequences) as f64;
        let packed = Packing::new(&lengths, 512, 8).fill();
        assert!(plain < 0.55 && packed >= 0.98, "{sequences} sequences: {plain} plain, {packed} packed");
    }
}

/// An example: tokens and their types, predicted positions and what stood there, whether `b` is random.
#[derive(Clone)]
struct Sample {
    tokens: Vec<f64>,
    first_segment: usize,
    targets: Vec<(usize, f64)>,
    label: f64,
}

fn samples(count: usize, vocabulary: usize) -> Vec<Sample> {
    let mut stream = Key::new(8).stream();
    let sample = |i: usize| {
        let length = [5, 16, 7, 4, 9, 6, 3, 11][i % 8];
        let mut token = || stream.below(vocabulary as u64) as f64;
        let tokens = (0..length).map(|_| token()).collect();
        let targets = (0..1 + length / 7).map(|t| (1 + 2 * t, token())).collect();
        // −100 is no label: an example of one segment.
        let label = if i % 5 == 4 { -100.0 } else { (i % 2) as f64 };
        Sample { tokens, first_segment: length / 2, targets, label }
    };
    (0..count).map(sample).collect()
}

/// The tensors of a batch of rows, by name: in each row the samples, with their numbers.
fn batch(rows: &[Vec<(usize, &Sample)>], packed: bool) -> HashMap<&'static str, Vec<f64>> {
    let (predictions, per_row) = (PREDICTIONS[packed as usize], if packed { PER_ROW } else { 1 });
    let mut tensors: HashMap<&'static str, Vec<f64>> = HashMap::new();
    let mut add = |name, values: &[f64], width: usize| {
        let tensor = tensors.entry(name).or_default();
        tensor.extend(values);
        tensor.resize(tensor.len() + width - values.len(), 0.0);
    };
    for row in rows {
        let (mut ids, mut mask, mut types, mut places) = (vec![], vec![], vec![], vec![]);
        let (mut positions, mut targets, mut labels, mut starts, mut numbers) =
            (vec![], vec![], vec![], vec![], vec![]);
        for (k, (number, sample)) in row.iter().enumerate() {
            let start = ids.len();
            ids.extend(&sample.tokens);
            mask.extend(sample.tokens.iter().map(|_| if packed { k as f64 + 1.0 } else { 1.0 }));
            types.extend((0..sample.tokens.len()).map(|i| (i >= sample.first_segment) as u8 as f64));
            places.extend((0..sample.tokens.len()).map(|i| i as f64));
            positions.extend(sample.targets.iter().map(|(position, _)| (start + position) as f64));
            targets.extend(sample.targets.iter().map(|(_, id)| *id));
            labels.push(sample.label);
            starts.push(start as f64);
            numbers.push(*number as f64);
        }
        add("input_ids", &ids, LENGTH);
        add("attention_mask", &mask, LENGTH);
        add("token_type_ids", &types, LENGTH);
        add("masked_lm_positions", &positions, predictions);
        add("masked_lm_ids", &targets, predictions);
        add("masked_lm_weights", &vec![1.0; targets.len()], predictions);
        add("next_sentence_labels", &labels, per_row);
        if packed {
            add("position_ids", &places, LENGTH);
            add("cls_positions", &starts, per_row);
            add("example_ids", &numbers, per_row);
        }
    }
    tensors
}

/// One sample a row.
fn plain_rows(samples: &[Sample]) -> Vec<Vec<(usize, &Sample)>> {
    samples.iter().enumerate().map(|sample| vec![sample]).collect()
}

/// Packed, with as many empty rows behind as there are samples in all; dealt to `replicas`.
fn packed_rows(samples: &[Sample], replicas: usize) -> Vec<Vec<(usize, &Sample)>> {
    let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
    let packing = Packing::new(&lengths, LENGTH, PER_ROW);
    let room = samples.len() / replicas;
    let mut rows = vec![Vec::new(); samples.len()];
    for (r, row) in packing.rows().enumerate() {
        rows[r % replicas * room + r / replicas] = row.iter().map(|p| (p.example, &samples[p.example])).collect();
    }
    rows
}

/// A model with dropout that is small enough for the evaluator.
fn small() -> BertConfig {
    BertConfig {
        hidden_size: 12,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        intermediate_size: 20,
        max_position_embeddings: LENGTH + 2,
        initializer_range: 0.2,
        ..Preset::Tiny.config(60)
    }
}

fn weights(params: &[ParamSpec], dtype: DType) -> Vec<HostTensor> {
    params.iter().map(|p| HostTensor::from_f64(p.shape(dtype), &p.initial(9).to_f64())).collect()
}

/// Gradients by name and the metrics of a step over `tensors`.
fn gradients(
    engine: &impl Engine,
    precision: Precision,
    [rows, micro_batches]: [usize; 2],
    packed: bool,
    tensors: &HashMap<&'static str, Vec<f64>>,
) -> Vec<(String, Vec<f64>)> {
    let replicas = engine.replicas();
    let spec = StepSpec {
        precision,
        sequence_length: LENGTH,
        predictions: PREDICTIONS[packed as usize],
        sequences_per_row: if packed { PER_ROW } else { 1 },
        ..spec(&small(), rows, micro_batches, replicas)
    };
    let GradientStep { program, params } = GradientStep::build(&spec).unwrap();
    let arguments = |replica| {
        let mut inputs = weights(&params, precision.master());
        for value in &program.inputs[inputs.len()..] {
            let elements = value.shape.elements();
            inputs.push(match value.name.as_str() {
                "step" => HostTensor::scalar(3u32),
                "first_row" => HostTensor::scalar((replica * rows / replicas) as u32),
                "seed" => HostTensor::new([2], &[1u32, 2]),
                name => HostTensor::from_f64(value.shape.clone(), &tensors[name][replica * elements..][..elements]),
            });
        }
        inputs
    };
    let outputs = run(engine, &program, &(0..replicas).map(arguments).collect::<Vec<_>>());
    program.outputs.iter().map(|value| value.name.clone()).zip(outputs).collect()
}

fn cpu(devices: usize) -> Devices {
    match Devices::open(&PlatformChoice::Platform(Platform::Cpu), Some(devices)) {
        Ok(devices) => devices,
        Err(error) => panic!("this test needs a CPU plugin: {error:#}"),
    }
}

fn assert_close(found: &[(String, Vec<f64>)], expected: &[(String, Vec<f64>)], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{name}: {x} packed, {y} plain");
        }
    }
}

#[test]
fn loss_and_gradients_are_those_of_plain_rows_with_dropout_on() {
    let samples = samples(8, small().vocab_size);
    let plain = batch(&plain_rows(&samples), false);
    let expected = gradients(&Evaluator { replicas: 1 }, Precision::F64, [8, 1], false, &plain);
    let loss = expected.last().unwrap().1[0];
    assert!(loss > 1.0 && loss.is_finite(), "{loss}");
    for (replicas, micro_batches) in [(1, 1), (1, 4), (1, 8), (2, 2)] {
        let packed = batch(&packed_rows(&samples, replicas), true);
        let found = gradients(&Evaluator { replicas }, Precision::F64, [8, micro_batches], true, &packed);
        assert_close(&found, &expected, 1e-11);
    }
}

#[test]
fn on_the_plugin_too() {
    let samples = samples(8, small().vocab_size);
    let expected = gradients(&cpu(1), Precision::F32, [8, 2], false, &batch(&plain_rows(&samples), false));
    for (replicas, micro_batches) in [(1, 1), (1, 4), (2, 2)] {
        let packed = batch(&packed_rows(&samples, replicas), true);
        let found = gradients(&cpu(replicas), Precision::F32, [8, micro_batches], true, &packed);
        assert_close(&found, &expected, 1e-5);
    }
}

/// Words are predicted in an example of one segment too; there is no next sentence, and its mean is over the others.
#[test]
fn an_example_without_a_label_counts_for_its_words_only() {
    let (all, unlabelled) = (samples(8, small().vocab_size), 4);
    assert_eq!(all[unlabelled].label, -100.0);
    let engine = Evaluator { replicas: 1 };
    for packed in [false, true] {
        let losses = |label: f64| -> [f64; 2] {
            let mut samples = all.clone();
            samples[unlabelled].label = label;
            let rows = if packed { packed_rows(&samples, 1) } else { plain_rows(&samples) };
            let found = gradients(&engine, Precision::F64, [8, 2], packed, &batch(&rows, packed));
            let (name, metrics) = found.last().unwrap();
            assert_eq!(name, "metrics");
            ["mlm_loss", "nsp_loss"].map(|loss| metrics[METRICS.iter().position(|name| *name == loss).unwrap()])
        };
        let [[mlm, without], [mlm_follows, follows], [_, random]] = [-100.0, 0.0, 1.0].map(losses);
        assert_eq!(mlm, mlm_follows);
        // −log p of each label, from the sums over eight sequences and over seven: the two labels' p add up to one.
        let [p, q] = [follows, random].map(|mean| (7.0 * without - 8.0 * mean).exp());
        assert!((p + q - 1.0).abs() < 1e-9 && p > 0.1 && q > 0.1, "{p} and {q}");
    }
}

/// What the model says about packed rows, without dropout: `[sequence_output, MLM logits, NSP logits]`.
fn forward(model: &BertConfig, rows: usize) -> Computation {
    let (graph, params) = (Graph::new("packed_forward"), param_specs(model));
    let weights: Vec<_> = params.iter().map(|p| graph.parameter(&p.name, p.shape(DType::F32))).collect();
    let form = BatchForm { rows, sequence_length: LENGTH, predictions: PREDICTIONS[1], sequences_per_row: PER_ROW };
    let shapes = Examples::NAMES.iter().zip(Examples::shapes(form));
    let tensors: Vec<_> = shapes.map(|(name, shape)| graph.parameter(*name, shape)).collect();
    let bert = Bert::new(model, &params, &weights, Precision::F32, None, Recompute::default());
    let outputs = bert.forward(&Examples::new(&tensors));
    graph.finish(&[outputs.sequence_output, outputs.masked_lm_logits, outputs.seq_relationship_logits])
}

#[test]
fn an_example_knows_nothing_of_its_neighbours() {
    let (model, count) = (small(), 8);
    let samples = samples(count, model.vocab_size);
    let rows = packed_rows(&samples, 1);
    let (row, place) = (0..count).find_map(|r| (rows[r].len() > 2).then_some((r, 1))).expect("a row of three");
    let changed = rows[row][place].0;
    let mut others = samples.clone();
    others[changed].tokens.iter_mut().for_each(|token| *token = (*token + 7.0) % model.vocab_size as f64);

    let engine = cpu(1);
    let computation = forward(&model, count);
    let executable = engine.compile(&hlo::lower(&computation, &hlo::LowerOptions::default()).bytes).unwrap();
    let outputs = |samples: &[Sample]| -> Vec<Vec<f64>> {
        let tensors = batch(&packed_rows(samples, 1), true);
        let mut inputs = weights(&param_specs(&model), DType::F32);
        let form =
            BatchForm { rows: count, sequence_length: LENGTH, predictions: PREDICTIONS[1], sequences_per_row: PER_ROW };
        let shapes: Vec<Shape> = Examples::shapes(form);
        inputs.extend(Examples::NAMES.iter().zip(shapes).map(|(name, s)| HostTensor::from_f64(s, &tensors[name])));
        let buffers: Vec<_> = inputs.iter().map(|tensor| engine.put(tensor, 0).unwrap()).collect();
        let outputs = executable.execute(&[buffers.iter().collect()]).unwrap();
        outputs[0].iter().map(|buffer| buffer.to_host().unwrap().to_f64()).collect()
    };
    let (before, after) = (outputs(&samples), outputs(&others));

    let start: usize = rows[row][..place].iter().map(|(_, sample)| sample.tokens.len()).sum();
    let own = start..start + samples[changed].tokens.len();
    let differs = |output: usize, width: usize, at: usize| {
        before[output][at * width..][..width] != after[output][at * width..][..width]
    };
    // Padding behind the examples is of no one.
    for (r, row_of) in rows.iter().enumerate() {
        let used: usize = row_of.iter().map(|(_, sample)| sample.tokens.len()).sum();
        for position in 0..used {
            let is_own = r == row && own.contains(&position);
            assert_eq!(differs(0, model.hidden_size, r * LENGTH + position), is_own, "row {r}, position {position}");
        }
        for k in 0..row_of.len() {
            assert_eq!(differs(2, 2, r * PER_ROW + k), (r, k) == (row, place), "row {r}, sequence {k}");
        }
    }
}

#[test]
fn rows_are_the_same_whoever_fills_them_and_hold_what_plain_rows_hold() {
    let workshop = Workshop::new();
    let prepared = std::sync::Arc::new(Prepared::open(&workshop.path("data")).unwrap());
    let config = ExampleConfig { short_seq_prob: 0.7, ..ExampleConfig::bert(48, 8) };
    let examples = data::Examples::new(prepared, Split::Train, config).unwrap();
    // Across the end of an epoch.
    let (first, count, per_row) = (examples.epoch_len(0) - 20, 96, 4);
    let plain = examples.batch(first, count).unwrap();
    let of = |replicas, of| examples.packed_batch(first, count, per_row, replicas, of).unwrap();
    let whole = of(0..1, 1);
    assert_eq!(whole, of(0..1, 1));

    // Each host makes the rows of its replicas: side by side they are those of one host.
    let together = of(0..4, 4);
    for (name, tensor) in together.tensors() {
        let parts = [of(0..1, 4), of(1..3, 4), of(3..4, 4)];
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|part| part.tensors().into_iter().find(|(n, _)| *n == name).unwrap().1.bytes().to_vec())
            .collect();
        assert_eq!(bytes, tensor.bytes(), "{name}");
    }

    // Dealt in turn, so that no replica has more rows to compute than the others.
    for row in 0..count {
        let dealt = row % 4 * (count / 4) + row / 4;
        assert_eq!(together.input_ids[dealt * 48..][..48], whole.input_ids[row * 48..][..48], "row {row}");
    }

    // Row for row: tokens, types and targets of the plain batch, each example once.
    let packed = whole.packed.as_ref().unwrap();
    let mut seen = vec![0; count];
    let filled = (0..count).filter(|row| whole.attention_mask[row * 48] > 0).count();
    assert!(filled < count && whole.attention_mask[filled * 48..].iter().all(|&number| number == 0));
    for row in 0..filled {
        let numbers = &whole.attention_mask[row * 48..][..48];
        for k in 0..*numbers.iter().max().unwrap() as usize {
            let start = packed.cls_positions[row * per_row + k] as usize;
            let example = packed.example_ids[row * per_row + k] as usize;
            let length = numbers.iter().filter(|&&number| number == k as i32 + 1).count();
            let own = row * 48 + start..row * 48 + start + length;
            let there = example * 48..example * 48 + length;
            seen[example] += 1;
            assert_eq!(plain.attention_mask[example * 48..][..48].iter().sum::<i32>(), length as i32);
            assert_eq!(whole.input_ids[own.clone()], plain.input_ids[there.clone()]);
            assert_eq!(whole.token_type_ids[own.clone()], plain.token_type_ids[there]);
            assert!(packed.position_ids[own].iter().copied().eq(0..length as i32));
            assert_eq!(whole.next_sentence_labels[row * per_row + k], plain.next_sentence_labels[example]);
            let targets = |batch: &data::Batch, row: usize, from: usize, length: usize| -> Vec<(i32, i32)> {
                let slots = row * batch.max_predictions..(row + 1) * batch.max_predictions;
                slots
                    .filter(|&slot| batch.masked_lm_weights[slot] > 0.0)
                    .map(|slot| (batch.masked_lm_positions[slot] - from as i32, batch.masked_lm_ids[slot]))
                    .filter(|(position, _)| (0..length as i32).contains(position))
                    .collect()
            };
            assert_eq!(targets(&whole, row, start, length), targets(&plain, example, 0, 48));
        }
    }
    assert!(seen.iter().all(|&times| times == 1), "{seen:?}");
    assert_eq!(whole.real_tokens(), plain.real_tokens());
}

/// The losses of the training steps of a run.
fn losses(workshop: &Workshop, run: &str) -> Vec<f64> {
    let metrics = metrics(&workshop.path(run));
    metrics.iter().filter(|((kind, _), _)| kind == "train").map(|(_, line)| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_packed_run_takes_the_steps_of_a_plain_one_and_is_resumed_exactly() {
    let workshop = Workshop::new();
    let short = |text: String| {
        let text = text.replace("path = \"data\"", "path = \"data\"\nshort_seq_prob = 0.8");
        text.replace("global_batch = 4", "global_batch = 8").replace("micro_batch = 4", "micro_batch = 1")
    };
    let rows_of = |sequences: usize| {
        move |text: String| short(text).replace("\nsteps = ", &format!("\nsequences_per_row = {sequences}\nsteps = "))
    };
    for (name, devices, sequences) in [("plain", "1", 1), ("packed", "1", 4), ("spread", "2", 4)] {
        workshop.run_file(&format!("{name}.toml"), name, rows_of(sequences));
        workshop.succeed(&["pretrain", &format!("{name}.toml"), "--platform", "cpu", "--devices", devices]);
    }
    let expected = losses(&workshop, "plain");
    assert_eq!(expected.len(), 10);
    for other in ["packed", "spread"] {
        for (step, (a, b)) in expected.iter().zip(losses(&workshop, other)).enumerate() {
            assert!((a - b).abs() < 1e-4, "{other}, step {}: {a} and {b}", step + 1);
        }
    }
    let padding =
        |run: &str, step| metrics(&workshop.path(run))[&("train".to_owned(), step)]["padding"].as_f64().unwrap();
    assert!((1..=10).all(|step| padding("packed", step) <= padding("plain", step)), "packed rows hold less padding");
    assert!((1..=10).any(|step| padding("packed", step) < 0.7 * padding("plain", step)), "and now and then much less");

    // A run is the same one however its rows are packed: a plain run goes on packed, and a packed one bit for bit.
    let tensors = |run: &str| std::fs::read(workshop.path(run).join("step-00000010/model.safetensors")).unwrap();
    let straight = tensors("packed");
    workshop.run_file("stopped.toml", "stopped", |text| rows_of(4)(text).replace("every = 0", "every = 1"));
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu"]);
    for step in 5..=10 {
        std::fs::remove_dir_all(workshop.path("stopped").join(format!("step-{step:08}"))).unwrap();
    }
    workshop.succeed(&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"]);
    assert!(tensors("stopped") == straight, "weights differ");
    let plainly = ["--set", "phase.1.sequences_per_row=1", "--set", "phase.2.sequences_per_row=1"];
    std::fs::remove_dir_all(workshop.path("stopped").join("step-00000010")).unwrap();
    workshop.succeed(&[&["pretrain", "stopped.toml", "--platform", "cpu", "--resume"][..], &plainly].concat());
}
