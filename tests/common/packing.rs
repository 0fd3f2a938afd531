//! Random samples, their plain and packed batches, and the gradients of a small model on them.

use std::collections::HashMap;

use crate::common::steps::{run, spec_of, task};
use lambert::batch::pretraining::RowForm;
use lambert::bert::{BertConfig, BertPretraining, Preset};
use lambert::data::Packing;
use lambert::rng::Key;
use lambert::runtime::backend::Backend;
use lambert::shape::{DType, HostTensor};
use lambert::step::{GradientStep, StepSpec};
use lambert::task::{ParamSpec, Precision};

/// Sequence length in the tests of the model.
pub const LENGTH: usize = 16;

/// Masked positions of a plain row and of a packed row.
pub const PREDICTIONS: [usize; 2] = [3, 8];

/// Maximum number of sequences in a packed row.
pub const PER_ROW: usize = 4;

/// An example: tokens, length of the first segment, masked positions with their labels, and the next-sentence label.
#[derive(Clone)]
pub struct Sample {
    pub tokens: Vec<f64>,
    pub first_segment: usize,
    pub targets: Vec<(usize, f64)>,
    pub label: f64,
}

pub fn samples(count: usize, vocabulary: usize) -> Vec<Sample> {
    let mut stream = Key::new(8).stream();
    let sample = |i: usize| {
        let length = [5, 16, 7, 4, 9, 6, 3, 11][i % 8];
        let mut token = || stream.below(vocabulary as u64) as f64;
        let tokens = (0..length).map(|_| token()).collect();
        let targets = (0..1 + length / 7).map(|t| (1 + 2 * t, token())).collect();
        // −100 means no label: the example has one segment.
        let label = if i % 5 == 4 { -100.0 } else { (i % 2) as f64 };
        Sample { tokens, first_segment: length / 2, targets, label }
    };
    (0..count).map(sample).collect()
}

/// Returns the tensors of a batch by name. Each row lists its samples with their indices.
pub fn batch(rows: &[Vec<(usize, &Sample)>], packed: bool) -> HashMap<&'static str, Vec<f64>> {
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

/// Returns one row per sample.
pub fn plain_rows(samples: &[Sample]) -> Vec<Vec<(usize, &Sample)>> {
    samples.iter().enumerate().map(|sample| vec![sample]).collect()
}

/// Returns packed rows dealt to `replicas`, padded with empty rows to the number of samples.
pub fn packed_rows(samples: &[Sample], replicas: usize) -> Vec<Vec<(usize, &Sample)>> {
    let lengths: Vec<usize> = samples.iter().map(|sample| sample.tokens.len()).collect();
    let packing = Packing::new(&lengths, LENGTH, PER_ROW);
    let room = samples.len() / replicas;
    let mut rows = vec![Vec::new(); samples.len()];
    for (r, row) in packing.rows().enumerate() {
        rows[r % replicas * room + r / replicas] = row.iter().map(|p| (p.example, &samples[p.example])).collect();
    }
    rows
}

/// Returns a model with dropout that is small enough for the evaluator.
pub fn small() -> BertConfig {
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

/// Returns the form of plain or packed rows.
pub fn form(packed: bool) -> RowForm {
    RowForm {
        sequence_length: LENGTH,
        max_predictions: PREDICTIONS[packed as usize],
        sequences_per_row: if packed { PER_ROW } else { 1 },
    }
}

pub fn weights(params: &[ParamSpec], dtype: DType) -> Vec<HostTensor> {
    params.iter().map(|p| HostTensor::from_f64(p.shape(dtype), &p.initial(9).to_f64())).collect()
}

/// Returns the gradients by name, and last the metrics, of a step on `tensors`.
pub fn gradients(
    backend: &impl Backend,
    precision: Precision,
    [rows, micro_batches]: [usize; 2],
    packed: bool,
    tensors: &HashMap<&'static str, Vec<f64>>,
) -> Vec<(String, Vec<f64>)> {
    let replicas = backend.replicas();
    let spec = StepSpec {
        precision,
        ..spec_of(BertPretraining { rows: form(packed), ..task(&small()) }, rows, micro_batches, replicas)
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
    let outputs = run(backend, &program, &(0..replicas).map(arguments).collect::<Vec<_>>());
    program.outputs.iter().map(|value| value.name.clone()).zip(outputs).collect()
}

pub fn assert_close(found: &[(String, Vec<f64>)], expected: &[(String, Vec<f64>)], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        for (x, y) in found.iter().zip(expected) {
            assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{name}: {x} packed, {y} plain");
        }
    }
}
