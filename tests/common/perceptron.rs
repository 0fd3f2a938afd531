//! A task that is not BERT: a two-layer perceptron with two kinds of labels, a class and a number. The step, sharding,
//! micro-batches, checkpoints and the trainer must train it without a change.

use std::sync::Arc;

use lambert::batch::{BatchSource, BatchSpec, HostBatch, TensorSpec};
use lambert::graph::Tensor;
use lambert::metrics::MetricKind;
use lambert::rng::Key;
use lambert::shape::{DType, HostTensor, Shape};
use lambert::task::{DropoutKey, Init, Model, ParamSpec, Precision, Ratio, Task};

/// Inputs, hidden units and classes.
pub const INPUTS: usize = 6;
pub const HIDDEN: usize = 9;
pub const CLASSES: usize = 3;

/// tanh(x·W₁ᵀ + b₁), with a class head (cross entropy) and a value head (half the squared error).
#[derive(Clone, Debug)]
pub struct Perceptron;

fn parameter(name: &str, dims: &[usize], matmul_only: bool) -> ParamSpec {
    ParamSpec {
        name: name.to_owned(),
        published_dims: dims.to_vec(),
        dims: dims.to_vec(),
        init: if matmul_only { Init::TruncatedNormal { std: 0.5 } } else { Init::Zeros },
        matmul_only,
    }
}

impl Model for Perceptron {
    fn validate(&self, rows: usize) -> anyhow::Result<()> {
        anyhow::ensure!(rows > 0, "rows requires at least 1, got 0");
        Ok(())
    }

    fn parameters(&self) -> Vec<ParamSpec> {
        vec![
            parameter("hidden.weight", &[HIDDEN, INPUTS], true),
            parameter("hidden.bias", &[HIDDEN], false),
            parameter("class.weight", &[CLASSES, HIDDEN], true),
            parameter("class.bias", &[CLASSES], false),
            parameter("value.weight", &[1, HIDDEN], true),
            parameter("value.bias", &[1], false),
        ]
    }

    fn batch(&self) -> BatchSpec {
        BatchSpec {
            tensors: vec![
                TensorSpec::new("x", DType::F32, [INPUTS]),
                TensorSpec::new("class", DType::S32, []),
                TensorSpec::new("class_weight", DType::F32, []),
                TensorSpec::new("value", DType::F32, []),
                TensorSpec::new("value_weight", DType::F32, []),
            ],
        }
    }

    fn outputs<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
    ) -> Vec<(&'static str, Tensor<'g>)> {
        let (logits, value) = forward(weights, batch[0], precision, None);
        vec![("logits", logits), ("value", value)]
    }
}

impl Task for Perceptron {
    fn denominators(&self) -> &'static [&'static str] {
        &["classes", "values"]
    }

    fn ratios(&self) -> &'static [Ratio] {
        &[
            Ratio { name: "class_loss", label: "class loss", denominator: 0, kind: MetricKind::Loss },
            Ratio { name: "class_accuracy", label: "class accuracy", denominator: 0, kind: MetricKind::Share },
            Ratio { name: "value_loss", label: "value loss", denominator: 1, kind: MetricKind::SquaredError },
        ]
    }

    fn denominator_sums<'g>(&self, batch: &[Tensor<'g>], dtype: DType) -> Vec<Tensor<'g>> {
        vec![batch[2].convert(dtype).sum(), batch[4].convert(dtype).sum()]
    }

    fn sums<'g>(
        &self,
        weights: &[Tensor<'g>],
        batch: &[Tensor<'g>],
        precision: Precision,
        dropout: Option<DropoutKey<'g>>,
    ) -> Vec<Tensor<'g>> {
        let master = precision.master();
        let (class, class_weight) = (batch[1], batch[2].convert(master));
        let (value, value_weight) = (batch[3].convert(master), batch[4].convert(master));
        let (logits, predicted) = forward(weights, batch[0], precision, dropout);
        let rows = class.dims()[0];
        let max = logits.reduce_max(&[1]).stop_gradient();
        let log_sum = (logits - max.broadcast_like(logits, &[0])).exp().reduce_sum(&[1]).log() + max;
        let column = logits.graph().iota(logits.shape().with_dtype(DType::S32), 1);
        let is_label = column.eq(class.broadcast_like(column, &[0]));
        let of_label = is_label.select(logits, logits.filled(0.0)).reduce_sum(&[1]);
        let is_right = of_label.ge(logits.reduce_max(&[1])).convert(master);
        let error = predicted.reshape(&[rows]) - value;
        vec![
            (class_weight * (log_sum - of_label)).sum(),
            (class_weight * is_right).sum(),
            (value_weight * 0.5 * error.square()).sum(),
        ]
    }

    fn training_flops(&self) -> f64 {
        (3 * 2 * HIDDEN * (INPUTS + CLASSES + 1)) as f64
    }

    fn synthetic_batch(&self, rows: usize) -> HostBatch {
        Examples { count: 64 }.rows(0, rows).expect("examples are computed")
    }
}

/// (class logits `[B, C]`, value `[B, 1]`).
fn forward<'g>(
    weights: &[Tensor<'g>],
    x: Tensor<'g>,
    precision: Precision,
    dropout: Option<DropoutKey<'g>>,
) -> (Tensor<'g>, Tensor<'g>) {
    let linear = |x: Tensor<'g>, weight: Tensor<'g>, bias: Tensor<'g>| {
        let weight = weight.convert(precision.compute()).transpose(&[1, 0]);
        let y = x.convert(precision.compute()).matmul(weight, precision.product());
        y + bias.broadcast_like(y, &[1])
    };
    let hidden = linear(x, weights[0], weights[1]).tanh();
    let hidden = dropout.map_or(hidden, |key| dropped(hidden, key));
    (linear(hidden, weights[2], weights[3]), linear(hidden, weights[4], weights[5]))
}

/// Drops about half of the elements, keyed by (seed, step, row of the global batch, unit).
fn dropped<'g>(x: Tensor<'g>, key: DropoutKey<'g>) -> Tensor<'g> {
    let shape = x.shape().with_dtype(DType::U32);
    let graph = x.graph();
    let row = graph.iota(shape.clone(), 0) + key.first_row.broadcast_like(graph.iota(shape.clone(), 0), &[]);
    let word = key.seed.slice(&[0], &[1], &[1]).reshape(&[]) + key.step * 40_503.0;
    let mixed = (row * 2_654_435.0 + graph.iota(shape, 1) * 97.0 + word.broadcast_like(row, &[])) * 2_246_822_519.0;
    let keep = mixed.ge(mixed.filled(f64::from(1u32 << 31)));
    keep.select(x * 2.0, x.filled(0.0))
}

/// Endless examples, repeated after `count`: a class that depends on the inputs' sum, a number that is their difference. Every
/// fifth example has no class, every seventh no number.
#[derive(Clone, Debug)]
pub struct Examples {
    pub count: u64,
}

impl BatchSource for Examples {
    fn rows(&self, first_example: u64, rows: usize) -> anyhow::Result<HostBatch> {
        let (mut x, mut class, mut class_weight, mut value, mut value_weight) =
            (vec![], vec![], vec![], vec![], vec![]);
        for number in (first_example..).take(rows) {
            let number = number % self.count;
            let mut stream = Key::new(number).stream();
            let inputs: Vec<f32> = (0..INPUTS).map(|_| stream.normal() as f32).collect();
            let sum: f32 = inputs.iter().sum();
            class.push(if sum < -1.0 { 0i32 } else { 1 + i32::from(sum > 1.0) });
            class_weight.push(f32::from(!number.is_multiple_of(5)));
            value.push(inputs[0] - inputs[1]);
            value_weight.push(f32::from(!number.is_multiple_of(7)));
            x.extend(inputs);
        }
        let tensors = [
            HostTensor::new([rows, INPUTS], &x),
            HostTensor::new([rows], &class),
            HostTensor::new([rows], &class_weight),
            HostTensor::new([rows], &value),
            HostTensor::new([rows], &value_weight),
        ];
        let names = Perceptron.batch().tensors.into_iter().map(|tensor| tensor.name);
        Ok(HostBatch {
            rows,
            tensors: names.zip(tensors.into_iter().map(Arc::new)).collect(),
            row_length: 1,
            tokens: rows,
            occupied_rows: rows,
            spare_rows: 0,
        })
    }

    fn epoch_len(&self) -> u64 {
        self.count
    }

    fn epochs_covered(&self, examples: u64) -> f64 {
        examples as f64 / self.count as f64
    }
}

/// The initial weights in the type and shape that a program takes.
pub fn initial_weights(seed: u64, dtype: DType) -> Vec<HostTensor> {
    let initial = |param: ParamSpec| {
        let shape = Shape::new(dtype, param.dims.clone());
        HostTensor::from_f64(shape, &param.initial(seed).to_f64())
    };
    Perceptron.parameters().into_iter().map(initial).collect()
}
